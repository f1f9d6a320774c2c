//! Programs that run once: `initdb` and `pg_basebackup`.
//!
//! Owns their life. Refuses to leave one behind: dropped before the end, a tool is killed with all
//! its children, and a note in `run/` lets the next start do the same after we were killed
//! ourselves. One note is enough, since the holder of the directory's lock runs one at a time.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;

use crate::error::{Error, Result};
use crate::launch;
use crate::layout::Layout;
use crate::pid_file::PidFile;
use crate::process::{ProcessId, send_to_group};

/// The pid file of whichever tool runs.
const NOTE: &str = "tool";
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Runs a tool to its end. Its output goes to the log that bears its name.
///
/// # Errors
/// [`Error::Tool`] with the end of that output if it fails.
pub(crate) async fn run(
    layout: &Layout,
    name: &'static str,
    program: &Path,
    arguments: Vec<OsString>,
    environment: &[(&str, &str)],
) -> Result<()> {
    let (mut command, log) = launch::command(layout, program, layout.root(), name)?;
    command.args(arguments).envs(environment.iter().copied());
    let mut tool = Tool(command.spawn().map_err(Error::io("run the program", program))?);
    if let Some(pid) = tool.0.id() {
        note(layout, pid)?;
    }
    let status = tool.0.wait().await.map_err(Error::io("wait for", program))?;
    PidFile::remove(layout, NOTE)?;
    if status.success() {
        return Ok(());
    }
    let log_path = log.path().to_owned();
    Err(Error::Tool { name, how: status.to_string(), log_tail: log.tail(), log_path })
}

/// Notes down a tool that runs, the leader of its group.
pub(crate) fn note(layout: &Layout, pid: u32) -> Result<()> {
    match ProcessId::of(pid) {
        Some(process) => PidFile::now(process, 0).write(layout, NOTE),
        None => Ok(()),
    }
}

/// Ends a tool that a cancelled or killed run has left, before anybody clears up its directory.
pub(crate) async fn stop_leftover(layout: &Layout) -> Result<()> {
    if let Some(note) = PidFile::read(layout, NOTE)? {
        note.process.kill_group(KILL_PATIENCE).await;
        PidFile::remove(layout, NOTE)?;
    }
    Ok(())
}

/// As [`stop_leftover`], without waiting for its end: for a drop.
pub(crate) fn kill_leftover(layout: &Layout) {
    let note = PidFile::read(layout, NOTE).ok().flatten();
    if let Some(note) = note.filter(|note| note.process.is_alive()) {
        let _ = send_to_group(note.process.pid(), Signal::KILL);
    }
}

struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        // There is a number only while nobody has waited for it, so it is still the tool's.
        if let Some(pid) = self.0.id() {
            let _ = send_to_group(pid, Signal::KILL);
        }
    }
}
