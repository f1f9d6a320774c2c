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
