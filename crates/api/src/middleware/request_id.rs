//! The id that ties a request, its log lines and its answer together.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// A request's id.
#[derive(Debug, Clone)]
pub(super) struct RequestId(String);

impl RequestId {
    const MAX_BYTES: usize = 128;

    /// The one that a proxy gave, if it is harmless in logs and headers; else a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
        let harmless = |text: &&str| {
            (1..=Self::MAX_BYTES).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        Self(given.filter(harmless).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_id_is_kept_and_others_are_replaced() {
        let of = |text: &'static str| {
            RequestId::of(&HeaderMap::from_iter([(HEADER, HeaderValue::from_static(text))])).0
        };
        assert_eq!(of("req-1:a.b_C"), "req-1:a.b_C");
        for bad in ["", "a b", "a\tb", "{\"a\":1}"] {
            assert!(of(bad).parse::<Uuid>().is_ok(), "{bad:?}");
        }
        let long = HeaderValue::from_str(&"a".repeat(129)).unwrap();
        let replaced = RequestId::of(&HeaderMap::from_iter([(HEADER, long)]));
        assert_eq!(replaced.0.len(), 36);
    }
}
