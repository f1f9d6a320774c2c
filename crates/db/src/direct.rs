//! Direct connections to the primary, past PgBouncer: the control plane's way.
//!
//! The admin changes things; the reader only looks. Neither is ever handed to code that serves
//! tenants: what this module gives out stays inside the crate.

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, QueueMode, RecyclingMethod, Runtime,
};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, NoTls, Socket};

use crate::config::{self, Config};
use crate::error::{Doing, Error};
use crate::roles::RolePrefix;

/// The control plane's connections, as the admin.
#[derive(Debug, Clone)]
pub struct AdminDb {
    pool: DirectPool,
    server: tokio_postgres::Config,
    connect_timeout: Duration,
    pub(crate) roles: RolePrefix,
    pub(crate) limits: config::Migrations,
    pub(crate) settle_timeout: Duration,
    /// How many replicas the configuration names.
    pub(crate) replicas: usize,
    /// Tables that may go on naming a purged tenant.
    pub(crate) kept_tables: Vec<String>,
}

impl AdminDb {
    /// Prepares connections; the first use opens one.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.direct_url` is not set.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let server = config.database.direct()?.clone();
        let pool =
            DirectPool::new(server.clone(), &config.database, config.database.direct_connections);
        Ok(Self {
            pool,
            server,
            connect_timeout: config.database.connect_timeout,
            roles: config.roles.clone(),
            limits: config.migrations.clone(),
            settle_timeout: config.lanes.settle_timeout,
            replicas: config.database.replica_urls.len(),
            kept_tables: config.erasure.kept_tables.clone(),
        })
    }

    pub(crate) async fn connection(&self) -> Result<Object, Error> {
        self.pool.connection().await
    }

    /// A session of its own, with the connection that somebody must drive.
    pub(crate) async fn driven_session(
        &self,
    ) -> Result<(Client, Connection<Socket, NoTlsStream>), Error> {
        open(&self.server, self.connect_timeout).await
    }

    /// A connection of its own, for what needs a session or many of them.
    pub(crate) async fn session(&self) -> Result<Client, Error> {
        connect_once(&self.server, self.connect_timeout).await
    }
}

/// Connections for looking: directory, plan and status, as the reader.
#[derive(Debug, Clone)]
pub struct ReaderDb {
    pool: DirectPool,
    server: tokio_postgres::Config,
    connect_timeout: Duration,
}

impl ReaderDb {
    const CONNECTIONS: usize = 4;

    /// Prepares connections; the first use opens one.
    ///
    /// # Errors
    /// [`Error::Config`] if `database.direct_url` or `lanes.secret` is not set.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let login = config.roles.reader();
        let password = config.lanes.secret()?.password(&login);
        let server = config.database.direct_as(&login, &password)?;
        let connect_timeout = config.database.connect_timeout;
        let pool = DirectPool::new(server.clone(), &config.database, Self::CONNECTIONS);
        Ok(Self { pool, server, connect_timeout })
    }

    pub(crate) async fn connection(&self) -> Result<Object, Error> {
        self.pool.connection().await
    }

    /// A session of its own, for what is asked again and again within a deadline.
    pub(crate) async fn single_session(&self) -> Result<Client, Error> {
        connect_once(&self.server, self.connect_timeout).await
    }

    /// A session of its own, with the connection that somebody must drive.
    pub(crate) async fn session(&self) -> Result<(Client, Connection<Socket, NoTlsStream>), Error> {
        open(&self.server, self.connect_timeout).await
    }
}

#[derive(Debug, Clone)]
struct DirectPool {
    pool: Pool,
    server: String,
}

impl DirectPool {
    fn new(mut server: tokio_postgres::Config, settings: &config::Database, size: usize) -> Self {
        let shown = server_name(&server);
        server.application_name("tenantry").connect_timeout(settings.connect_timeout);
        let manager = Manager::from_config(
            server,
            NoTls,
            // One trip more for each use: a connection that died in the pool is found before it is needed.
            ManagerConfig { recycling_method: RecyclingMethod::Verified },
        );
        let pool = Pool::builder(manager)
            .max_size(size)
            // The one used last: a backend that has looked on while others changed the catalog has its
            // caches to build anew.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(settings.connect_timeout))
            .create_timeout(Some(settings.connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with a runtime can be built");
        Self { pool, server: shown }
    }

    async fn connection(&self) -> Result<Object, Error> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(source) => connect_error(self.server.clone(), source),
            other => Error::Unavailable { server: self.server.clone(), source: Box::new(other) },
        })
    }
}

/// Begins a transaction. Dropped without a commit, it is rolled back.
pub(crate) async fn begin(
    connection: &mut Object,
) -> Result<tokio_postgres::Transaction<'_>, Error> {
    let client: &mut Client = connection;
    client.transaction().await.doing("begin a transaction")
}

/// One connection of its own, with the task that drives it. For what needs another login than the
/// pools have, or a session.
pub(crate) async fn connect_once(
    server: &tokio_postgres::Config,
    timeout: Duration,
) -> Result<Client, Error> {
    let (client, connection) = open(server, timeout).await?;
    // Ends when the client is dropped. Its errors reach the client's own calls.
    tokio::spawn(connection);
    Ok(client)
}

async fn open(
    server: &tokio_postgres::Config,
    timeout: Duration,
) -> Result<(Client, Connection<Socket, NoTlsStream>), Error> {
    let mut server = server.clone();
    let shown = server_name(&server);
    server.application_name("tenantry").connect_timeout(timeout);
    tokio::time::timeout(timeout, server.connect(NoTls))
        .await
        .map_err(|e| Error::Unavailable { server: shown.clone(), source: Box::new(e) })?
        .map_err(|source| connect_error(shown, source))
}

fn connect_error(server: String, source: tokio_postgres::Error) -> Error {
    match source.code() {
        Some(&SqlState::INVALID_CATALOG_NAME) => Error::NotInitialised(message(&source)),
        Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            Error::LoginRefused { server, message: message(&source) }
        }
        // PgBouncer has one code for all that it refuses at login.
        Some(&SqlState::PROTOCOL_VIOLATION) => {
            Error::LoginRefused { server, message: message(&source) }
        }
        _ => Error::Unavailable { server, source: Box::new(source) },
    }
}

fn message(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned())
}

/// A server as people know it, without login and password.
pub(crate) fn server_name(server: &tokio_postgres::Config) -> String {
    let host = match server.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = server.get_ports().first().copied().unwrap_or(5432);
    let database = server.get_dbname().unwrap_or_default();
    format!("{host}:{port}/{database}")
}
