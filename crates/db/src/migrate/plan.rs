//! What is still to be applied to a schema: pure, from the files and the ledger.

use super::error::Schemas;
use super::{Migration, MigrationError, MigrationSet};

/// What the ledger says of a version, of one schema or of many that say the same.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The version.
    pub version: i64,
    /// The name that the file had.
    pub name: String,
    /// SHA-256 of the bytes of what was applied.
    pub checksum: Vec<u8>,
    /// SHA-256 of its tokens.
    pub token_checksum: Vec<u8>,
    /// Who has it.
    pub schemas: Schemas,
}

/// The migrations that the schemas lack, oldest first.
///
/// # Errors
/// Where files and ledger do not fit together: an applied file was changed (in more than comments
/// and white space) or is gone, or a new one was put before the schema's head.
pub fn pending<'a>(
    set: &'a MigrationSet,
    applied: &[Applied],
) -> Result<Vec<&'a Migration>, MigrationError> {
    require_unchanged(set, applied)?;
    let newest = applied.iter().max_by_key(|entry| entry.version);
    let is_applied = |m: &Migration| applied.iter().any(|entry| entry.version == m.version);
    let pending: Vec<_> = set.migrations().iter().filter(|m| !is_applied(m)).collect();
    match (pending.first(), newest) {
        (Some(first), Some(newest)) if first.version < newest.version => {
            Err(MigrationError::OutOfOrder {
                file: first.up.file.clone(),
                head: newest.version,
                schemas: newest.schemas.clone(),
            })
        }
        _ => Ok(pending),
    }
}

/// Compares what was applied with the files.
///
/// # Errors
/// An applied file was changed, or is gone.
pub(super) fn require_unchanged(
    set: &MigrationSet,
    applied: &[Applied],
) -> Result<(), MigrationError> {
    for entry in applied {
        match set.find(entry.version) {
            None => {
                return Err(MigrationError::FileMissing {
                    set: set.kind(),
                    version: entry.version,
                    name: entry.name.clone(),
                    schemas: entry.schemas.clone(),
                });
            }
            Some(file) if file.token_checksum.as_slice() != entry.token_checksum => {
                return Err(MigrationError::Changed {
                    file: file.up.file.clone(),
                    schemas: entry.schemas.clone(),
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Files that differ from what was applied in comments and white space only.
pub(super) fn touched<'a>(set: &'a MigrationSet, applied: &[Applied]) -> Vec<&'a Migration> {
    let differs = |m: &&Migration| {
        applied.iter().any(|entry| {
            entry.version == m.version
                && entry.checksum != m.checksum
                && entry.token_checksum == m.token_checksum
        })
    };
    set.migrations().iter().filter(differs).collect()
}
