//! A tenant's human name: one DNS label.

use std::fmt;
use std::str::FromStr;

use super::{InvalidName, TenantId, excerpt};

/// A tenant's subdomain: a lower-case DNS label (RFC 1123) that is not reserved.
///
/// Upper case is refused instead of folded, so that a name has one spelling everywhere. A label
/// whose third and fourth characters are hyphens is refused too: DNS keeps those for encoded
/// international names (`xn--…`), which could be made to look like another tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subdomain(String);

impl Subdomain {
    /// The longest label that DNS carries.
    pub const MAX_BYTES: usize = 63;

    /// Names that belong to the platform or that mislead people: sorted.
    #[rustfmt::skip]
    pub const RESERVED: &[&str] = &[
        "abuse", "account", "accounts", "admin", "administrator", "api", "app", "apps", "assets",
        "auth", "autoconfig", "autodiscover", "backup", "billing", "blog", "cdn", "console",
        "dashboard", "dev", "dns", "docs", "email", "ftp", "git", "health", "help", "hostmaster",
        "imap", "info", "internal", "isatap", "localhost", "login", "mail", "metrics", "mx",
        "ns", "ns1", "ns2", "oauth", "pop", "pop3", "postgres", "postmaster", "private",
        "public", "root", "security",  "smtp", "ssl", "sso", "staging", "static",
        "status", "support", "system", "tenant", "tenantry", "tenants", "test", "tls", "usenet",
        "uucp", "webmail", "webmaster", "wpad", "www", "www1", "www2",
    ];

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a name that may have been taken before it became reserved.
    ///
    /// # Errors
    /// When the text is not a lower-case DNS label.
    pub(crate) fn parse_existing(text: &str) -> Result<Self, InvalidName> {
        match broken_rule(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(InvalidName::Subdomain { text: excerpt(text), reason }),
        }
    }
}

fn broken_rule(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        Some("it is empty")
    } else if bytes.len() > Subdomain::MAX_BYTES {
        Some("it is longer than 63 characters")
    } else if !bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        Some("only `a-z`, `0-9` and `-` may stand in it")
    } else if bytes.starts_with(b"-") || bytes.ends_with(b"-") {
        Some("it begins or ends with a hyphen")
    } else if bytes.get(2..4) == Some(b"--") {
        Some("hyphens at the third and fourth place are kept for encoded names")
    } else if bytes.iter().all(u8::is_ascii_digit) {
        Some("it consists of digits only")
    } else if text.parse::<TenantId>().is_ok() {
        Some("it reads as a tenant id")
    } else {
        None
    }
}

impl FromStr for Subdomain {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let name = Self::parse_existing(text)?;
        if Self::RESERVED.binary_search(&text).is_ok() {
            return Err(InvalidName::Subdomain {
                text: excerpt(text),
                reason: "it is a reserved name",
            });
        }
        Ok(name)
    }
}

impl fmt::Display for Subdomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reserved_names_are_sorted_and_would_otherwise_be_fine() {
        assert!(Subdomain::RESERVED.is_sorted());
        for name in Subdomain::RESERVED {
            assert!(Subdomain::parse_existing(name).is_ok(), "{name}");
            assert!(name.parse::<Subdomain>().is_err(), "{name}");
        }
    }

    #[test]
    fn labels_at_the_edges() {
        for good in ["a", "a1", "1a", "acme", "acme-corp", &"a".repeat(63)] {
            assert!(good.parse::<Subdomain>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "-a",
            "a-",
            "Acme",
            "a_b",
            "a.b",
            "ä",
            "a b",
            "a\0",
            "123",
            "xn--bcher-kva",
            "www",
            "6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90",
            &long,
        ] {
            assert!(bad.parse::<Subdomain>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_endless_name_is_cut_in_the_message() {
        let message = "x".repeat(10_000).parse::<Subdomain>().unwrap_err().to_string();
        assert!(message.len() < 200, "{message}");
    }

    proptest! {
        #[test]
        fn what_parses_is_a_dns_label(text in "\\PC{0,70}|[a-z0-9-]{0,70}") {
            if let Ok(name) = text.parse::<Subdomain>() {
                prop_assert!((1..=63).contains(&text.len()));
                prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
