//! The three servers by name, and what is said about them: running, stopped, ended.
//!
//! Owns the vocabulary that the other modules and the callers share. Refuses to do anything.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// One of the servers of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    /// The PostgreSQL server that takes the writes.
    Primary,
    /// The PostgreSQL server that follows it, and is only read.
    Replica,
    /// PgBouncer.
    #[serde(rename = "pgbouncer")]
    Pooler,
}

impl Server {
    /// Who is stopped before whom: nobody may lose the server that it depends on.
    pub const STOP_ORDER: [Self; 3] = [Self::Pooler, Self::Replica, Self::Primary];

    /// The name of its directory and its log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Pooler => "pgbouncer",
        }
    }

    /// The flag of `tenantry up` that moves this server to another port.
    pub const fn port_flag(self) -> &'static str {
        match self {
            Self::Primary => "--postgres-port",
            Self::Replica => "--replica-port",
            Self::Pooler => "--pgbouncer-port",
        }
    }
}

/// As in messages, with "the" before it.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pooler => "pooler",
            other => other.name(),
        })
    }
}

/// A server that ended although nobody had stopped it.
#[derive(Debug, Clone)]
pub struct ServerExit {
    /// Which one.
    pub server: Server,
    /// Its exit status or signal, in words.
    pub how: String,
    /// The last lines that it logged in this run.
    pub log_tail: String,
    /// The whole log.
    pub log_path: PathBuf,
}

impl From<ServerExit> for Error {
    fn from(exit: ServerExit) -> Self {
        let ServerExit { server, how, log_tail, log_path } = exit;
        Self::ServerExited { server, how, log_tail, log_path }
    }
}

/// What [`status`](crate::status) sees in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The process that holds the data directory. With servers running and nobody here, an
    /// interrupted run left them; [`down`](crate::down) stops them.
    pub owner_pid: Option<u32>,
    /// Each server: primary, replica, PgBouncer.
    pub servers: Vec<ServerStatus>,
}

/// One server in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which one.
    pub server: Server,
    /// Whether it runs.
    pub state: ServerState,
}

/// Whether a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// It does.
    Running {
        /// Its process.
        pid: u32,
        /// Its port on 127.0.0.1.
        port: u16,
        /// When it was started, to the second.
        since: SystemTime,
    },
    /// It does not.
    Stopped,
}

/// A server that an interrupted run had left, and that has been stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Which one.
    pub server: Server,
    /// The process that it was.
    pub pid: u32,
}
