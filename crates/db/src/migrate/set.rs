//! A set of migrations: what it holds, and what comes before and after a version.

use std::fmt;

use sha2::{Digest, Sha256};

use super::{MigrationError, Script};

/// One of the two sets of migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetKind {
    /// The system-wide tables.
    Public,
    /// The tables that every tenant has.
    Tenant,
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Tenant => "tenant",
        })
    }
}

/// One version of a schema.
#[derive(Debug, Clone)]
pub struct Migration {
    /// The number that the file's name begins with.
    pub version: i64,
    /// The rest of the file's name.
    pub name: String,
    /// The statements that lead to this version.
    pub up: Script,
    /// The statements that lead back, if there is a way back.
    pub down: Option<Script>,
    /// SHA-256 of the up file's bytes, line ends unified.
    pub checksum: [u8; 32],
    /// SHA-256 of the up file's tokens, without comments and white space.
    pub token_checksum: [u8; 32],
}

impl Migration {
    /// The way back.
    ///
    /// # Errors
    /// [`MigrationError::Irreversible`] if there is none.
    pub fn require_down(&self) -> Result<&Script, MigrationError> {
        let file = || MigrationError::Irreversible { file: self.up.file.clone() };
        self.down.as_ref().ok_or_else(file)
    }
}

/// A file that is applied again whenever it changes: views and functions.
#[derive(Debug, Clone)]
pub struct Repeatable {
    /// The file's name, without its ending.
    pub name: String,
    /// Its statements, which replace what an earlier edition made.
    pub script: Script,
    /// SHA-256 of the file's tokens, without comments and white space.
    pub token_checksum: [u8; 32],
}

/// The migrations of one set, in ascending order of version, and its repeatable files by name.
#[derive(Debug, Clone)]
pub struct MigrationSet {
    pub(super) kind: SetKind,
    pub(super) migrations: Vec<Migration>,
    pub(super) repeatables: Vec<Repeatable>,
}

impl MigrationSet {
    /// Which set it is.
    pub fn kind(&self) -> SetKind {
        self.kind
    }

    /// The migrations, oldest first.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// The migration of a version.
    pub fn find(&self, version: i64) -> Option<&Migration> {
        let at = self.migrations.binary_search_by_key(&version, |m| m.version).ok()?;
        self.migrations.get(at)
    }

    /// The migrations from one version down to another, which stays: newest first.
    pub fn down_from(&self, from: i64, to: i64) -> impl Iterator<Item = &Migration> {
        self.migrations.iter().rev().filter(move |m| m.version <= from && m.version > to)
    }

    /// The version before another, 0 for none.
    pub fn before(&self, version: i64) -> i64 {
        self.migrations.iter().rev().find(|m| m.version < version).map_or(0, |m| m.version)
    }

    /// The newest version that is not above another, 0 for none.
    pub fn at_or_before(&self, version: i64) -> i64 {
        self.before(version.saturating_add(1))
    }

    /// What leads to a version, without the repeatable files: they come after all others.
    pub(crate) fn up_to(&self, version: i64) -> Self {
        let migrations = self.migrations.iter().filter(|m| m.version <= version).cloned().collect();
        Self { kind: self.kind, migrations, repeatables: Vec::new() }
    }

    /// What leads on from a version, with the repeatable files.
    pub(crate) fn after(&self, version: i64) -> Self {
        let migrations = self.migrations.iter().filter(|m| m.version > version).cloned().collect();
        Self { kind: self.kind, migrations, repeatables: self.repeatables.clone() }
    }

    /// The newest version, 0 for an empty set.
    pub fn head(&self) -> i64 {
        self.migrations.last().map_or(0, |m| m.version)
    }

    /// The repeatable files, in the order in which they are applied: that of their names.
    pub fn repeatables(&self) -> &[Repeatable] {
        &self.repeatables
    }

    /// What a schema that has all repeatable files in their present form is marked with: empty for
    /// none.
    pub fn repeatable_digest(&self) -> Vec<u8> {
        if self.repeatables.is_empty() {
            return Vec::new();
        }
        let mut hash = Sha256::new();
        for file in &self.repeatables {
            hash.update(&file.name);
            hash.update([0]);
            hash.update(file.token_checksum);
        }
        hash.finalize().to_vec()
    }
}
