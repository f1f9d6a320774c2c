//! The servers by name, and what is said about them: running, stopped, ended.
//!
//! Owns the vocabulary that the other modules and the callers share. Refuses to do anything.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::error::Error;

/// How many replicas a stack has at most: the primary keeps a slot for each, and some to spare.
pub const MAX_REPLICAS: u16 = 8;

/// One of the servers of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    /// The PostgreSQL server that takes the writes.
    Primary,
    /// A PostgreSQL server that follows it, and is only read. The first is number 1.
    Replica(u16),
    /// PgBouncer.
    Pooler,
}

/// The names of the replicas: of their directories, logs and slots, and behind the database's of their
/// entries in the pooler.
const REPLICA_NAMES: [&str; MAX_REPLICAS as usize] = [
    "replica",
    "replica_2",
    "replica_3",
    "replica_4",
    "replica_5",
    "replica_6",
    "replica_7",
    "replica_8",
];

impl Server {
    /// Who is stopped before whom: nobody may lose the server that it depends on.
    pub fn stop_order() -> impl Iterator<Item = Self> {
        [Self::Pooler].into_iter().chain(Self::replicas(MAX_REPLICAS)).chain([Self::Primary])
    }

    /// The first `count` replicas.
    pub fn replicas(count: u16) -> impl Iterator<Item = Self> {
        (1..=count).map(Self::Replica)
    }

    /// The name of its directory and its log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            // There are no others: the options are checked before anything is started.
            Self::Replica(number @ 1..=MAX_REPLICAS) => REPLICA_NAMES[number as usize - 1],
            Self::Replica(_) => "replica_x",
            Self::Pooler => "pgbouncer",
        }
    }

    /// The flag of `tenantry up` that moves this server to another port.
    pub const fn port_flag(self) -> &'static str {
        match self {
            Self::Primary => "--postgres-port",
            Self::Replica(_) => "--replica-port",
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
    /// Each server: primary, replicas, PgBouncer.
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
