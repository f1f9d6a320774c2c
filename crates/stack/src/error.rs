//! Everything that can go wrong, named for the caller, and the advice that goes with it.
//!
//! Owns the wording. Refuses to carry secrets: no variant holds a password or a connection string.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::server::Server;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the servers could not be started, stopped or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Programs that the stack needs are not installed, or not where it looks.
    #[error("{} not found", quoted_list(names))]
    MissingBinary {
        /// The programs' names.
        names: Vec<String>,
    },
    /// A program was found, in a version that will not do.
    #[error("`{name}` is version {found}, and {needed} is needed")]
    UnsupportedVersion {
        /// The program.
        name: String,
        /// The version it reports.
        found: String,
        /// The version wanted, in words.
        needed: String,
    },
    /// Other programs listen on the ports that the servers should take.
    #[error("{}", busy_ports(ports))]
    PortInUse {
        /// Every such port, so that all can be changed at once.
        ports: Vec<BusyPort>,
    },
    /// An option makes no sense; nothing was touched.
    #[error("`{option}` {reason}")]
    InvalidOption {
        /// The option or flag.
        option: String,
        /// What is wrong with it, to be read after its name.
        reason: String,
    },
    /// Another process uses the data directory now.
    #[error("`{}` is in use by {}", data_dir.display(), holder(*pid))]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
        /// The process that holds the lock, if it has said so already.
        pid: Option<u32>,
    },
    /// The directory has files in it and was not made by this crate.
    #[error("`{}` is not empty and is not a data directory of tenantry", path.display())]
    NotADataDir {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory was made by a version of this crate that lays it out otherwise.
    #[error("`{}` has layout `{found}`, and this version reads layout `{supported}`", path.display())]
    UnsupportedLayout {
        /// The data directory.
        path: PathBuf,
        /// The layout it says it has.
        found: String,
        /// The layout of this version.
        supported: u32,
    },
    /// The servers' user may not enter a directory above the data.
    #[error("the servers run as `{user}`, which may not enter `{}`", path.display())]
    Unreachable {
        /// The directory that is closed to the user.
        path: PathBuf,
        /// The user.
        user: String,
    },
    /// The servers' files belong to another user than the one that they would run as.
    #[error("`{}` belongs to user id {owner}, and the servers would run as `{user}`", path.display())]
    WrongOwner {
        /// The directory.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// The user that the servers would run as.
        user: String,
    },
    /// Started as root, and there is no unprivileged user to run the servers as.
    #[error("PostgreSQL refuses to run as root, and there is no user `{user}` to run it as")]
    NoServerUser {
        /// The user that was looked for.
        user: String,
    },
    /// Too little room to make the clusters.
    #[error(
        "`{}` has {} MB free, and {} MB are needed",
        path.display(), free_bytes / MEGABYTE, needed_bytes / MEGABYTE
    )]
    NotEnoughSpace {
        /// The data directory.
        path: PathBuf,
        /// What the file system has left for us.
        free_bytes: u64,
        /// What new clusters take, with a margin.
        needed_bytes: u64,
    },
    /// The disk filled up while a file was written.
    #[error("no space left on the disk for `{}`", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// A server ended before it was ready.
    #[error("the {server} did not start: {reason}{}", excerpt(log_path, log_tail))]
    StartFailed {
        /// Which one.
        server: Server,
        /// How it ended, or why.
        reason: String,
        /// The last lines that it logged in this run.
        log_tail: String,
        /// The whole log.
        log_path: PathBuf,
    },
    /// A server runs, and was not ready in time. It has been stopped.
    #[error("the {server} was not ready after {waited_s} s{}", excerpt(log_path, log_tail))]
    StartTimeout {
        /// Which one.
        server: Server,
        /// How long it was given.
        waited_s: u64,
        /// The last lines that it logged in this run.
        log_tail: String,
        /// The whole log.
        log_path: PathBuf,
    },
    /// The replica's directory can't be used as a replica of this primary. It was left as it is.
    #[error("the replica in `{}` can't follow the primary: {reason}", path.display())]
    ReplicaUnusable {
        /// The replica's directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A server ended on its own while it was supposed to run.
    #[error("the {server} ended on its own ({how}){}", excerpt(log_path, log_tail))]
    ServerExited {
        /// Which one.
        server: Server,
        /// Its exit status or signal.
        how: String,
        /// The last lines that it logged in this run.
        log_tail: String,
        /// The whole log.
        log_path: PathBuf,
    },
    /// A server is still there after every signal.
    #[error("the {server} (process {pid}) is still running after being killed")]
    StillRunning {
        /// Which one.
        server: Server,
        /// Its process.
        pid: u32,
    },
    /// Something was asked of a server that does not run.
    #[error("the {server} is not running")]
    NotRunning {
        /// Which one.
        server: Server,
    },
    /// `initdb` or `pg_basebackup` failed.
    #[error("`{name}` failed ({how}){}", excerpt(log_path, log_tail))]
    Tool {
        /// The program.
        name: &'static str,
        /// Its exit status or signal.
        how: String,
        /// The last lines that it wrote.
        log_tail: String,
        /// All that it wrote.
        log_path: PathBuf,
    },
    /// The operating system refused something.
    #[error("could not {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On which file, directory or program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// PostgreSQL refused something.
    #[error("could not {action} on the {server}")]
    Postgres {
        /// Which server.
        server: Server,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// Why not.
        source: tokio_postgres::Error,
    },
}

