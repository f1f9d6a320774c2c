//! Checking a token. Whatever is not understood is refused.
//!
//! The key decides the algorithm, never the token: a token's `alg` only has to agree. What a header
//! says of where its key may be found (`jku`, `x5u`, `jwk`, `x5c`) is not looked at.

use std::future::Future;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::Validation;
use serde_json::{Map, Value};
use tenantry_db::Error;

use super::algorithm::Algorithm;
use super::claims::{Claims, Scopes, TokenClaims};
use super::key::Key;
use super::key_set::{KeySet, Miss};
use super::origin::Origin;
use super::rotating::{NoKey, RotatingKeys};
use super::settings::{AuthSettings, Place, Source, refused};

/// Decides which tokens are believed.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Keys,
    /// What claims must say. Its algorithms are set for each token, from its key.
    validation: Validation,
}

/// What signatures are checked with.
#[derive(Debug)]
enum Keys {
    /// One shared secret.
    Secret(Key),
    /// One public key, which has no name.
    Public(Key),
    /// Public keys with names, which change.
    Rotating { keys: RotatingKeys, allowed: Vec<Algorithm> },
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
    #[error("its header names a key (`kid`) that is not known")]
    UnknownKey,
    #[error("its header names no key (`kid`), and there is not exactly one for its algorithm")]
    UnnamedKey,
    #[error("its claims or its signature do not hold: {0}")]
    Claims(#[from] jsonwebtoken::errors::Error),
    #[error("its subject is empty, too long, or not plain text")]
    Subject,
    /// Not the token's fault.
    #[error("no key was fetched yet")]
    NoKeysYet,
}

impl From<NoKey> for Refusal {
    fn from(no_key: NoKey) -> Self {
        match no_key {
            NoKey::NoneYet => Self::NoKeysYet,
            NoKey::Miss(Miss::Unknown) => Self::UnknownKey,
            NoKey::Miss(Miss::Unnamed) => Self::UnnamedKey,
            NoKey::Miss(Miss::Algorithm) => Self::Algorithm,
        }
    }
}

impl Verifier {
    /// Nobody's token is longer; a longer one only costs time.
    const MAX_BYTES: usize = 8 * 1024;

    /// # Errors
    /// [`Error::Config`] if no source of keys is set, or if its URL can't be fetched from at all.
    pub(crate) fn new(settings: &AuthSettings) -> Result<Self, Error> {
        let mut validation = Validation::default();
        validation.algorithms.clear();
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        validation.leeway = settings.leeway.as_secs();
        validation.validate_nbf = true;
        Ok(Self { keys: keys(settings.source()?)?, validation })
    }

    /// Cancel-safe: a dropped future only leaves the question unanswered.
    pub(crate) async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        if token.len() > Self::MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        let key = self.key_for(&header(token)?).await?;
        let mut validation = self.validation.clone();
        validation.algorithms = vec![key.algorithm().of_library()];
        let token = jsonwebtoken::decode::<TokenClaims>(token, key.decoding(), &validation)?;
        let TokenClaims { sub, tenant_id, role, scope } = token.claims;
        if !Claims::is_subject(&sub) {
            return Err(Refusal::Subject);
        }
        let scope = Scopes::of_token(scope.as_deref().unwrap_or_default());
        Ok(Claims { sub, tenant_id, role, scope })
    }

    /// Keeps changing keys fresh, without end; for others there is nothing to do.
    pub(crate) fn upkeep(&self) -> impl Future<Output = ()> + use<> {
        let rotating = match &self.keys {
            Keys::Secret(_) | Keys::Public(_) => None,
            Keys::Rotating { keys, .. } => Some(keys.upkeep()),
        };
        async move {
            match rotating {
                Some(upkeep) => upkeep.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether tokens can be checked at all.
    pub(crate) fn has_keys(&self) -> bool {
        match &self.keys {
            Keys::Secret(_) | Keys::Public(_) => true,
            Keys::Rotating { keys, .. } => keys.any(),
        }
    }

    async fn key_for(&self, header: &Map<String, Value>) -> Result<Key, Refusal> {
        let named = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = named.ok_or(Refusal::Algorithm)?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= KeySet::MAX_KID_BYTES => Some(&**kid),
            Some(_) => return Err(Refusal::Malformed),
        };
        match &self.keys {
            Keys::Secret(key) | Keys::Public(key) if key.algorithm() != algorithm => {
                Err(Refusal::Algorithm)
            }
            // Our own tokens name no key, so this one is meant for somebody else's.
            Keys::Secret(_) if kid.is_some() => Err(Refusal::UnknownKey),
            Keys::Secret(key) | Keys::Public(key) => Ok(key.clone()),
            Keys::Rotating { allowed, .. } if !allowed.contains(&algorithm) => {
                Err(Refusal::Algorithm)
            }
            Keys::Rotating { keys, .. } => Ok(keys.find(algorithm, kid).await?),
        }
    }
}

fn keys(source: &Source) -> Result<Keys, Error> {
    Ok(match source {
        Source::Secret(secret) => Keys::Secret(Key::from_secret(secret)),
        Source::PublicKey(key) => Keys::Public(key.clone()),
        Source::Jwks { place, allowed, intervals } => {
            let (origin, first) = match place {
                Place::Url(url) => {
                    let origin = Origin::url(url.clone(), intervals.timeout).map_err(|error| {
                        refused(format!("`auth.jwks_url` can't be fetched from: {error}"))
                    })?;
                    (origin, None)
                }
                Place::File(path, first) => (Origin::File(path.clone()), Some(first.clone())),
            };
            let keys = RotatingKeys::new(origin, allowed.clone(), *intervals, first);
            Keys::Rotating { keys, allowed: allowed.clone() }
        }
    })
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

    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use tenantry_db::{Secret, TenantId};

    use super::super::claims::{Role, Scope};
    use super::super::issue;
    use super::*;

    fn settings(secret: &str) -> AuthSettings {
        AuthSettings {
            source: Some(Source::Secret(Secret::new(secret))),
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

    /// With keys that are at hand, nothing is waited for.
    fn verify(settings: &AuthSettings, token: &str) -> Result<Claims, Refusal> {
        Verifier::new(settings).unwrap().verify(token).now_or_never().unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    proptest! {
        #[test]
        fn what_is_issued_is_believed_as_it_was_meant(claims in claims()) {
            let settings = settings(SECRET);
            let token = issue(&settings, &claims, HOUR).unwrap();
            prop_assert_eq!(verify(&settings, &token).unwrap(), claims);
        }

        #[test]
        fn a_changed_token_is_refused(claims in claims(), at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
            let settings = settings(SECRET);
            let token = issue(&settings, &claims, HOUR).unwrap();
            let at = at.index(token.len());
            let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
            prop_assume!(changed != token);
            prop_assert!(verify(&settings, &changed).is_err());
        }

        #[test]
        fn another_key_is_refused(claims in claims(), key in "[a-f0-9]{32,40}") {
            let token = issue(&settings(&key), &claims, HOUR).unwrap();
            prop_assert!(verify(&settings(SECRET), &token).is_err());
        }

        #[test]
        fn anything_else_is_refused_without_a_panic(text in "\\PC{0,200}|([A-Za-z0-9_-]{0,60}[.]){0,4}") {
            prop_assert!(verify(&settings(SECRET), &text).is_err());
        }
    }
}
