//! What can be wrong with the audit log, in words.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

/// What sort of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// An entry is not as it was sealed, or its seal was changed.
    EntryChanged,
    /// A sealed entry is gone.
    EntryDeleted,
    /// Two entries stand in each other's place.
    EntriesExchanged,
    /// Seals are gone.
    SealsMissing,
    /// A seal stands where another one stands already.
    SealInserted,
    /// The log ends before a head that was anchored.
    LogTruncated,
    /// The seal that was anchored is another one now.
    LogRewritten,
    /// An entry has no seal and waits for none.
    SealRemoved,
    /// An entry is gone before it was sealed.
    UnsealedDeleted,
    /// Entries wait for their seals for more than a minute.
    NotSealed,
    /// The file of anchored heads is broken.
    AnchorDamaged,
    /// The file of anchored heads lacks what the database knows of.
    AnchorIncomplete,
    /// The file of anchored heads can't be read.
    AnchorUnreadable,
    /// The erasure ledger is broken, lacks what the database knows of, or can't be read.
    LedgerBroken,
}

impl fmt::Display for FindingKind {
    /// As in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What sort of thing.
    pub kind: FindingKind,
    /// The place in the chain that it concerns.
    pub position: Option<i64>,
    /// The entry that it concerns.
    pub entry_id: Option<i64>,
    /// What was found, for people.
    pub message: String,
}

impl Finding {
    pub(super) fn new(kind: FindingKind, message: impl Into<String>) -> Self {
        Self { kind, position: None, entry_id: None, message: message.into() }
    }

    pub(super) fn at(self, position: i64) -> Self {
        Self { position: Some(position), ..self }
    }

    pub(super) fn entry(self, entry_id: i64) -> Self {
        Self { entry_id: Some(entry_id), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.message)
    }
}

/// The newest seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its place.
    pub position: i64,
    /// Its hash, in hex.
    pub hash: String,
    /// When it was made; absent for a time beyond any calendar.
    pub sealed_at: Option<Timestamp>,
}

/// The first findings, and how many there are: a log that was rewritten may have a million.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) shown: Vec<Finding>,
    pub(super) count: u64,
}

impl Findings {
    /// As many as somebody reads.
    pub(super) const MAX: usize = 20;

    pub(super) fn take(&mut self, more: Self) {
        let unshown = more.count - more.shown.len() as u64;
        more.shown.into_iter().for_each(|finding| self.add(finding));
        self.count += unshown;
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.count += 1;
        if self.shown.len() < Self::MAX {
            self.shown.push(finding);
        }
    }
}
