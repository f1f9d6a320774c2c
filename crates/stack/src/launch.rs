//! What every process started here has in common: user, environment, directory, output.
//!
//! Owns that one command. Refuses to hand our environment down: a `PGHOST` or `PGOPTIONS` of the
//! caller's shell would change what the tools do, and its secrets are none of the servers' business.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::log::RunLog;

/// `PATH` is for commands that PostgreSQL runs (archiving), the other for private builds of it.
const INHERITED: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// A command that runs as the servers' user in `directory` and writes to the log `name`.
pub(crate) fn command(
    layout: &Layout,
    program: &Path,
    directory: &Path,
    name: &str,
) -> Result<(Command, RunLog)> {
    let (output, log) = RunLog::begin(&layout.log(name))?;
    let errors = output.try_clone().map_err(Error::io("open", log.path()))?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((OsStr::new(name), std::env::var_os(name)?))))
        // The messages that we look for in the logs are the English ones.
        .env("LC_ALL", "C")
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        // Its own group: Ctrl-C in the terminal is for us, and we stop the servers in order.
        .process_group(0);
    let user = layout.user();
    if user.is_other {
        // The standard library also drops root's supplementary groups here.
        command.uid(user.uid).gid(user.gid);
    }
    Ok((command, log))
}
