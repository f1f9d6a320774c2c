//! The note in `run/` that says which process a server or tool is, for whoever comes later.
//!
//! Owns the file's format. Refuses nothing: a file that can't be understood is as good as none,
//! since every process it names is checked before it is touched.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;
use crate::layout::Layout;
use crate::process::ProcessId;

/// A process that was started from this data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PidFile {
    pub(crate) process: ProcessId,
    /// 0 for a tool.
    pub(crate) port: u16,
    since_epoch_s: u64,
}

impl PidFile {
    pub(crate) fn new(process: ProcessId, port: u16, since_epoch_s: u64) -> Self {
        Self { process, port, since_epoch_s }
    }

    /// For a process that was started just now.
    pub(crate) fn now(process: ProcessId, port: u16) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(process, port, since.as_secs())
    }

    pub(crate) fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.since_epoch_s)
    }

    pub(crate) fn read(layout: &Layout, name: &str) -> Result<Option<Self>> {
        let text = files::read_if_present(&layout.pid_file(name))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    pub(crate) fn write(&self, layout: &Layout, name: &str) -> Result<()> {
        let text = serde_json::to_string(self).unwrap_or_default();
        files::write_private(&layout.pid_file(name), &text, None)
    }

    pub(crate) fn remove(layout: &Layout, name: &str) -> Result<()> {
        files::remove_file(&layout.pid_file(name))
    }
}
