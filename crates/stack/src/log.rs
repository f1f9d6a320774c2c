//! A server's log file, and what it wrote there since it was last started.
//!
//! Owns appending, rotation and the excerpt that goes into error messages. Refuses to interpret
//! more of a log than the caller asks about.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A log larger than this is put aside when its server starts again.
const ROTATE_BYTES: u64 = 16 * 1024 * 1024;
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 16 * 1024;

/// The part of a log that one run of a server writes.
#[derive(Debug, Clone)]
pub(crate) struct RunLog {
    path: PathBuf,
    begins_at: u64,
}

impl RunLog {
    /// Opens the log for a new run: the file to write to, and the mark to read from later.
    pub(crate) fn begin(path: &Path) -> Result<(File, Self)> {
        if fs::metadata(path).is_ok_and(|found| found.len() > ROTATE_BYTES) {
            fs::rename(path, path.with_extension("log.1")).map_err(Error::io("rotate", path))?;
        }
        let open = || {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            let begins_at = file.metadata()?.len();
            Ok((file, Self { path: path.to_owned(), begins_at }))
        };
        open().map_err(Error::io("open", path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines of this run. Empty if there are none, or if they can't be read: the caller
    /// has something worse to report.
    pub(crate) fn tail(&self) -> String {
        let Ok(text) = self.read_end() else {
            return String::new();
        };
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn read_end(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        let from = self.begins_at.max(file.metadata()?.len().saturating_sub(TAIL_BYTES));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_tail_is_of_this_run_and_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, "an earlier run\n").unwrap();
        let (mut file, log) = RunLog::begin(&path).unwrap();
        assert_eq!(log.tail(), "");
        for line in 1..=20 {
            writeln!(file, "line {line}").unwrap();
        }
        assert!(log.tail().starts_with("line 6\n"));
        assert!(log.tail().ends_with("line 20"));
    }

    #[test]
    fn a_large_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        File::create(&path).unwrap().set_len(ROTATE_BYTES + 1).unwrap();
        RunLog::begin(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert!(dir.path().join("a.log.1").exists());
    }
}
