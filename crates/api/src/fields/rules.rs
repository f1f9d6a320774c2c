//! What a field must look like. A rule's complaint follows the field's name: «must be …».

use jiff::Timestamp;
use serde_json::{Map, Value};
use tenantry_db::is_invisible;
use uuid::Uuid;

/// Takes a value that is not absent, or says what it must be.
pub(crate) trait Rule<T>: FnOnce(Value) -> Result<T, String> {}

impl<T, F: FnOnce(Value) -> Result<T, String>> Rule<T> for F {}

/// One line of 1 to `max_chars` characters that can be seen.
pub(crate) fn text(max_chars: usize) -> impl Rule<String> {
    move |value| {
        let text = any_text(max_chars)(value)?;
        // Those that turn a line around. Others that can't be seen join emoji, or letters of Persian.
        let turning = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if text.chars().any(|c| c.is_control() || turning(c)) {
            Err("must not hold control characters".to_owned())
        } else if text.chars().all(|c| c.is_whitespace() || is_invisible(c)) {
            Err("must not be empty".to_owned())
        } else {
            Ok(text)
        }
    }
}

/// Text that may be empty.
pub(crate) fn any_text(max_chars: usize) -> impl Rule<String> {
    move |value| {
        let Value::String(text) = value else { return Err("must be text".to_owned()) };
        if text.chars().count() > max_chars {
            return Err(format!("must have at most {max_chars} characters"));
        }
        Ok(text)
    }
}

/// An address of the form `somebody@example.com`. Whether it exists, only a message to it can tell.
pub(crate) fn email(value: Value) -> Result<String, String> {
    const MAX_CHARS: usize = 254;
    const MAX_LOCAL_CHARS: usize = 64;
    const MAX_LABEL_CHARS: usize = 63;
    let text = text(MAX_CHARS)(value)?;
    let usable = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[],;:\\\"@".contains(c);
    let label = |l: &str| {
        (1..=MAX_LABEL_CHARS).contains(&l.chars().count())
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let good = text.rsplit_once('@').is_some_and(|(local, domain)| {
        (1..=MAX_LOCAL_CHARS).contains(&local.chars().count())
            && local.chars().all(usable)
            && local.split('.').all(|part| !part.is_empty())
            && domain.contains('.')
            && domain.split('.').all(label)
            && domain.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '.')
    });
    if good { Ok(text) } else { Err("must be an email address".to_owned()) }
}

/// A link for browsers. Other schemes than these two could carry a script.
pub(crate) fn url(value: Value) -> Result<String, String> {
    const MAX_CHARS: usize = 2048;
    let text = text(MAX_CHARS)(value)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.chars().any(|c| c.is_whitespace() || "\"'<>\\^`{|}".contains(c))
    });
    if good { Ok(text) } else { Err("must be a URL with `https://` or `http://`".to_owned()) }
}

pub(crate) fn boolean(value: Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

/// The hyphenated form only, so that an id has one spelling.
pub(crate) fn uuid(value: Value) -> Result<Uuid, String> {
    let text = value.as_str().filter(|text| text.len() == 36);
    text.and_then(|text| Uuid::try_parse(text).ok()).ok_or_else(|| "must be a UUID".to_owned())
}

/// A moment with its offset. Before year 1 PostgreSQL and RFC 3339 count differently.
pub(crate) fn timestamp(value: Value) -> Result<Timestamp, String> {
    const YEAR_1: Timestamp = Timestamp::constant(-62_135_596_800, 0);
    let parsed = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed
        .filter(|moment| *moment >= YEAR_1)
        .ok_or_else(|| "must be a time such as `2026-11-23T10:00:00Z`".to_owned())
}

/// One of a closed set of names.
pub(crate) fn one_of<T: Copy + 'static>(
    known: &'static [T],
    name: fn(T) -> &'static str,
) -> impl Rule<T> {
    move |value| {
        let text = value.as_str();
        known.iter().copied().find(|one| Some(name(*one)) == text).ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|one| format!("`{}`", name(*one))).collect();
            format!("must be one of {}", names.join(", "))
        })
    }
}

/// An object of at most so many bytes.
pub(crate) fn object(max_bytes: usize) -> impl Rule<Map<String, Value>> {
    move |value| {
        let length = value.to_string().len();
        match value {
            Value::Object(_) if length > max_bytes => {
                Err(format!("must have at most {max_bytes} bytes"))
            }
            Value::Object(object) => Ok(object),
            _ => Err("must be an object".to_owned()),
        }
    }
}

/// A list of at most so many values of any kind.
pub(crate) fn array(max_items: usize) -> impl Rule<Value> {
    move |value| match &value {
        Value::Array(items) if items.len() > max_items => {
            Err(format!("must have at most {max_items} entries"))
        }
        Value::Array(_) => Ok(value),
        _ => Err("must be a list".to_owned()),
    }
}

/// A list of short texts.
pub(crate) fn tags(value: Value) -> Result<Vec<String>, String> {
    const MAX_ITEMS: usize = 100;
    const MAX_CHARS: usize = 100;
    let Value::Array(items) = array(MAX_ITEMS)(value)? else { return Ok(Vec::new()) };
    let tag = |(at, item)| text(MAX_CHARS)(item).map_err(|problem| format!("entry {at} {problem}"));
    items.into_iter().enumerate().map(|(n, item)| tag((n + 1, item))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses() {
        for good in ["a@b.co", "Ann.Lee+x@mail.example.com", "ä@bücher.example", "o'neil@x.ie"] {
            assert!(email(json!(good)).is_ok(), "{good}");
        }
        let long = format!("{}@b.co", "a".repeat(65));
        for bad in [
            "",
            "a",
            "@b.co",
            "a@",
            "a@b",
            "a@b..co",
            "a b@c.de",
            "a@-b.co",
            "a@b@c.de",
            "a@b.co,x@y.z",
            "a\n@b.co",
            "<a@b.co>",
            ".a@b.co",
            "a..b@b.co",
            "a\u{202e}@b.co",
            &format!("a@{}.co", "b".repeat(64)),
            &long,
        ] {
            assert!(email(json!(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lines() {
        for good in ["Ann", "👩\u{200d}💻 team", "می\u{200c}خواهم"] {
            assert!(text(50)(json!(good)).is_ok(), "{good}");
        }
        for bad in ["", " ", "\u{200b}", "a\nb", "\u{1b}[31m", "a\u{202e}b"] {
            assert!(text(50)(json!(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn links() {
        assert!(url(json!("https://example.com/a.png")).is_ok());
        for bad in [
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "//x.y",
            "https://a b",
            "x",
            "https://\"><script>@x",
        ] {
            assert!(url(json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments() {
        for good in ["2026-11-23T10:00:00Z", "2026-11-23T10:00:00.123456+02:00"] {
            assert!(timestamp(json!(good)).is_ok(), "{good}");
        }
        let bad =
            [json!("2026-11-23T10:00:00"), json!("-000001-01-01T00:00:00Z"), json!(0), json!("x")];
        for bad in bad {
            assert!(timestamp(bad.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_rule_panic(input in "\\PC{0,300}") {
            let value = json!(input);
            let _ = (email(value.clone()), url(value.clone()), timestamp(value.clone()));
            let _ = (uuid(value.clone()), tags(json!([value])));
        }
    }
}
