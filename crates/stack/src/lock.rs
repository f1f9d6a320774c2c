//! The lock on a data directory: one process runs its servers at a time.
//!
//! Owns `up.lock`. The operating system frees the lock when its holder dies, however that happens;
//! the file stays, since removing a lock file lets two processes hold "the" lock. Refuses to wait.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{Error, Result};
use crate::files;
use crate::layout::Layout;
use crate::process::ProcessId;

/// Holds the lock until dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    pub(crate) fn acquire(layout: &Layout) -> Result<Self> {
        let path = layout.lock();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // A holder that has not written its name yet is nobody, not an error.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| live_pid(&text));
                return Err(Error::Locked { data_dir: layout.root().to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let name = serde_json::to_string(&ProcessId::current()).unwrap_or_default();
        file.set_len(0)
            .and_then(|()| file.write_all(name.as_bytes()))
            .map_err(Error::io("write", &path))?;
        Ok(Self { file })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Whoever reads a stale name checks it anyway.
        let _ = self.file.set_len(0);
    }
}

/// The live process that says it holds the lock. Looks only: taking the lock to see whether it is
/// free would make a start at the same moment fail.
pub(crate) fn owner_pid(layout: &Layout) -> Result<Option<u32>> {
    Ok(files::read_if_present(&layout.lock())?.and_then(|text| live_pid(&text)))
}

fn live_pid(text: &str) -> Option<u32> {
    let holder: ProcessId = serde_json::from_str(text).ok()?;
    holder.is_alive().then(|| holder.pid())
}
