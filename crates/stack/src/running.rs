//! A server that this process started: from spawn to ready to stopped.
//!
//! Owns the child process, its pid file and its share of the log. Refuses to be forgotten: dropped
//! while it runs, it tells the server to shut down.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::error::{Error, NO_SPACE, Result};
use crate::launch;
use crate::layout::Layout;
use crate::log::RunLog;
use crate::pid_file::PidFile;
use crate::process::{POLL, ProcessId, StopStep, send};
use crate::server::{Server, ServerExit};

/// Fast shutdown; then immediate, which costs a crash recovery; then the end.
const STOP_POSTGRES: [StopStep; 3] = [
    StopStep::new(Signal::INT, 30),
    StopStep::new(Signal::QUIT, 10),
    StopStep::new(Signal::KILL, 10),
];

/// From 1.23 on the first SIGTERM waits for the clients to leave, and the second one doesn't.
const STOP_POOLER: [StopStep; 4] = [
    StopStep::new(Signal::TERM, 2),
    StopStep::new(Signal::TERM, 2),
    StopStep::new(Signal::QUIT, 2),
    StopStep::new(Signal::KILL, 10),
];

/// A server on its way answers no, and quickly.
const QUESTION_PATIENCE: Duration = Duration::from_secs(5);

/// How a server of this kind is stopped, from polite to not.
pub(crate) fn stop_steps(server: Server) -> &'static [StopStep] {
    match server {
        Server::Primary | Server::Replica(_) => &STOP_POSTGRES,
        Server::Pooler => &STOP_POOLER,
    }
}

/// A server that is our child.
#[derive(Debug)]
pub(crate) struct RunningServer {
    server: Server,
    child: Child,
    log: RunLog,
    layout: Layout,
    started: Instant,
}

impl RunningServer {
    /// Starts the server. It has no point where it waits, so a caller that is cancelled has the
    /// server in its hands or has not started it.
    pub(crate) fn spawn(
        layout: &Layout,
        server: Server,
        program: &Path,
        arguments: impl IntoIterator<Item = OsString>,
        port: u16,
    ) -> Result<Self> {
        let name = server.name();
        let (mut command, log) = launch::command(layout, program, &layout.server(server), name)?;
        let started = Instant::now();
        let child =
            command.args(arguments).spawn().map_err(Error::io("run the program", program))?;
        // From here on, an early return drops it and with that shuts the server down.
        let running = Self { server, child, log, layout: layout.clone(), started };
        if let Some(process) = running.pid().and_then(ProcessId::of) {
            PidFile::now(process, port).write(layout, name)?;
        }
        Ok(running)
    }

    /// Its process, until its end was seen.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn log(&self) -> &RunLog {
        &self.log
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks until the answer is yes, the server ends, or the deadline passes.
    pub(crate) async fn wait_until_ready(
        &mut self,
        patience: Duration,
        mut is_ready: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.ask(is_ready()).await? {
                return Ok(());
            }
            sleep(POLL).await;
        }
        Err(self.start_timeout(patience))
    }

    /// One question, to which the end of the server is an answer, too: a stranger on the port may take the
    /// question and never answer it.
    pub(crate) async fn ask(
        &mut self,
        question: impl Future<Output = Result<bool>>,
    ) -> Result<bool> {
        let answer = tokio::select! {
            biased;
            status = self.child.wait() => return Err(self.start_failed(status)),
            answer = timeout(QUESTION_PATIENCE, question) => answer,
        };
        answer.unwrap_or(Ok(false))
    }

    pub(crate) fn start_timeout(&self, patience: Duration) -> Error {
        Error::StartTimeout {
            server: self.server,
            waited_s: patience.as_secs(),
            log_tail: self.log.tail(),
            log_path: self.log.path().to_owned(),
        }
    }

    /// Says that the server is ready, with how long that took.
    pub(crate) fn announce(&self, port: u16) {
        info!(
            server = %self.server,
            pid = self.pid(),
            port,
            duration_ms = elapsed_ms(self.started),
            "started the {}", self.server
        );
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().ok_or(Error::NotRunning { server: self.server })?;
        send(pid, signal).map_err(Error::io("signal", &self.layout.pid_file(self.server.name())))
    }

    /// Stops it, as politely as it lets us. Dropped half-way, it can be called again.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.stop_with(stop_steps(self.server)).await
    }

    /// Kills it, as a crash would.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.stop_with(&[StopStep::new(Signal::KILL, 10)]).await
    }

    async fn stop_with(&mut self, steps: &[StopStep]) -> Result<()> {
        let server = self.server;
        let Some(pid) = self.pid() else {
            return self.forget();
        };
        let begun = Instant::now();
        for (index, step) in steps.iter().enumerate() {
            if index > 0 {
                warn!(%server, pid, signal = ?step.signal, "the {server} is slow to stop");
            }
            // It fails only for a process that has just ended; the wait will tell.
            let _ = send(pid, step.signal);
            if timeout(step.patience, self.child.wait()).await.is_ok() {
                info!(%server, pid, duration_ms = elapsed_ms(begun), "stopped the {server}");
                return self.forget();
            }
        }
        Err(Error::StillRunning { server, pid })
    }

    /// Waits until it ends on its own. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> ServerExit {
        let how = in_words(self.child.wait().await);
        // The exit is what the caller must hear of; a pid file left behind is checked anyway.
        let _ = self.forget();
        ServerExit {
            server: self.server,
            how,
            log_tail: self.log.tail(),
            log_path: self.log.path().to_owned(),
        }
    }

    fn forget(&self) -> Result<()> {
        PidFile::remove(&self.layout, self.server.name())
    }

    fn start_failed(&self, status: io::Result<ExitStatus>) -> Error {
        let log_tail = self.log.tail();
        // PostgreSQL's hint for a block of which only a part found room.
        const FULL: [&str; 2] = ["No space left on device", "Check free disk space"];
        let reason = if FULL.iter().any(|words| log_tail.contains(words)) {
            NO_SPACE.to_owned()
        } else {
            in_words(status)
        };
        let log_path = self.log.path().to_owned();
        Error::StartFailed { server: self.server, reason, log_tail, log_path }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        // Not waited for: the next one who opens the directory finds the pid file and waits.
        if let Some(pid) = self.pid()
            && let Some(step) = stop_steps(self.server).first()
        {
            let _ = send(pid, step.signal);
        }
    }
}

fn in_words(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
