//! How much room a disk has.

use std::path::Path;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// Beside what is copied: what is written meanwhile, such as the log that a recovery needs at once.
const MARGIN_BYTES: u64 = 128 * 1024 * 1024;

/// Less is left by whoever found no room for a file.
const FULL_BYTES: u64 = 1024 * 1024;

/// A disk's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

impl Disk {
    /// The disk that a path is on; none if it can't be asked.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let disk = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(Self { free_bytes: bytes(disk.f_bavail), total_bytes: bytes(disk.f_blocks) })
    }

    /// Refuses to put so much on the disk of a path. One that can't be asked is believed to have room.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub(crate) fn require(path: &Path, bytes: u64) -> Result<()> {
        let needed_bytes = bytes + MARGIN_BYTES;
        match Self::of(path) {
            Some(Self { free_bytes, .. }) if free_bytes < needed_bytes => {
                Err(Error::NoRoom { path: path.to_owned(), free_bytes, needed_bytes })
            }
            _ => Ok(()),
        }
    }

    /// As [`require`](Self::require), for a copy of a server that takes so much, and grows as it recovers.
    pub(crate) fn require_for_copy(path: &Path, size_bytes: u64) -> Result<()> {
        Self::require(path, size_bytes + size_bytes / 10)
    }

    /// In percent.
    pub(crate) fn free_share(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        let share = self.free_bytes as f64 * 100.0 / self.total_bytes.max(1) as f64;
        share
    }
}

impl Engine {
    /// Where the repository's disk is full, that is why a backup failed, whatever pgBackRest says: it waits for the log
    /// in vain, or misses the file that it could not write.
    pub(crate) fn or_full(&self, error: Error) -> Error {
        let disk = self.repository_dir().and_then(|dir| Disk::of(&dir));
        match error {
            Error::ArchiveTimeout { message } | Error::Engine { message, .. }
                if disk.is_some_and(|disk| disk.free_bytes < FULL_BYTES) =>
            {
                Error::RepositoryFull { message }
            }
            error => error,
        }
    }
}
