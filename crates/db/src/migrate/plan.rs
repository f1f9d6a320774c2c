//! What is still to be applied to a schema: pure, from the files and the ledger.

use super::{Migration, MigrationError, MigrationSet};

/// A ledger entry.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The version.
    pub version: i64,
    /// The name that the file had.
    pub name: String,
    /// SHA-256 of the tokens of what was applied.
    pub token_checksum: Vec<u8>,
}

/// The migrations that the schema lacks, oldest first.
///
/// # Errors
/// Where files and ledger do not fit together: an applied file was changed (in more than comments
/// and white space) or is gone, or a new one was put before the schema's head.
pub fn pending<'a>(
    set: &'a MigrationSet,
    applied: &[Applied],
    schema: &str,
) -> Result<Vec<&'a Migration>, MigrationError> {
    let find = |version: i64| set.migrations().iter().find(|m| m.version == version);
    for entry in applied {
        match find(entry.version) {
            None => {
                return Err(MigrationError::FileMissing {
                    set: set.kind(),
                    version: entry.version,
                    name: entry.name.clone(),
                    schema: schema.to_owned(),
                });
            }
            Some(file) if file.token_checksum.as_slice() != entry.token_checksum => {
                return Err(MigrationError::Changed {
                    file: file.up.file.clone(),
                    schema: schema.to_owned(),
                });
            }
            Some(_) => {}
        }
    }
    let head = applied.iter().map(|entry| entry.version).max().unwrap_or(0);
    let is_applied = |m: &Migration| applied.iter().any(|entry| entry.version == m.version);
    let pending: Vec<_> = set.migrations().iter().filter(|m| !is_applied(m)).collect();
    match pending.first() {
        Some(first) if first.version < head => Err(MigrationError::OutOfOrder {
            file: first.up.file.clone(),
            head,
            schema: schema.to_owned(),
        }),
        _ => Ok(pending),
    }
}
