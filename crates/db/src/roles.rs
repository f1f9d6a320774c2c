//! The names of an installation's roles, all of one configurable prefix.
//!
//! Roles belong to the cluster, not to a database: the prefix lets two installations, or a hundred
//! tests, share one server.

use std::fmt;
use std::str::FromStr;

use crate::ids::{InvalidName, LaneId, excerpt};

/// What the names of all roles of an installation begin with (`tenantry` unless configured).
///
/// Safe to stand in SQL unquoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolePrefix(String);

impl RolePrefix {
    const MAX_BYTES: usize = 24;

    /// Owns the database, every schema and table. NOLOGIN.
    pub fn owner(&self) -> String {
        format!("{}_owner", self.0)
    }

    /// The control plane's login.
    pub fn admin(&self) -> String {
        format!("{}_admin", self.0)
    }

    /// Owner of the functions that make and drop tenant roles. NOLOGIN, CREATEROLE.
    pub fn rolemaker(&self) -> String {
        format!("{}_rolemaker", self.0)
    }

    /// The login for the directory, plans and status.
    pub fn reader(&self) -> String {
        format!("{}_reader", self.0)
    }

    /// The group that every tenant role is in; it may read the shared reference tables.
    pub fn tenant_group(&self) -> String {
        format!("{}_tenant", self.0)
    }

    /// The login of a lane.
    pub fn lane(&self, lane: LaneId) -> String {
        format!("{}_lane_{lane}", self.0)
    }

    /// The login for PgBouncer's console. It exists in PgBouncer only.
    pub fn stats(&self) -> String {
        format!("{}_stats", self.0)
    }

    /// The schema that holds the rolemaker's functions.
    pub fn control_schema(&self) -> &str {
        &self.0
    }
}

impl FromStr for RolePrefix {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        let all_allowed = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        // `pg_` is PostgreSQL's own, `tenant` would let a prefix look like a tenant's role, and a
        // schema of the prefix's name must not be one that is there already.
        let taken = text.starts_with("pg_")
            || text.starts_with("tenant_")
            || matches!(text, "public" | "tenant" | "information_schema");
        if starts_well && all_allowed && !taken && text.len() <= Self::MAX_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::RolePrefix(excerpt(text)))
        }
    }
}

impl fmt::Display for RolePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_can_neither_inject_nor_pose_as_another_role() {
        for good in ["tenantry", "t", "eu_prod_2"] {
            assert!(good.parse::<RolePrefix>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "Tenantry",
            "1st",
            "a-b",
            "a b",
            "a;b",
            "a\"b",
            "pg_x",
            "public",
            "tenant_0",
            &"a".repeat(25),
        ] {
            assert!(bad.parse::<RolePrefix>().is_err(), "{bad}");
        }
    }
}
