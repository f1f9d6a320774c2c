//! Checking a token. Whatever is not understood is refused.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};
use tenantry_db::Error;

use super::claims::{Claims, Scopes, TokenClaims};
use crate::config::AuthSettings;

/// Decides which tokens are believed.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Keys,
    validation: Validation,
}

/// What signatures are checked with. The place for public keys, from a file or a URL.
enum Keys {
    /// One shared secret, HS256.
    Secret(DecodingKey),
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a token is not believed. For our own log: a client that forges tokens learns nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it is longer than {} bytes", Verifier::MAX_BYTES)]
    TooLong,
    #[error("it has not the form of a token")]
    Malformed,
    #[error("its header names another algorithm")]
    Algorithm,
    #[error("its header asks for extensions (`crit`)")]
    Critical,
    #[error("its header names a key (`kid`), and there is only one")]
    UnknownKey,
    #[error("its claims do not hold: {0}")]
    Claims(#[from] jsonwebtoken::errors::Error),
    #[error("its subject is empty, too long, or not plain text")]
    Subject,
}

impl Verifier {
    /// Nobody's token is longer; a longer one only costs time.
    const MAX_BYTES: usize = 8 * 1024;

    /// # Errors
    /// [`Error::Config`] if `auth.secret` is not set.
    pub(crate) fn new(settings: &AuthSettings) -> Result<Self, Error> {
        let key = DecodingKey::from_secret(settings.secret()?.expose().as_bytes());
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        validation.leeway = settings.leeway.as_secs();
        validation.validate_nbf = true;
        Ok(Self { keys: Keys::Secret(key), validation })
    }

    pub(crate) fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > Self::MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        let key = self.key_for(&header(token)?)?;
        let token = jsonwebtoken::decode::<TokenClaims>(token, key, &self.validation)?;
        let TokenClaims { sub, tenant_id, role, scope } = token.claims;
        if !Claims::is_subject(&sub) {
            return Err(Refusal::Subject);
        }
        let scope = Scopes::of_token(scope.as_deref().unwrap_or_default());
        Ok(Claims { sub, tenant_id, role, scope })
    }

    fn key_for(&self, header: &Map<String, Value>) -> Result<&DecodingKey, Refusal> {
        match &self.keys {
            Keys::Secret(_) if header.get("alg").and_then(Value::as_str) != Some("HS256") => {
                Err(Refusal::Algorithm)
            }
            Keys::Secret(_) if header.contains_key("kid") => Err(Refusal::UnknownKey),
            Keys::Secret(key) => Ok(key),
        }
    }
}

/// The header as it stands, because the library passes over what it does not know.
fn header(token: &str) -> Result<Map<String, Value>, Refusal> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed);
    };
    let header = BASE64URL_NOPAD.decode(header.as_bytes()).map_err(|_| Refusal::Malformed)?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)?;
    if header.contains_key("crit") { Err(Refusal::Critical) } else { Ok(header) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tenantry_db::{Secret, TenantId};

    use super::super::claims::{Role, Scope};
    use super::super::issue;
    use super::*;

    fn settings(secret: &str) -> AuthSettings {
        AuthSettings {
            secret: Some(Secret::new(secret)),
            issuer: "tenantry".to_owned(),
            audience: "tenantry-api".to_owned(),
            leeway: Duration::from_secs(30),
        }
    }

    fn claims() -> impl Strategy<Value = Claims> {
        let role = proptest::option::of(proptest::sample::select(vec![
            Role::Owner,
            Role::Admin,
            Role::Member,
            Role::Viewer,
        ]));
        let scope = proptest::sample::subsequence(Scope::ALL.to_vec(), 0..=5);
        ("[a-z:@.]{1,60}", proptest::option::of(any::<u128>()), role, scope).prop_map(
            |(sub, id, role, scope)| Claims {
                sub,
                tenant_id: id.map(|bits| TenantId::from(uuid::Uuid::from_u128(bits))),
                role,
                scope: scope.into_iter().collect(),
            },
        )
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    proptest! {
        #[test]
        fn what_is_issued_is_believed_as_it_was_meant(claims in claims()) {
            let settings = settings(SECRET);
            let token = issue(&settings, &claims, HOUR).unwrap();
            prop_assert_eq!(Verifier::new(&settings).unwrap().verify(&token).unwrap(), claims);
        }

        #[test]
        fn a_changed_token_is_refused(claims in claims(), at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
            let settings = settings(SECRET);
            let token = issue(&settings, &claims, HOUR).unwrap();
            let at = at.index(token.len());
            let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
            prop_assume!(changed != token);
            prop_assert!(Verifier::new(&settings).unwrap().verify(&changed).is_err());
        }

        #[test]
        fn another_key_is_refused(claims in claims(), key in "[a-f0-9]{32,40}") {
            let token = issue(&settings(&key), &claims, HOUR).unwrap();
            prop_assert!(Verifier::new(&settings(SECRET)).unwrap().verify(&token).is_err());
        }

        #[test]
        fn anything_else_is_refused_without_a_panic(text in "\\PC{0,200}|([A-Za-z0-9_-]{0,60}[.]){0,4}") {
            prop_assert!(Verifier::new(&settings(SECRET)).unwrap().verify(&text).is_err());
        }
    }
}
