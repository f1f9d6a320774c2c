//! `tenantry tenant psql`: psql with a login of its own, which goes when psql ends, however it ends.
//!
//! The password is in a file that only this account reads, never in an argument (everybody sees those) or
//! the environment (what psql starts would have it). It opens nothing after a minute.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tenantry_db::models::tenants::get_tenant;
use tenantry_db::operate::{Shell, close_shell, open_shell, sweep_shells};
use tenantry_db::{AdminDb, Config, ReaderDb};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::actor;
use crate::args::TenantPsql;
use crate::exit::{Exit, Failure};
use crate::output::say;

pub(super) async fn run(config: &Config, args: &TenantPsql) -> anyhow::Result<Exit> {
    if let Some(arg) = destination(&args.args) {
        let message = format!("`{arg}` would lead psql somewhere else");
        let hint = "server, database and login are the tenant's; SQL goes behind `-c`";
        return Err(Failure::new(Exit::Usage, message, hint).into());
    }
    let program = tenantry_stack::find_client_program("psql").await?;
    let tenant = get_tenant(&ReaderDb::new(config)?, &args.tenant).await?;
    let admin = AdminDb::new(config)?;
    // What is left of others is no reason not to go on.
    if let Err(error) = sweep_shells(&admin).await {
        tracing::debug!(%error, "can't look for shells that have ended");
    }
    let mut signals = Signals::listen()?;
    let shell = open_shell(&admin, config, tenant.id, &actor()).await?;
    let ended = run_psql(&program, &shell, args, &mut signals).await;
    if let Err(error) = close_shell(&admin, &shell).await {
        say(&format!("note: {error}: a running service drops the shell's login later"));
    }
    ended
}

/// The first argument that names a server, a database or a login. In another database, the login would have
/// whatever PUBLIC has there.
fn destination(args: &[OsString]) -> Option<String> {
    const NAMING: [&str; 4] = ["dbname", "host", "port", "username"];
    const VALUED: [&str; 10] = [
        "command",
        "file",
        "set",
        "variable",
        "log-file",
        "output",
        "field-separator",
        "record-separator",
        "pset",
        "table-attr",
    ];
    let mut args = args.iter().map(|arg| arg.to_string_lossy());
    while let Some(arg) = args.next() {
        if let Some(long) = arg.strip_prefix("--").filter(|long| !long.is_empty()) {
            // getopt takes the beginning of a name for the name.
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            if NAMING.iter().any(|naming| naming.starts_with(name)) {
                return Some(arg.into_owned());
            }
            if value.is_none() && VALUED.iter().any(|valued| valued.starts_with(name)) {
                args.next();
            }
        } else if let Some(short) = arg.strip_prefix('-').filter(|short| !short.starts_with('-')) {
            let Some(at) = short.find(|c| "dhpUcfvLoFRPT".contains(c)) else { continue };
            if short[at..].starts_with(|c| "dhpU".contains(c)) {
                return Some(arg.into_owned());
            }
            if short.len() == at + 1 {
                args.next();
            }
        } else {
            // A database, a login, or `--`, behind which these stand.
            return Some(arg.into_owned());
        }
    }
    None
}

async fn run_psql(
    program: &Path,
    shell: &Shell,
    args: &TenantPsql,
    signals: &mut Signals,
) -> anyhow::Result<Exit> {
    let password = PasswordFile::write(shell)?;
    let mut command = Command::new(program);
    // What the caller's environment says of servers is meant for others.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let ours = name.starts_with("TENANTRY_") || name.starts_with("DATABASE_");
        let of_server = name.starts_with("PG") && !name.starts_with("PGSSL");
        if ours || of_server && name != "PGTZ" && name != "PGAPPNAME" {
            command.env_remove(&*name);
        }
    }
    let mut child = command
        .env("PGHOST", &shell.host)
        .env("PGPORT", shell.port.to_string())
        .env("PGDATABASE", &shell.database)
        .env("PGUSER", &shell.login)
        .env("PGPASSFILE", &password.path)
        .env("PGOPTIONS", &shell.options)
        .args(&args.args)
        .spawn()
        .with_context(|| format!("can't start `{}`", program.display()))?;
    let status = signals.wait_for(&mut child).await.context("can't wait for psql")?;
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => Exit::Done,
        (_, Some(signal)) => {
            say(&format!("psql was ended by signal {signal}"));
            Exit::Failed
        }
        _ => Exit::Failed,
    })
}

/// Ctrl-C is psql's, which ends a statement with it. Whoever wants this program to end means psql.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("can't listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn wait_for(&mut self, child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
                _ = self.terminate.recv() => tell(child, Signal::TERM),
                _ = self.hangup.recv() => tell(child, Signal::HUP),
            }
        }
    }
}

fn tell(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

/// A file in libpq's form, gone when this is dropped.
struct PasswordFile {
    path: PathBuf,
}

impl PasswordFile {
    fn write(shell: &Shell) -> anyhow::Result<Self> {
        let private = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let directory = private.filter(|dir| dir.is_dir()).unwrap_or_else(std::env::temp_dir);
        // The login's name is random, and known to nobody yet.
        let path = directory.join(format!("{}.pgpass", shell.login));
        let context = || format!("can't write `{}`", path.display());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(context)?;
        let line = format!("*:*:*:{}:{}\n", shell.login, shell.password.expose());
        let written = file.write_all(line.as_bytes()).with_context(context);
        let file = Self { path };
        written.map(|()| file)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination_of(args: &str) -> Option<String> {
        destination(&args.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn whatever_names_another_place_is_found() {
        for args in [
            "postgres",
            "-d postgres",
            "-dpostgres",
            "-Xd postgres",
            "-c x -h db",
            "--db=postgres",
            "--dbname postgres",
            "--host=db",
            "--user x",
            "--p 1",
            "-U x",
            "-At postgres",
            "-c x postgres",
            "-- postgres",
            "-vx=1 postgres",
            "host=db",
        ] {
            assert!(destination_of(args).is_some(), "{args}");
        }
        for args in [
            "-c x",
            "-cd",
            "-Atc x",
            "-f file",
            "--command x",
            "--command=-d",
            "-v host=1",
            "-X",
            "--set host=1",
            "--pset pager=off",
            "-qAt -c -d",
            "--csv",
        ] {
            assert_eq!(destination_of(args), None, "{args}");
        }
        assert_eq!(destination(&[]), None);
    }
}
