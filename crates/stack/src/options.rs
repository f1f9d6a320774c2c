//! What the caller chooses: directory, ports, durability, the pooler's settings.
//!
//! Owns the defaults and their checks. Refuses values that would have to be escaped somewhere.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::server::{MAX_REPLICAS, Server};

/// The name of the pooler's entry for a server: the database's, and for a replica `_replica`,
/// `_replica_2` and so on behind it.
pub fn pooler_entry(database: &str, server: Server) -> String {
    match server {
        Server::Replica(_) => format!("{database}_{}", server.name()),
        Server::Primary | Server::Pooler => database.to_owned(),
    }
}

/// PostgreSQL cuts longer names off.
const NAME_LIMIT_BYTES: usize = 63;

/// The ports on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The primary's; 5433 unless told otherwise, since 5432 is often taken.
    pub postgres: u16,
    /// The first replica's, 5434; further ones have those that follow.
    pub replica: u16,
    /// PgBouncer's; 6432.
    pub pgbouncer: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { postgres: 5433, replica: 5434, pgbouncer: 6432 }
    }
}

impl Ports {
    /// The port of one server.
    pub fn of(&self, server: Server) -> u16 {
        match server {
            Server::Primary => self.postgres,
            // Where there is no such port, the options are refused.
            Server::Replica(number) => {
                self.replica.checked_add(number.saturating_sub(1)).unwrap_or(0)
            }
            Server::Pooler => self.pgbouncer,
        }
    }
}

/// What a power failure may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing that was committed.
    #[default]
    Durable,
    /// Everything: nothing waits for the disk. For tests. A crash of the servers alone is
    /// survived, except for the commits of its last moments.
    Volatile,
}

/// How to run a stack.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// Where everything lives; made if it does not exist.
    pub data_dir: PathBuf,
    /// Where the servers listen.
    pub ports: Ports,
    /// How many replicas there are, up to [`MAX_REPLICAS`].
    pub replicas: u16,
    /// The database that the pooler exposes, under the names that [`pooler_entry`] tells. Creating
    /// it is the caller's business.
    pub database: String,
    /// What a power failure may cost.
    pub durability: Durability,
    /// PostgreSQL's `max_connections`.
    pub max_connections: u16,
    /// More PostgreSQL settings, for the primary and the replicas; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Where to look for the programs, in the form of `PATH`, and nowhere else. `None` means
    /// `PATH` and then the places where packages put them.
    pub search_path: Option<OsString>,
}

impl StackOptions {
    /// The defaults, in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            ports: Ports::default(),
            replicas: 1,
            database: "tenantry".to_owned(),
            durability: Durability::default(),
            max_connections: 200,
            settings: Vec::new(),
            search_path: None,
        }
    }

    /// The servers that this stack has.
    pub(crate) fn servers(&self) -> impl Iterator<Item = Server> {
        let replicas = Server::replicas(self.replicas);
        std::iter::once(Server::Primary).chain(replicas).chain([Server::Pooler])
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.replicas > MAX_REPLICAS {
            return Err(invalid("--replicas", format!("must be at most {MAX_REPLICAS}")));
        }
        let suffix = pooler_entry("", Server::Replica(MAX_REPLICAS));
        let longest = NAME_LIMIT_BYTES - suffix.len();
        let name = &self.database;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > longest || !name.chars().all(plain) {
            return Err(invalid(
                "database",
                format!("must be 1 to {longest} ASCII letters, digits, `_` or `-`"),
            ));
        }
        if name == "pgbouncer" {
            return Err(invalid("database", "must not be the pooler's own name"));
        }
        if self.data_dir.as_os_str().as_encoded_bytes().iter().any(u8::is_ascii_control) {
            return Err(invalid("--data-dir", "must not hold a line break or control character"));
        }
        for (setting, _) in &self.settings {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            if setting.is_empty() || !setting.chars().all(plain) {
                return Err(invalid("settings", format!("has an odd name, {setting:?}")));
            }
        }
        self.validate_ports()
    }

    fn validate_ports(&self) -> Result<()> {
        let servers: Vec<Server> = self.servers().collect();
        for (index, server) in servers.iter().enumerate() {
            let port = self.ports.of(*server);
            if port == 0 {
                let reason = match server {
                    Server::Replica(2..) => "leaves no ports for further replicas",
                    _ => "must not be 0",
                };
                return Err(invalid(server.port_flag(), reason));
            }
            let twin = servers[..index].iter().find(|other| self.ports.of(**other) == port);
            if let Some(other) = twin {
                let reason = format!("is {port}, and so is `{}`", other.port_flag());
                return Err(invalid(server.port_flag(), reason));
            }
        }
        Ok(())
    }
}

