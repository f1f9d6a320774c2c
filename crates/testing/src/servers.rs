//! The servers that all tests of a run share.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tenantry_db::config::Layers;
use tenantry_db::migrate::{Migrations, migrate_public};
use tenantry_db::{AdminDb, Config, init, pooler};
use tenantry_stack::{
    Durability, PoolerLogin, PoolerSettings, Ports, Server, Stack, StackOptions, pooler_entry,
};

/// The environment variable that tells tests where the servers are.
pub const VARIABLE: &str = "TENANTRY_TEST_SERVERS";

/// The database that each test's own is copied from.
pub(crate) const TEMPLATE: &str = "tenantry_template";

/// The roles of all test databases. Tests of `init` make others.
pub(crate) const PREFIX: &str = "shared";

/// More than any test needs: they share the lanes, each with connections of its own.
const MAX_SERVER_CONNECTIONS: u16 = 300;

/// Where the servers of a test run are, and what is needed to use them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Servers {
    /// The primary's port on 127.0.0.1.
    pub postgres_port: u16,
    /// PgBouncer's.
    pub pgbouncer_port: u16,
    /// The superuser's connection to the database `postgres`.
    pub superuser_url: String,
    /// Those of the replicas, which the test starts itself.
    pub replica_ports: Vec<u16>,
    /// The only database that the replicas can be read in by way of PgBouncer.
    pub(crate) replicated: Option<String>,
    pub(crate) lane_secret: String,
    pub(crate) admin_password: String,
    /// Holds each database's erasure ledger.
    pub(crate) ledgers: PathBuf,
}

impl Servers {
    /// The servers of this run.
    ///
    /// # Panics
    /// If the test was started without `with-servers`.
    pub fn of_this_run() -> Self {
        let text = std::env::var(VARIABLE).unwrap_or_else(|_| {
            panic!("these tests need servers: `cargo run -q -p tenantry-testing -- cargo nextest run …`")
        });
        serde_json::from_str(&text).expect("`with-servers` writes JSON")
    }

    /// Starts servers in a directory, with a template database that has roles and public schema,
    /// and `pool_size` server connections for each lane and database.
    ///
    /// # Errors
    /// Whatever stands against it.
    pub async fn start(data_dir: &Path, pool_size: u16) -> anyhow::Result<(Stack, Self)> {
        Self::start_with(data_dir, pool_size, |_| {}).await
    }

    /// As [`start`](Self::start), with some of the servers' options changed.
    ///
    /// # Errors
    /// Whatever stands against it.
    pub async fn start_with(
        data_dir: &Path,
        pool_size: u16,
        change: impl FnOnce(&mut StackOptions),
    ) -> anyhow::Result<(Stack, Self)> {
        let mut options = StackOptions::new(data_dir);
        options.ports =
            Ports { postgres: free_port()?, replica: free_port()?, pgbouncer: free_port()? };
        options.replicas = 0;
        options.durability = Durability::Volatile;
        options.max_connections = 400;
        change(&mut options);
        if options.replicas > 1 {
            options.ports.replica = free_ports_in_a_row(options.replicas)?;
        }
        let (ports, database) = (options.ports, options.database.clone());
        let replica_ports: Vec<u16> =
            Server::replicas(options.replicas).map(|replica| ports.of(replica)).collect();
        let mut stack = Stack::open(options).await?;
        stack.start_primary().await?;
        let servers = Self {
            postgres_port: ports.postgres,
            pgbouncer_port: ports.pgbouncer,
            superuser_url: stack.superuser_url(),
            replicated: (!replica_ports.is_empty()).then_some(database),
            replica_ports,
            lane_secret: random_hex()?,
            admin_password: random_hex()?,
            ledgers: data_dir.join("ledgers"),
        };
        std::fs::create_dir_all(&servers.ledgers).context("can't make a place for ledgers")?;
        let config = servers.config(TEMPLATE, PREFIX)?;
        init::init(&config).await.context("can't initialise the template")?;
        let public = Migrations::embedded()?.public;
        migrate_public(&AdminDb::new(&config)?, &public, None, |_| {}).await?;
        stack.start_pooler(&servers.pooler_settings(pool_size)?).await?;
        Ok((stack, servers))
    }

