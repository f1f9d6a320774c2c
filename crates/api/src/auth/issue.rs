//! Issuing tokens with the service's own key, for development and for operators.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use tenantry_db::Error;

use super::claims::{Claims, TokenClaims};
use super::settings::AuthSettings;

#[derive(Serialize)]
struct Token<'a> {
    #[serde(flatten)]
    claims: TokenClaims,
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

/// Signs a token that the service believes until `ttl` from now.
///
/// # Errors
/// [`Error::Config`] if `auth.secret` is not set.
pub fn issue(settings: &AuthSettings, claims: &Claims, ttl: Duration) -> Result<String, Error> {
    let secret = settings.secret()?.expose().as_bytes();
    let now = Timestamp::now().as_second();
    let scope = claims.scope.to_string();
    let token = Token {
        claims: TokenClaims {
            sub: claims.sub.clone(),
            tenant_id: claims.tenant_id,
            role: claims.role,
            scope: (!scope.is_empty()).then_some(scope),
        },
        iss: &settings.issuer,
        aud: &settings.audience,
        iat: now,
        exp: now.saturating_add_unsigned(ttl.as_secs()),
    };
    let header = Header::new(Algorithm::HS256);
    let signed = jsonwebtoken::encode(&header, &token, &EncodingKey::from_secret(secret));
    Ok(signed.expect("text and numbers can be written as JSON and signed with HMAC"))
}