/// A port that another program holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusyPort {
    /// The port.
    pub port: u16,
    /// The server that wanted it; [`Server::port_flag`] names the flag.
    pub server: Server,
}

const MEGABYTE: u64 = 1024 * 1024;

impl Error {
    /// What the person at the terminal can do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingBinary { .. } | Self::NoServerUser { .. } => Some(INSTALL.to_owned()),
            Self::UnsupportedVersion { .. } => Some(
                "install that version, or use another data directory with `--data-dir`".to_owned(),
            ),
            Self::PortInUse { ports } => {
                let flags: Vec<&str> = ports.iter().map(|busy| busy.server.port_flag()).collect();
                Some(format!("choose a free port with {}", quoted_list(&flags)))
            }
            Self::Locked { pid: Some(pid), .. } => Some(format!(
                "stop it with Ctrl-C in its terminal or with `kill -INT {pid}`, or use another data directory"
            )),
            Self::NotADataDir { .. } => {
                Some("name an empty or a new directory with `--data-dir`".to_owned())
            }
            Self::UnsupportedLayout { .. } => {
                Some("use the version that made it, or another data directory".to_owned())
            }
            Self::Unreachable { path, user } => Some(format!(
                "choose a directory outside it with `--data-dir`, or let `{user}` through: `chmod o+x {}`",
                path.display()
            )),
            Self::WrongOwner { .. } => {
                Some("run as the user who made it, or use another data directory".to_owned())
            }
            Self::NotEnoughSpace { .. } | Self::DiskFull { .. } => {
                Some("free some space, or name a directory on another disk with `--data-dir`".to_owned())
            }
            Self::ReplicaUnusable { path, .. } => Some(format!(
                "if nothing in it is needed, remove `{}`: it is then built anew",
                path.display()
            )),
            Self::Postgres { source, .. } if is_wrong_password(source) => Some(
                "the password in `secrets/` of the data directory is not the server's; put the old file back"
                    .to_owned(),
            ),
            Self::StartFailed { reason, .. } if reason == NO_SPACE => {
                Some("free some space and start again; no data was lost".to_owned())
            }
            Self::StartFailed { server: server @ Server::Replica(_), .. }
            | Self::StartTimeout { server: server @ Server::Replica(_), .. } => Some(format!(
                "if its log says that it can't follow the primary, remove the directory `{}` \
                 in the data directory: it is then built anew",
                server.name()
            )),
            _ => None,
        }
    }

    /// For `map_err`: the operating system's error while trying to `action` the `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }

    /// For `map_err`: the server's error while trying to `action`.
    pub(crate) fn postgres(
        server: Server,
        action: &'static str,
    ) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Postgres { server, action, source }
    }
}

/// The reason given when a server could not start because the disk is full.
pub(crate) const NO_SPACE: &str = "no space left on the disk";

#[cfg(target_os = "macos")]
const INSTALL: &str = "install them with `brew install postgresql@17 pgbouncer`";
#[cfg(not(target_os = "macos"))]
const INSTALL: &str = "install PostgreSQL 15 or newer and PgBouncer, on Debian and Ubuntu with \
                       `apt-get install postgresql pgbouncer`";

fn is_wrong_password(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::INVALID_PASSWORD)
}

fn quoted_list(names: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    quoted.join(", ")
}

fn busy_ports(ports: &[BusyPort]) -> String {
    let each: Vec<String> = ports
        .iter()
        .map(|busy| {
            format!(
                "port {} (`{}`) is in use by another program",
                busy.port,
                busy.server.port_flag()
            )
        })
        .collect();
    each.join("; ")
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// The server's own words, indented below the message; nothing if it said nothing.
fn excerpt(log_path: &Path, log_tail: &str) -> String {
    if log_tail.is_empty() {
        return format!("; its log is `{}`", log_path.display());
    }
    let mut text = format!("; the end of `{}`:", log_path.display());
    for line in log_tail.lines() {
        // Writing to a String can't fail.
        let _ = write!(text, "\n  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_busy_port_is_named_with_its_flag() {
        let error = Error::PortInUse {
            ports: vec![
                BusyPort { port: 5433, server: Server::Primary },
                BusyPort { port: 6432, server: Server::Pooler },
            ],
        };
        assert_eq!(
            error.to_string(),
            "port 5433 (`--postgres-port`) is in use by another program; \
             port 6432 (`--pgbouncer-port`) is in use by another program"
        );
        assert_eq!(
            error.hint().unwrap(),
            "choose a free port with `--postgres-port`, `--pgbouncer-port`"
        );
    }

    #[test]
    fn a_failed_start_quotes_the_servers_own_words() {
        let error = Error::StartFailed {
            server: Server::Primary,
            reason: "exit status: 1".to_owned(),
            log_tail: "FATAL:  no\nHINT:  try".to_owned(),
            log_path: "/d/logs/primary.log".into(),
        };
        assert_eq!(
            error.to_string(),
            "the primary did not start: exit status: 1; the end of `/d/logs/primary.log`:\n  \
             FATAL:  no\n  HINT:  try"
        );
    }

    #[test]
    fn a_full_disk_is_told_from_other_refusals() {
        let full = Error::io("write", Path::new("/d/x"))(io::ErrorKind::StorageFull.into());
        assert!(matches!(full, Error::DiskFull { .. }));
        let denied = Error::io("write", Path::new("/d/x"))(io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.to_string(), "could not write `/d/x`");
    }
}
