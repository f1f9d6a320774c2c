//! `postmaster.pid`: what a PostgreSQL server says of itself in its own directory.
//!
//! Owns reading it, and removing a dead server's. Refuses to believe it: a process is a postmaster
//! of this directory only if the directory stands on its command line.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::info;

use crate::error::Result;
use crate::files;
use crate::pid_file::PidFile;
use crate::process::ProcessId;

/// The eighth line, once connections are taken. Looking here, as `pg_ctl` does, spares the log a
/// complaint for each time that we ask too early.
const READY: &str = "ready";
const STATE_LINE: usize = 7;

/// The postmaster that runs in this directory.
pub(crate) fn find_live(directory: &Path) -> Result<Option<PidFile>> {
    let Some(text) = files::read_if_present(&path(directory))? else { return Ok(None) };
    Ok(parse(&text).filter(|found| found.process.was_started_with(directory)))
}

/// Whether the server in this directory says that it takes connections.
pub(crate) fn says_ready(directory: &Path) -> Result<bool> {
    let text = files::read_if_present(&path(directory))?.unwrap_or_default();
    Ok(text.lines().nth(STATE_LINE).is_some_and(|state| state.trim() == READY))
}

/// Removes a dead postmaster's file. PostgreSQL does so itself, unless the number belongs to
/// another process of the same user by now; then it would refuse to start for good. If we err,
/// PostgreSQL's second lock, the shared memory, still keeps two servers out of one directory.
pub(crate) fn remove_stale(directory: &Path) -> Result<()> {
    let path = path(directory);
    if find_live(directory)?.is_none() && fs::symlink_metadata(&path).is_ok() {
        info!("removed the `postmaster.pid` of a server that is gone");
        files::remove_file(&path)?;
    }
    Ok(())
}

fn path(directory: &Path) -> PathBuf {
    directory.join("postmaster.pid")
}

/// Its first lines: pid, directory, start in seconds, port.
fn parse(text: &str) -> Option<PidFile> {
    let mut lines = text.lines();
    let process = ProcessId::of(lines.next()?.trim().parse().ok()?)?;
    let since_epoch_s = lines.nth(1)?.trim().parse().ok()?;
    let port = lines.next()?.trim().parse().ok()?;
    Some(PidFile::new(process, port, since_epoch_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(contents: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), contents).unwrap();
        dir
    }

    #[test]
    fn another_process_with_the_number_is_no_postmaster() {
        let me = std::process::id();
        let dir = directory_with(&format!("{me}\n/d\n1700000000\n5433\n"));
        assert_eq!(find_live(dir.path()).unwrap(), None);
        remove_stale(dir.path()).unwrap();
        assert!(!path(dir.path()).exists());
    }

    #[test]
    fn only_the_word_ready_is_ready() {
        let with_state = |state: &str| {
            directory_with(&format!("1\n/d\n1\n5433\n/s\n127.0.0.1\n 1 2\n{state}\n"))
        };
        assert!(says_ready(with_state("ready   ").path()).unwrap());
        for state in ["starting", "standby ", ""] {
            assert!(!says_ready(with_state(state).path()).unwrap(), "{state}");
        }
        assert!(!says_ready(tempfile::tempdir().unwrap().path()).unwrap());
    }
}
