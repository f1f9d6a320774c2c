//! A tenant's id and the name of its schema and role, each derived from the other.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::{InvalidName, Subdomain, excerpt};

/// A tenant's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl TenantId {
    /// A new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as a UUID, for statement parameters.
    pub fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// The tenant's schema, and its role, which bears the same name.
    pub fn schema(self) -> SchemaName {
        SchemaName(self)
    }
}

impl From<Uuid> for TenantId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl FromStr for TenantId {
    type Err = InvalidName;

    /// Takes the hyphenated form only, so that an id has one spelling in logs and URLs.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => Ok(Self(id)),
            _ => Err(InvalidName::TenantId(excerpt(text))),
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The name of a tenant's schema and role: `tenant_` and the id as 32 hex digits.
///
/// Its [`Display`](fmt::Display) form is safe to stand in SQL unquoted: it is a lower-case
/// identifier by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaName(TenantId);

impl SchemaName {
    /// What every tenant schema's name begins with.
    pub const PREFIX: &str = "tenant_";

    /// The tenant whose schema this is.
    pub fn tenant(self) -> TenantId {
        self.0
    }
}

impl FromStr for SchemaName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let lower_hex = |digits: &&str| {
            digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        text.strip_prefix(Self::PREFIX)
            .filter(lower_hex)
            .and_then(|digits| Uuid::try_parse(digits).ok())
            .map(|id| Self(TenantId(id)))
            .ok_or_else(|| InvalidName::SchemaName(excerpt(text)))
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0.0.simple())
    }
}

/// How people name a tenant: by id or by subdomain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TenantRef {
    /// By id.
    Id(TenantId),
    /// By subdomain.
    Subdomain(Subdomain),
}

impl FromStr for TenantRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => Subdomain::parse_existing(text).map(Self::Subdomain),
        }
    }
}

impl fmt::Display for TenantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Subdomain(subdomain) => subdomain.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_and_its_schema_lead_to_each_other(bits: u128) {
            let id = TenantId::from(Uuid::from_u128(bits));
            let schema = id.schema().to_string();
            prop_assert_eq!(schema.parse::<SchemaName>().unwrap().tenant(), id);
            prop_assert_eq!(id.to_string().parse::<TenantId>().unwrap(), id);
            prop_assert!(schema.len() <= 63 && schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        }

        #[test]
        fn what_parses_as_a_schema_prints_as_itself(text in "\\PC{0,60}|tenant_[0-9a-fA-F]{30,34}") {
            if let Ok(schema) = text.parse::<SchemaName>() {
                prop_assert_eq!(schema.to_string(), text);
            }
        }

        #[test]
        fn what_parses_as_an_id_is_the_hyphenated_form(text in "\\PC{0,60}|[{]?[0-9a-fA-F]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}[}]?") {
            if let Ok(id) = text.parse::<TenantId>() {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
        }
    }

    #[test]
    fn other_spellings_of_a_uuid_are_refused() {
        for text in [
            "",
            "{6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90}",
            "6f1c0c529a3e4a558f0e0d5a3c2b1a90",
            "urn:uuid:6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90",
        ] {
            assert!(text.parse::<TenantId>().is_err(), "{text}");
        }
        assert!("tenant_6F1C0C529A3E4A558F0E0D5A3C2B1A90".parse::<SchemaName>().is_err());
        assert!("public".parse::<SchemaName>().is_err());
    }
}
