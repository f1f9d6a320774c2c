//! Which process is meant: a number, and when it started, so that a recycled number is not
//! mistaken for the old process.
//!
//! Owns identity, liveness and signals. Refuses to signal by name, or by a number alone.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

/// How often a state that nobody announces is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// One process, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: u32,
    /// When it started, in the operating system's own terms; only ever compared.
    started: String,
}

/// What to send, and how long to wait for the process to end before the next step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StopStep {
    pub(crate) signal: Signal,
    pub(crate) patience: Duration,
}

impl StopStep {
    pub(crate) const fn new(signal: Signal, patience_s: u64) -> Self {
        Self { signal, patience: Duration::from_secs(patience_s) }
    }
}

impl ProcessId {
    /// The process that has this number now; `None` if there is none, or only a zombie.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        os::start_time(pid).map(|started| Self { pid, started })
    }

    /// This process.
    pub(crate) fn current() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or(Self { pid, started: String::new() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Whether `argument` stands on its command line.
    pub(crate) fn was_started_with(&self, argument: &Path) -> bool {
        os::command_line_has(self.pid, argument) && self.is_alive()
    }

    /// Goes through the steps until the process has ended; says whether it has. Between the look
    /// and the signal lie microseconds, too few for the number to be given away.
    pub(crate) async fn stop(&self, steps: &[StopStep]) -> bool {
        for step in steps {
            if !self.is_alive() {
                return true;
            }
            // An error means that it ended just now, or is not ours to signal: the wait will tell.
            let _ = send(self.pid, step.signal);
            if self.wait_for_end(step.patience).await {
                return true;
            }
        }
        false
    }

    /// Kills the process and the group that it leads, and waits until all of them have ended: its children may
    /// hold locks that they have from it.
    pub(crate) async fn kill_group(&self, patience: Duration) -> bool {
        if !self.is_alive() {
            return true;
        }
        let _ = send_to_group(self.pid, Signal::KILL);
        let deadline = Instant::now() + patience;
        while raw(self.pid).is_ok_and(|group| test_kill_process_group(group).is_ok()) {
            if Instant::now() >= deadline {
                return !self.is_alive();
            }
            sleep(POLL).await;
        }
        true
    }

    async fn wait_for_end(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }
}

/// Signals a process. Only for one that was just seen, or a child that was not waited for yet,
/// whose number can't have been given away.
pub(crate) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    Ok(kill_process(raw(pid)?, signal)?)
}

/// Signals the process group that `pid` leads, under the same condition.
pub(crate) fn send_to_group(pid: u32, signal: Signal) -> io::Result<()> {
    Ok(kill_process_group(raw(pid)?, signal)?)
}

fn raw(pid: u32) -> io::Result<Pid> {
    // 1 is never a server of ours, and as a group it would mean everybody.
    i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 1)
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(target_os = "linux")]
mod os {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    /// Ticks since boot, and which boot: machines that boot alike reuse both number and tick.
    pub(super) fn start_time(pid: u32) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may contain any of both.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X") {
            return None;
        }
        // The state is field 3 and the start time field 22.
        let ticks = fields.nth(18)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Some(format!("{}:{ticks}", boot.trim()))
    }

    pub(super) fn command_line_has(pid: u32, argument: &Path) -> bool {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|part| part == argument.as_os_str().as_bytes())
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    use std::path::Path;
    use std::process::Command;

    pub(super) fn start_time(pid: u32) -> Option<String> {
        let line = ps(pid, &["-o", "stat=", "-o", "lstart="])?;
        let (state, started) = line.trim().split_once(' ')?;
        (!state.starts_with('Z')).then(|| started.trim().to_owned())
    }

    pub(super) fn command_line_has(pid: u32, argument: &Path) -> bool {
        ps(pid, &["-ww", "-o", "args="])
            .is_some_and(|line| line.contains(&*argument.to_string_lossy()))
    }

    fn ps(pid: u32, format: &[&str]) -> Option<String> {
        let output =
            Command::new("ps").args(format).arg("-p").arg(pid.to_string()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_number_alone_is_not_it() {
        let me = ProcessId::current();
        assert!(me.is_alive());
        assert!(me.was_started_with(Path::new(&std::env::args().next().unwrap())));
        let earlier = ProcessId { pid: me.pid, started: "another".to_owned() };
        assert!(!earlier.is_alive());
    }

    #[tokio::test]
    async fn a_recycled_number_is_not_signalled() {
        let mut child = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().unwrap();
        let earlier = ProcessId { pid, started: "another".to_owned() };
        assert!(earlier.stop(&[StopStep::new(Signal::KILL, 1)]).await);
        assert!(earlier.kill_group(POLL).await);
        assert_eq!(child.try_wait().unwrap(), None);

        assert!(ProcessId::of(pid).unwrap().stop(&[StopStep::new(Signal::TERM, 5)]).await);
        child.wait().await.unwrap();
        assert_eq!(ProcessId::of(pid), None);
    }

    #[test]
    fn process_1_and_all_processes_are_never_signalled() {
        for pid in [0, 1, u32::MAX] {
            assert!(send(pid, Signal::HUP).is_err());
            assert!(send_to_group(pid, Signal::HUP).is_err());
        }
    }
}
