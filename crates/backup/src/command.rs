//! Running pgBackRest: as whom, with which environment, and what became of it.
//!
//! Owns the child process. Refuses to hand our environment down: pgBackRest takes every variable that
//! begins with `PGBACKREST_` for an option, and libpq listens to others. Dropped before the end, the
//! command is told to end, which it does within moments and without leaving a lock.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tenantry_stack::ServerUser;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::error::{Error, Result};

/// `PATH` is for what pgBackRest itself runs, the other for private builds.
const INHERITED: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];
/// What is kept of a command's words for an error.
const KEPT_LINES: usize = 12;
/// A listing of a large repository; more is not believed.
const OUTPUT_LIMIT_BYTES: u64 = 512 * 1024 * 1024;

/// How the program is called.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) owner: ServerUser,
    pub(crate) directory: PathBuf,
    pub(crate) password_file: Option<PathBuf>,
}

impl Program {
    /// Runs a command and yields what it wrote to stdout. Each line on stderr goes to `said`.
    pub(crate) async fn run<A: AsRef<OsStr>>(
        &self,
        name: &'static str,
        arguments: impl IntoIterator<Item = A>,
        said: impl FnMut(&str),
    ) -> Result<String> {
        self.run_noted(name, arguments, said, |_| Ok(())).await
    }

    /// As [`run`](Self::run); the process, which leads its group, is told to `begun` first.
    pub(crate) async fn run_noted<A: AsRef<OsStr>>(
        &self,
        name: &'static str,
        arguments: impl IntoIterator<Item = A>,
        mut said: impl FnMut(&str),
        begun: impl FnOnce(u32) -> Result<()>,
    ) -> Result<String> {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(Error::io("run the program", &self.path))?;
        let mut running = Running(child);
        running.0.id().map_or(Ok(()), begun)?;
        let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
        let mut words = Words::default();
        let (output, heard, status) = tokio::join!(
            read_all(stdout),
            read_lines(stderr, |line| {
                said(line);
                words.hear(line);
            }),
            running.0.wait(),
        );
        let io = |action| Error::io(action, &self.path);
        let (output, status) = (output.map_err(io("read from"))?, status.map_err(io("wait for"))?);
        heard.map_err(io("read from"))?;
        if status.success() {
            return Ok(output);
        }
        Err(failure(name, status, words.of_error()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .env_clear()
            .envs(INHERITED.iter().filter_map(|it| Some((OsStr::new(it), std::env::var_os(it)?))))
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            // Ctrl-C in the terminal is for us; we tell the command.
            .process_group(0);
        if let Some(file) = &self.password_file {
            command.env("PGPASSFILE", file);
        }
        if self.owner.is_other {
            // The standard library also drops root's supplementary groups here.
            command.uid(self.owner.uid).gid(self.owner.gid);
        }
        command
    }
}

fn failure(name: &'static str, status: ExitStatus, message: String) -> Error {
    match status.code() {
        Some(code) => Error::of_exit(name, code, message),
        None => Error::Engine { command: name, how: status.to_string(), message },
    }
}

async fn read_all(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(OUTPUT_LIMIT_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn read_lines(
    stream: Option<impl AsyncRead + Unpin>,
    mut hear: impl FnMut(&str),
) -> std::io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A file name may hold anything, so the log need not be UTF-8.
        if lines.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        hear(String::from_utf8_lossy(&line).trim_end());
    }
}

/// What a command says of its failure: `ERROR: [050]: …` and the lines below, else its last lines.
#[derive(Default)]
struct Words {
    error: Vec<String>,
    last: Vec<String>,
}

impl Words {
    fn hear(&mut self, line: &str) {
        let text = line.trim();
        if let Some((_, error)) =
            text.split_once("ERROR: [").and_then(|(_, rest)| rest.split_once("]: "))
        {
            self.error = vec![error.to_owned()];
        } else if line.starts_with(' ') && !self.error.is_empty() && self.error.len() < KEPT_LINES {
            self.error.push(text.to_owned());
        }
        let is_said = text.contains("WARN:") || text.contains("ERROR:") || line.starts_with(' ');
        if is_said && self.last.len() < KEPT_LINES {
            self.last.push(text.to_owned());
        }
    }

    fn of_error(self) -> String {
        let lines = if self.error.is_empty() { self.last } else { self.error };
        lines.join("\n")
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // There is a number only while nobody has waited for it, so it is still the command's.
        let pid = self.0.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// Where packages put pgBackRest, after `PATH`.
const PLACES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/pgsql/bin"];

/// Finds the program.
pub(crate) fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::env::split_paths(&path).chain(PLACES.iter().map(|it| Path::new(it).to_owned()));
    let mut found = places.map(|place| place.join("pgbackrest")).filter(|it| it.is_absolute());
    found.find(|it| it.is_file()).ok_or(Error::MissingProgram)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lines: &[&str]) -> String {
        let mut words = Words::default();
        for line in lines {
            words.hear(line);
        }
        words.of_error()
    }

    #[test]
    fn the_error_is_told_with_its_hints_and_no_other_line() {
        let said = [
            "INFO: backup command begin 2.45: --repo1-cipher-pass=<redacted>",
            "ERROR: [050]: unable to acquire lock on file '/l': Resource temporarily unavailable",
            "       HINT: is another pgBackRest process running?",
            "INFO: backup command end: aborted with exception [050]",
        ];
        assert_eq!(
            words(&said),
            "unable to acquire lock on file '/l': Resource temporarily unavailable\n\
             HINT: is another pgBackRest process running?"
        );
        assert_eq!(words(&["WARN: odd", "INFO: x"]), "WARN: odd");
    }
}
