//! The names of a tenant's further schemas, which no lane ever reaches.

use std::fmt;
use std::str::FromStr;

use super::{InvalidName, SchemaName, TenantId, excerpt};

/// A schema beside the tenant's own. Its name begins with the tenant's and two underscores, so that a purge
/// finds it; its [`Display`](fmt::Display) form is safe to stand in SQL unquoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyName {
    /// An earlier state that is being loaded.
    Restoring(TenantId),
    /// A former state that is kept, by its number.
    Kept(TenantId, u64),
}

impl CopyName {
    /// As a regular expression of PostgreSQL's.
    pub(crate) const PATTERN: &str = "^tenant_[0-9a-f]{32}__(restoring|kept_[1-9][0-9]{0,15})$";

    /// A kept one, by the number of its row, which PostgreSQL counts from 1.
    pub(crate) fn kept(tenant: TenantId, number: i64) -> Self {
        Self::Kept(tenant, number.unsigned_abs())
    }

    /// Whose it is.
    pub(crate) fn tenant(self) -> TenantId {
        match self {
            Self::Restoring(tenant) | Self::Kept(tenant, _) => tenant,
        }
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.tenant().schema();
        match self {
            Self::Restoring(_) => write!(f, "{schema}__restoring"),
            Self::Kept(_, number) => write!(f, "{schema}__kept_{number}"),
        }
    }
}

impl FromStr for CopyName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let odd = || InvalidName::SchemaName(excerpt(text));
        let (schema, purpose) = text.split_once("__").ok_or_else(odd)?;
        let tenant = schema.parse::<SchemaName>()?.tenant();
        let number = purpose.strip_prefix("kept_").and_then(|digits| digits.parse().ok());
        let copy = match number {
            Some(number) => Self::Kept(tenant, number),
            None => Self::Restoring(tenant),
        };
        // One spelling only.
        if copy.to_string() == text { Ok(copy) } else { Err(odd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling_and_fits() {
        let tenant = TenantId::random();
        for copy in [CopyName::Restoring(tenant), CopyName::Kept(tenant, 9_999_999_999_999_999)] {
            let name = copy.to_string();
            assert_eq!(name.parse::<CopyName>().unwrap(), copy);
            assert!(name.len() <= 63, "{name}");
        }
        let schema = tenant.schema();
        for odd in ["__purging", "__kept_", "__kept_01", "__kept_1; DROP", "__restoring2", ""] {
            assert!(format!("{schema}{odd}").parse::<CopyName>().is_err(), "{odd}");
        }
    }
}
