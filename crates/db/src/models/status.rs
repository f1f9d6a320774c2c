//! Where a tenant stands in its life.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Where a tenant stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Provisioned ahead of time, not yet anybody's. Appears in no list.
    Ready,
    /// In use.
    Active,
    /// Shut out until resumed.
    Suspended,
    /// Shut out, restorable until its retention ends.
    Deleted,
    /// Being removed for good.
    Purging,
    /// A tombstone.
    Purged,
}

impl Status {
    /// As the table stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
            Self::Purging => "purging",
            Self::Purged => "purged",
        }
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Ready, Self::Active, Self::Suspended, Self::Deleted, Self::Purging, Self::Purged]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a tenant's status"))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
