//! How much room a disk has.

use std::path::Path;

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

    /// In percent.
    pub(crate) fn free_share(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        let share = self.free_bytes as f64 * 100.0 / self.total_bytes.max(1) as f64;
        share
    }
}
