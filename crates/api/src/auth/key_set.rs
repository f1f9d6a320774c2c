//! A set of public keys, as a JWKS document (RFC 7517) lists them.

use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::key::{Key, Unusable};

/// The usable keys of a document.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySet {
    keys: Vec<NamedKey>,
}

#[derive(Debug, Clone)]
struct NamedKey {
    kid: Option<String>,
    key: Key,
}

/// A key that is not used, and why: for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PassedOver {
    pub(crate) kid: Option<String>,
    pub(crate) why: Unusable,
}

/// Why a set has no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// No key has that name: the issuer may have a newer one.
    Unknown,
    /// The key of that name is for another algorithm.
    Algorithm,
    /// The token names no key, and there is not exactly one that it may mean.
    Unnamed,
}

impl KeySet {
    /// Issuers have a handful. The rest is passed over.
    pub(crate) const MAX_KEYS: usize = 64;
    /// The longest name of a key, here and in a token.
    pub(super) const MAX_KID_BYTES: usize = 255;

    /// Reads a document; none if it is not a JWKS. The set may be empty.
    pub(crate) fn parse(document: &[u8], allowed: &[Algorithm]) -> Option<(Self, Vec<PassedOver>)> {
        let document: Map<String, Value> = serde_json::from_slice(document).ok()?;
        let (mut set, mut passed_over) = (Self::default(), Vec::new());
        for jwk in document.get("keys")?.as_array()?.iter().take(Self::MAX_KEYS) {
            if let Err(why) = set.take(jwk, allowed) {
                let kid = jwk.get("kid").and_then(Value::as_str);
                let kid = kid.map(|kid| kid.chars().take(Self::MAX_KID_BYTES).collect());
                passed_over.push(PassedOver { kid, why });
            }
        }
        Some((set, passed_over))
    }

    fn take(&mut self, jwk: &Value, allowed: &[Algorithm]) -> Result<(), Unusable> {
        let jwk = jwk.as_object().ok_or(Unusable::Malformed)?;
        let key = Key::from_jwk(jwk)?;
        if !allowed.contains(&key.algorithm()) {
            return Err(Unusable::NotAllowed(key.algorithm()));
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= Self::MAX_KID_BYTES => Some(kid.clone()),
            Some(_) => return Err(Unusable::KeyId),
        };
        let same = |other: &NamedKey| other.kid == kid && other.key.algorithm() == key.algorithm();
        if kid.is_some() && self.keys.iter().any(same) {
            return Err(Unusable::Duplicate);
        }
        self.keys.push(NamedKey { kid, key });
        Ok(())
    }

    /// The only key that a token with this header can have been signed with.
    pub(super) fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<&Key, Miss> {
        let mut named =
            self.keys.iter().filter(|named| kid.is_none() || named.kid.as_deref() == kid);
        let mut fitting = named.clone().filter(|named| named.key.algorithm() == algorithm);
        match (fitting.next(), fitting.next(), kid) {
            (Some(only), None, _) => Ok(&only.key),
            (_, _, None) => Err(Miss::Unnamed),
            (None, _, Some(_)) if named.next().is_some() => Err(Miss::Algorithm),
            (_, _, Some(_)) => Err(Miss::Unknown),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The public key of RFC 8037, appendix A.
    fn ed() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn why(name: &str, value: Value) -> Option<Unusable> {
        let mut jwk = ed();
        jwk[name] = value;
        let document = json!({ "keys": [jwk] }).to_string();
        let (_, passed) = KeySet::parse(document.as_bytes(), &Algorithm::PUBLIC).unwrap();
        passed.first().map(|key| key.why)
    }

    #[test]
    fn a_key_must_agree_with_itself() {
        for (name, value, expected) in [
            ("kid", json!("a"), None),
            ("use", json!("sig"), None),
            ("alg", json!("EdDSA"), None),
            ("key_ops", json!(["verify"]), None),
            ("use", json!("enc"), Some(Unusable::Use)),
            ("use", json!(null), Some(Unusable::Use)),
            ("key_ops", json!(["encrypt"]), Some(Unusable::Use)),
            ("alg", json!("HS256"), Some(Unusable::Algorithm)),
            ("alg", json!("RS256"), Some(Unusable::Algorithm)),
            ("alg", json!(1), Some(Unusable::Algorithm)),
            ("kty", json!("oct"), Some(Unusable::Symmetric)),
            ("kty", json!("EC"), Some(Unusable::Type)),
            ("kty", json!("RSA"), Some(Unusable::Malformed)),
            ("crv", json!("Ed448"), Some(Unusable::Type)),
            ("x", json!("AAAA"), Some(Unusable::Malformed)),
            ("d", json!("AAAA"), Some(Unusable::Private)),
            ("kid", json!(1), Some(Unusable::KeyId)),
        ] {
            assert_eq!(why(name, value.clone()), expected, "{name}: {value}");
        }
    }

    #[test]
    fn weak_and_impossible_keys_are_passed_over() {
        let number = |bytes: usize| data_encoding::BASE64URL_NOPAD.encode(&vec![0xff; bytes]);
        for (jwk, expected) in [
            (json!({"kty": "RSA", "n": number(128), "e": "AQAB"}), Unusable::RsaLength),
            (json!({"kty": "RSA", "n": number(255), "e": "AQAB"}), Unusable::RsaLength),
            (json!({"kty": "RSA", "n": number(1025), "e": "AQAB"}), Unusable::RsaLength),
            (json!({"kty": "RSA", "n": number(256), "e": "AQ"}), Unusable::Malformed),
            (
                json!({"kty": "EC", "crv": "P-256", "x": number(32), "y": number(32)}),
                Unusable::Malformed,
            ),
            (
                json!({"kty": "EC", "crv": "P-256", "x": number(31), "y": number(33)}),
                Unusable::Malformed,
            ),
            (
                json!({"kty": "EC", "crv": "P-384", "x": number(48), "y": number(48)}),
                Unusable::Type,
            ),
            (json!([]), Unusable::Malformed),
        ] {
            let document = json!({ "keys": [jwk] }).to_string();
            let (set, passed) = KeySet::parse(document.as_bytes(), &Algorithm::PUBLIC).unwrap();
            assert!(set.is_empty());
            assert_eq!(passed[0].why, expected, "{document}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_server_sends_is_read_without_a_panic(text in "\\PC{0,200}", kty in "RSA|EC|OKP|oct|", value in "[A-Za-z0-9_-]{0,90}") {
            prop_assert!(KeySet::parse(text.as_bytes(), &Algorithm::PUBLIC).is_none_or(|(set, _)| set.is_empty()));
            let jwk = json!({"kty": kty, "crv": "P-256", "x": value, "y": value, "n": value, "e": value});
            let document = json!({ "keys": [jwk] }).to_string();
            prop_assert!(KeySet::parse(document.as_bytes(), &Algorithm::PUBLIC).unwrap().0.is_empty());
        }
    }
}