/// A login that PgBouncer accepts from clients, and uses towards PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub struct PoolerLogin {
    /// The role's name.
    pub name: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for PoolerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolerLogin").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How PgBouncer pools, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolerSettings {
    /// Who may connect.
    pub logins: Vec<PoolerLogin>,
    /// Which of them may read the statistics in the database `pgbouncer`.
    pub stats_users: Vec<String>,
    /// Connections to PostgreSQL for each login and database.
    pub pool_size: u16,
    /// Connections to each PostgreSQL server in all.
    pub max_server_connections: u16,
    /// Connections from clients; lowered where the open-files limit does not allow as many.
    pub max_client_connections: u32,
    /// How long a client waits for a connection before it is refused, in seconds.
    pub query_wait_timeout_s: u32,
    /// Whether every other database of the primary can be reached too, under its own name. For
    /// tests, where each has a database of its own.
    pub any_database: bool,
}

impl Default for PoolerSettings {
    fn default() -> Self {
        Self {
            logins: Vec::new(),
            stats_users: Vec::new(),
            pool_size: 12,
            max_server_connections: 48,
            max_client_connections: 2000,
            query_wait_timeout_s: 30,
            any_database: false,
        }
    }
}

impl PoolerSettings {
    pub(crate) fn validate(&self) -> Result<()> {
        // A control character would end its line in the file, whatever stands around it.
        let odd = |text: &str| text.is_empty() || text.contains(char::is_control);
        for login in &self.logins {
            if odd(&login.name) || odd(&login.password) {
                let reason = format!(
                    "has an empty name or password or one with a control character: {:?}",
                    login.name
                );
                return Err(invalid("logins", reason));
            }
        }
        for user in &self.stats_users {
            if !self.logins.iter().any(|login| login.name == *user) {
                return Err(invalid("stats_users", format!("has {user:?}, which is no login")));
            }
            if user.contains([',', ' ']) {
                return Err(invalid("stats_users", format!("has an odd name, {user:?}")));
            }
        }
        if self.pool_size == 0 || self.max_server_connections == 0 {
            return Err(invalid("pool_size", "and `max_server_connections` must not be 0"));
        }
        Ok(())
    }
}

pub(crate) fn invalid(option: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::InvalidOption { option: option.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut StackOptions)) -> String {
        let mut options = StackOptions::new("/d");
        change(&mut options);
        options.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_directory_with_a_line_break_is_refused() {
        assert!(refusal(|o| o.data_dir = "/a\nb".into()).contains("line break"));
    }

    #[test]
    fn the_defaults_are_valid() {
        StackOptions::new("/d").validate().unwrap();
        PoolerSettings::default().validate().unwrap();
    }

    #[test]
    fn one_port_for_two_servers_is_refused() {
        assert_eq!(
            refusal(|options| options.ports.pgbouncer = 5433),
            "`--pgbouncer-port` is 5433, and so is `--postgres-port`"
        );
        let mut options = StackOptions::new("/d");
        options.ports.replica = 5433;
        options.replicas = 0;
        options.validate().unwrap();
    }

    #[test]
    fn replicas_have_the_ports_that_follow_and_an_end() {
        let options = StackOptions { replicas: 3, ..StackOptions::new("/d") };
        let ports: Vec<u16> = options.servers().map(|server| options.ports.of(server)).collect();
        assert_eq!(ports, [5433, 5434, 5435, 5436, 6432]);
        assert_eq!(
            refusal(|options| (options.replicas, options.ports.pgbouncer) = (3, 5436)),
            "`--pgbouncer-port` is 5436, and so is `--replica-port`"
        );
        assert!(refusal(|o| (o.replicas, o.ports.replica) = (2, 65535)).contains("no ports"));
        assert!(refusal(|options| options.replicas = 9).starts_with("`--replicas`"));
        assert_eq!(pooler_entry("shop", Server::Replica(2)), "shop_replica_2");
    }

    #[test]
    fn odd_names_are_refused() {
        assert!(refusal(|options| options.database = "a b".to_owned()).starts_with("`database`"));
        assert!(refusal(|options| options.database = "x".repeat(54)).starts_with("`database`"));
        let setting = ("port = 1\nfsync".to_owned(), "off".to_owned());
        assert!(refusal(|options| options.settings.push(setting)).starts_with("`settings`"));
    }

    #[test]
    fn logins_that_would_break_the_file_are_refused() {
        let login = PoolerLogin { name: "a".to_owned(), password: "hunter\n\"b\" \"2".to_owned() };
        let mut settings = PoolerSettings { logins: vec![login], ..PoolerSettings::default() };
        assert!(settings.validate().is_err());
        assert!(!format!("{settings:?}").contains("hunter"));
        settings.logins.clear();
        settings.stats_users.push("nobody".to_owned());
        assert!(settings.validate().is_err());
    }
}
