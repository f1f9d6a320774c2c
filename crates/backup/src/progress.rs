//! How far a backup is, as its log tells.

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// Files are copied; this share of the bytes is through, from 0 to 100.
    Copying {
        /// In percent.
        percent: f64,
    },
    /// All is copied; the server's log is waited for.
    WaitingForLog,
    /// What is older than the retention is removed.
    Expiring,
}

impl Progress {
    /// What a line of pgBackRest's log tells, if anything.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        if line.contains("backup stop and wait for all WAL") {
            return Some(Self::WaitingForLog);
        }
        if line.contains("expire command begin") {
            return Some(Self::Expiring);
        }
        // `DETAIL: backup file /path (bundle 1/0, 88B, 0.00%) checksum …`; the path may hold anything.
        let is_file = line.contains("backup file ") || line.contains("restore file ");
        let end = is_file.then(|| line.rfind("%)")).flatten()?;
        let begin = line[..end].rfind(", ")? + 2;
        let percent: f64 = line[begin..end].parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(Self::Copying { percent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_from_the_log() {
        let line = "DETAIL: backup file /a, 9%)/x (bundle 1/112, 8KB, 12.50%) checksum 06";
        assert_eq!(Progress::of_line(line), Some(Progress::Copying { percent: 12.5 }));
        let line = "P01 DETAIL: backup file h:/a/1 (1GB, 100.00%) checksum 06";
        assert_eq!(Progress::of_line(line), Some(Progress::Copying { percent: 100.0 }));
        assert_eq!(Progress::of_line("INFO: backup start archive = 0001"), None);
        assert_eq!(Progress::of_line("DETAIL: backup file (x, 1e9%)"), None);
        let line =
            "INFO: execute non-exclusive backup stop and wait for all WAL segments to archive";
        assert_eq!(Progress::of_line(line), Some(Progress::WaitingForLog));
    }
}
