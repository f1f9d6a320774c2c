//! The configuration: what there is to set, and the rules between settings.
//!
//! `config.default.toml` is the manual and the source of every default; this module turns the
//! layers into types that can't be wrong. It reports all problems at once, with the key, where the
//! value came from, and the nearest existing name; it never prints a secret.

mod erasure;
mod export;
mod layers;
mod read;
mod replicas;
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::ids::{LaneId, TenantId};
use crate::migrate::Portion;
use crate::roles::RolePrefix;
use crate::secret::{LaneSecret, Secret};

pub use erasure::{Erasure, parse_retention};
pub use export::{Export, OmittedColumn};
pub use layers::{DEFAULTS, Layers};
pub use read::Reader;
pub use replicas::Replicas;

/// All settings of an installation.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the servers are.
    pub database: Database,
    /// What role names begin with.
    pub roles: RolePrefix,
    /// How many lanes, and how wide.
    pub lanes: Lanes,
    /// What tenants may book, by name.
    pub tiers: BTreeMap<String, Tier>,
    /// Rules for new tenants.
    pub tenants: Tenants,
    /// How tenants are purged.
    pub erasure: Erasure,
    /// How the audit log is protected.
    pub audit: Audit,
    /// How tenants' data is handed over.
    pub export: Export,
    /// How tenants are looked up.
    pub directory: Directory,
    /// When a replica is read from.
    pub replicas: Replicas,
    /// Where migrations come from, and their limits.
    pub migrations: Migrations,
    /// What `init` needs, and nothing else does.
    pub init: Init,
    pub(crate) layers: Layers,
}

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Database {
    /// PgBouncer's entry for the primary.
    pub(crate) url: Option<tokio_postgres::Config>,
    /// The admin's direct connection.
    pub(crate) direct_url: Option<tokio_postgres::Config>,
    /// PgBouncer's entries for the replicas.
    pub replica_urls: Vec<tokio_postgres::Config>,
    /// The same replicas past PgBouncer; none, or as many.
    pub replica_direct_urls: Vec<tokio_postgres::Config>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long a request waits for a connection of its lane.
    pub acquire_timeout: Duration,
    /// The control plane's direct connections.
    pub direct_connections: usize,
}

/// How many lanes, and how wide.
#[derive(Debug, Clone)]
pub struct Lanes {
    /// Lanes in use.
    pub count: u8,
    /// Server connections of one lane.
    pub pool_size: u16,
    /// Server connections of all lanes.
    pub server_connections: u16,
    /// How long transactions under way may go on when their tenant is shut out or moves.
    pub settle_timeout: Duration,
    pub(crate) secret: Option<LaneSecret>,
}

/// What a tenant has booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Transactions of one tenant at once.
    pub slots: u16,
    /// How long a further one waits for a slot.
    pub slot_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long a transaction may stay open without a statement.
    pub idle_timeout: Duration,
    /// How long a deleted tenant can be restored, where the tier says so.
    pub retention: Option<Duration>,
}

/// How the audit log is protected.
#[derive(Debug, Clone, Copy)]
pub struct Audit {
    /// How often the chain's head is written to the file outside the database, while it moves.
    pub anchor_every: Duration,
}

/// How tenants are looked up.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    /// How long an entry is believed while changes are announced.
    pub ttl: Duration,
    /// How long an entry is believed while they are not.
    pub unannounced_ttl: Duration,
    /// How many entries are kept.
    pub max_entries: u16,
}

/// Rules for new tenants.
#[derive(Debug, Clone)]
pub struct Tenants {
    /// The tier of a tenant that is created without one.
    pub default_tier: String,
    /// Subdomains that nobody may take, beyond the built-in ones.
    pub reserved_subdomains: Vec<String>,
    /// How long a deleted tenant can be restored, where its tier does not say.
    pub retention: Duration,
    /// How many are provisioned ahead of time; 0 for none.
    pub ready_pool: u16,
}

/// Where migrations come from, and their limits.
#[derive(Debug, Clone)]
pub struct Migrations {
    /// A directory that replaces the built-in files.
    pub dir: Option<PathBuf>,
    /// How long one statement waits for a lock.
    pub lock_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How many tenants are migrated at once.
    pub parallel: u16,
    /// How often a tenant is tried again after what may pass, such as a lock that somebody held.
    pub retries: u16,
    /// In which portions the fleet is migrated.
    pub waves: Vec<Portion>,
    /// Up to which size of the table a concurrent index is built plainly instead.
    pub plain_index_up_to_mib: u16,
}

/// What `init` needs.
#[derive(Debug, Clone)]
pub struct Init {
    /// A superuser's connection to any database of the server.
    pub superuser_url: Option<tokio_postgres::Config>,
    /// Logins that run dumps.
    pub dump_roles: Vec<String>,
}

impl Config {
    /// Reads the layers into settings.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem found: unknown keys, wrong types, values out of range,
    /// and rules between settings that are broken.
    pub fn from_layers(layers: Layers) -> Result<Self, Error> {
        read::config(layers)
    }

