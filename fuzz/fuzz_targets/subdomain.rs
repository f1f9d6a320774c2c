//! Names from outside: whatever parses has the promised form, and prints as it was written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry_db::{SchemaName, Subdomain, TenantId, TenantRef};

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.as_bytes().get(2..4) != Some(b"--")
        && !text.bytes().all(|b| b.is_ascii_digit())
}

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<Subdomain>() {
        assert!(is_label(text), "{text:?}");
        assert!(Subdomain::RESERVED.binary_search(&text).is_err(), "{text:?}");
        assert!(text.parse::<TenantId>().is_err(), "{text:?} names two tenants");
        assert_eq!(name.to_string(), text);
    }
    // What a person types may be a name that became reserved since; nothing else is added.
    match text.parse::<TenantRef>() {
        Ok(TenantRef::Subdomain(name)) => assert!(is_label(name.as_str()) && name.as_str() == text),
        Ok(TenantRef::Id(id)) => assert_eq!(id.to_string(), text.to_ascii_lowercase()),
        Err(refusal) => {
            // The message can stand in a log line, however long and hostile the text was.
            let message = refusal.to_string();
            assert!(message.len() < 600 && !message.contains(char::is_control), "{message:?}");
        }
    }
    if let Ok(schema) = text.parse::<SchemaName>() {
        assert_eq!(schema.to_string(), text);
        assert_eq!(schema.tenant().schema(), schema);
    }
});