    /// A configuration for a database of these servers.
    ///
    /// # Errors
    /// None for plain names.
    pub fn config(&self, database: &str, prefix: &str) -> anyhow::Result<Config> {
        Ok(Config::from_layers(self.layers(database, prefix))?)
    }

    /// A configuration file for a database of the shared roles.
    pub fn toml(&self, database: &str) -> String {
        let Self { postgres_port, pgbouncer_port, admin_password, lane_secret, .. } = self;
        let ledger_dir = self.ledgers.join(database);
        format!(
            "[database]
url = \"postgresql://127.0.0.1:{pgbouncer_port}/{database}\"
direct_url = \"postgresql://{PREFIX}_admin:{admin_password}@127.0.0.1:{postgres_port}/{database}\"

[roles]
prefix = \"{PREFIX}\"

[lanes]
secret = \"{lane_secret}\"

[tenants]
ready_pool = 0

[erasure]
ledger_dir = \"{}\"
",
            ledger_dir.display()
        )
    }

    /// The layers behind [`config`](Self::config), for tests that set more.
    pub fn layers(&self, database: &str, prefix: &str) -> Layers {
        let Self { postgres_port, pgbouncer_port, admin_password, .. } = self;
        let test = |layers: Layers, key: &str, value: toml::Value| layers.flag("test", key, value);
        let mut layers = Layers::defaults();
        for (key, value) in [
            ("database.url", format!("postgresql://127.0.0.1:{pgbouncer_port}/{database}")),
            (
                "database.direct_url",
                format!(
                    "postgresql://{prefix}_admin:{admin_password}@127.0.0.1:{postgres_port}/{database}"
                ),
            ),
            ("roles.prefix", prefix.to_owned()),
            ("lanes.secret", self.lane_secret.clone()),
            ("init.superuser_url", self.superuser_url.clone()),
            ("erasure.ledger_dir", self.ledgers.join(database).display().to_string()),
        ] {
            layers = test(layers, key, value.into());
        }
        if !self.replica_ports.is_empty() {
            let (pooled, direct) = self.replica_urls(database);
            layers = test(layers, "database.replica_urls", pooled.into());
            layers = test(layers, "database.replica_direct_urls", direct.into());
        }
        // A test that wants one says so: others have no use for ten tenants more.
        test(layers, "tenants.ready_pool", 0.into())
    }

    /// The addresses of the replicas: by way of PgBouncer, and past it.
    pub fn replica_urls(&self, database: &str) -> (Vec<String>, Vec<String>) {
        let (replicas, pooler) = (Server::replicas(u16::MAX), self.pgbouncer_port);
        let url = |port: u16, name: &str| format!("postgresql://127.0.0.1:{port}/{name}");
        replicas
            .zip(&self.replica_ports)
            .map(|(replica, port)| {
                (url(pooler, &pooler_entry(database, replica)), url(*port, database))
            })
            .unzip()
    }

    /// PgBouncer's settings, for a test that starts it again.
    ///
    /// # Errors
    /// None for servers that were started.
    pub fn pooler_settings(&self, pool_size: u16) -> anyhow::Result<PoolerSettings> {
        let config = self.config(TEMPLATE, PREFIX)?;
        let logins = pooler::logins(&config)?
            .into_iter()
            .map(|(name, password)| PoolerLogin { name, password: password.expose().to_owned() })
            .collect();
        Ok(PoolerSettings {
            logins,
            stats_users: vec![config.roles.stats()],
            pool_size,
            max_server_connections: MAX_SERVER_CONNECTIONS,
            any_database: true,
            ..PoolerSettings::default()
        })
    }
}

/// A port that nobody listens on at the moment.
///
/// # Errors
/// If the system has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The first of several such ports that follow one another.
///
/// # Errors
/// If none were found in a hundred attempts.
pub fn free_ports_in_a_row(count: u16) -> anyhow::Result<u16> {
    for _ in 0..100 {
        let first = free_port()?;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (0..count).all(|n| first.checked_add(n).is_some_and(free)) {
            return Ok(first);
        }
    }
    anyhow::bail!("there are no {count} free ports in a row")
}

/// A temporary directory that the servers' own user may enter.
///
/// # Errors
/// If it can't be made.
pub fn temp_dir() -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("tenantry-").tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
    Ok(dir)
}

pub(crate) fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("can't get random bytes: {e}"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
