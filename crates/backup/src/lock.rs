//! One at a time decides about backups on a machine.
//!
//! Owns `schedule.lock`; the operating system frees it when its holder dies. pgBackRest has a lock of its
//! own, but two schedulers could ask it one after the other, and both make what only one should.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};

use tenantry_stack::ServerUser;

use crate::conf::Layout;
use crate::error::{Error, Result};

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct ScheduleLock {
    _file: File,
}

impl ScheduleLock {
    /// Takes it, or says that somebody has it.
    pub(crate) fn acquire(layout: &Layout, owner: &ServerUser) -> Result<Self> {
        let path = layout.schedule_lock();
        // Not through a link: the directory belongs to the server's user, and we may be root.
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(no_follow)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        if owner.is_other {
            fchown(&file, Some(owner.uid), Some(owner.gid))
                .map_err(Error::io("hand over", &path))?;
        }
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }
}