    /// Reads further settings, which are in the defaults too but mean nothing to this library.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem that `read` met.
    pub fn section<T>(&self, read: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, Error> {
        Reader::run(&self.layers, read)
    }

    /// The same installation on a server that is reached through a socket: a copy that was restored.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.direct_url` is not set.
    pub fn of_copy(&self, (socket_dir, port): (PathBuf, u16)) -> Result<Self, Error> {
        let direct = self.database.direct()?;
        let mut server = tokio_postgres::Config::new();
        server.host_path(socket_dir).port(port);
        server.user(direct.get_user().unwrap_or_default());
        server.dbname(direct.get_dbname().unwrap_or_default());
        if let Some(password) = direct.get_password() {
            server.password(password);
        }
        let mut copy = self.clone();
        copy.database.url = None;
        (copy.database.replica_urls, copy.database.replica_direct_urls) = (Vec::new(), Vec::new());
        copy.database.direct_url = Some(server);
        Ok(copy)
    }

    /// What a tier allows. One that was taken out of the configuration allows what the default one does.
    pub fn tier(&self, name: &str) -> &Tier {
        self.tiers.get(name).unwrap_or_else(|| &self.tiers[&self.tenants.default_tier])
    }

    /// Every setting in effect as TOML, secrets hidden.
    pub fn show(&self) -> String {
        show::text(&self.layers)
    }

    /// Every setting in effect as JSON, secrets hidden.
    pub fn show_json(&self) -> serde_json::Value {
        show::json(&self.layers)
    }

    /// Non-fatal remarks about settings, for `config check` and `doctor`.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for (key, missing) in [
            ("database.url", self.database.url.is_none()),
            ("database.direct_url", self.database.direct_url.is_none()),
            ("lanes.secret", self.lanes.secret.is_none()),
            ("erasure.ledger_dir", self.erasure.ledger_dir.is_none()),
        ] {
            if missing {
                remarks
                    .push(format!("`{key}` is not set: commands that need it will refuse to run"));
            }
        }
        if !self.database.replica_urls.is_empty() && self.database.replica_direct_urls.is_empty() {
            remarks.push(
                "`database.replica_direct_urls` is not set: no replica is read from, since nobody can \
                 look at its health"
                    .to_owned(),
            );
        }
        remarks
    }
}

impl Database {
    /// PgBouncer's entry for the primary, as this login.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.url` is not set.
    pub fn pooled(&self, login: &str, password: &Secret) -> Result<tokio_postgres::Config, Error> {
        let base = self.url.as_ref().ok_or_else(|| Error::unset("database.url"))?;
        Ok(as_login(base, login, password))
    }

    /// The name of PgBouncer's entry for the primary.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.url` is not set.
    pub fn pooled_name(&self) -> Result<&str, Error> {
        let url = self.url.as_ref().ok_or_else(|| Error::unset("database.url"))?;
        Ok(url.get_dbname().unwrap_or_default())
    }

    /// The admin's direct connection.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.direct_url` is not set.
    pub fn direct(&self) -> Result<&tokio_postgres::Config, Error> {
        self.direct_url.as_ref().ok_or_else(|| Error::unset("database.direct_url"))
    }

    /// The server of the admin's direct connection, as another login.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.direct_url` is not set.
    pub fn direct_as(
        &self,
        login: &str,
        password: &Secret,
    ) -> Result<tokio_postgres::Config, Error> {
        Ok(as_login(self.direct()?, login, password))
    }

    /// PgBouncer's entries for the replicas, as this login.
    pub(crate) fn replicas_pooled(
        &self,
        login: &str,
        password: &Secret,
    ) -> Vec<tokio_postgres::Config> {
        self.replica_urls.iter().map(|url| as_login(url, login, password)).collect()
    }

    /// The replicas past PgBouncer, as this login.
    pub(crate) fn replicas_direct(
        &self,
        login: &str,
        password: &Secret,
    ) -> Vec<tokio_postgres::Config> {
        self.replica_direct_urls.iter().map(|url| as_login(url, login, password)).collect()
    }

    /// The name of the installation's database.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.direct_url` is not set.
    pub fn name(&self) -> Result<&str, Error> {
        Ok(self.direct()?.get_dbname().unwrap_or_default())
    }
}

fn as_login(
    base: &tokio_postgres::Config,
    login: &str,
    password: &Secret,
) -> tokio_postgres::Config {
    let mut config = base.clone();
    config.user(login).password(password.expose());
    config
}

impl Lanes {
    /// The lanes in use.
    pub fn in_use(&self) -> impl Iterator<Item = LaneId> {
        LaneId::all().take(usize::from(self.count))
    }

    /// The key behind the passwords of the installation's logins.
    ///
    /// # Errors
    /// [`Error::Config`] if `lanes.secret` is not set.
    pub fn secret(&self) -> Result<&LaneSecret, Error> {
        self.secret.as_ref().ok_or_else(|| Error::unset("lanes.secret"))
    }

    /// The lane of a new tenant: its id spread evenly over the lanes in use, so that sign-ups need
    /// no counter to agree on.
    pub fn for_new_tenant(&self, tenant: TenantId) -> LaneId {
        LaneId::spread(tenant, self.count)
    }

    /// The same lanes, but `count` of them.
    ///
    /// # Errors
    /// [`Error::Config`] if that breaks a rule between the settings.
    pub fn resized(&self, count: u8, tiers: &BTreeMap<String, Tier>) -> Result<Self, Error> {
        let lanes = Self { count, ..self.clone() };
        let mut problems = Vec::new();
        read::lane_rules(&mut problems, &lanes, tiers);
        if problems.is_empty() { Ok(lanes) } else { Err(Error::Config { problems }) }
    }
}

#[cfg(test)]
mod tests;
