//! Request headers that say how often something is to be done, and on what condition.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;

use crate::problem::{Code, Problem};
use crate::state::ApiState;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_KEY_BYTES: usize = 255;

/// `Idempotency-Key`, if the client sent one: the same key marks the same request, sent again.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl FromRequestParts<ApiState> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        let Some(value) = only(&parts.headers, IDEMPOTENCY_KEY, "Idempotency-Key")? else {
            return Ok(Self(None));
        };
        let key = value.to_str().unwrap_or_default();
        // Visible ASCII, so that a key is spelled in one way.
        let usable = (1..=MAX_KEY_BYTES).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic());
        if usable {
            Ok(Self(Some(key.to_owned())))
        } else {
            let rule = format!("must have 1 to {MAX_KEY_BYTES} visible ASCII characters");
            Err(Problem::field("Idempotency-Key", rule))
        }
    }
}

/// `If-Match`: what is to be changed must still be as the client saw it. `*` asks for nothing, since
/// what is not there can't be changed anyway.
pub(crate) struct IfMatch(pub(crate) Option<Timestamp>);

impl FromRequestParts<ApiState> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        let Some(value) = only(&parts.headers, header::IF_MATCH, "If-Match")? else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        if text.contains(',') {
            return Err(Problem::field("If-Match", "must be one entity tag, as `ETag` gave it"));
        }
        // One of another form (a weak one, too) can't be ours, so it matches nothing.
        let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let seen = tag.and_then(|tag| tag.parse::<Timestamp>().ok());
        seen.filter(|seen| etag(*seen) == text).map(|seen| Self(Some(seen))).ok_or_else(|| {
            Problem::new(Code::PreconditionFailed, "`If-Match` is none of our entity tags")
        })
    }
}

/// The entity tag of what was last changed then.
pub(crate) fn etag(updated_at: Timestamp) -> String {
    format!("\"{updated_at}\"")
}

/// Of two values, whoever checks one may use the other.
fn only(
    headers: &HeaderMap,
    name: HeaderName,
    shown: &str,
) -> Result<Option<HeaderValue>, Problem> {
    let mut given = headers.get_all(name).iter();
    match (given.next(), given.next()) {
        (first, None) => Ok(first.cloned()),
        (_, Some(_)) => Err(Problem::field(shown, "is given more than once")),
    }
}
