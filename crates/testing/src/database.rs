//! A database of one test's own, copied from the template.

use tenantry_db::lifecycle::{self, Authority, Deletion, ErasureLedger, NewTenant};
use tenantry_db::migrate::Migrations;
use tenantry_db::models::audit::Actor;
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{AdminDb, Config, Installation, ReaderDb, init};
use tokio_postgres::{Client, NoTls};

use crate::servers::{PREFIX, Servers, TEMPLATE, random_hex};

/// A database with roles and public schema, and no tenant. It goes with the servers.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its configuration.
    pub config: Config,
    /// The built-in migrations.
    pub migrations: Migrations,
    /// The control plane's connections to it.
    pub admin: AdminDb,
    /// The reader's.
    pub reader: ReaderDb,
    servers: Servers,
}

impl TestDatabase {
    /// Makes one.
    ///
    /// # Panics
    /// If it can't be made: the test could not go on.
    pub async fn new() -> Self {
        Self::on(Servers::of_this_run()).await
    }

    /// Makes one on servers of a test's own.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub async fn on(servers: Servers) -> Self {
        let random = || format!("test_{}", random_hex().expect("there are random bytes"));
        let name = servers.replicated.clone().unwrap_or_else(random);
        let config = servers.config(&name, PREFIX).expect("the test's settings are right");
        connect(&servers.superuser_url)
            .await
            .batch_execute(&format!(
                "CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {PREFIX}_owner"
            ))
            .await
            .expect("the template can be copied");
        // A copy has everything but the rights on the database itself.
        init::init(&config).await.expect("`init` is idempotent");
        Self {
            admin: AdminDb::new(&config).expect("the admin's URL is set"),
            reader: ReaderDb::new(&config).expect("the reader's secret is set"),
            migrations: Migrations::embedded().expect("the embedded files are right"),
            config,
            servers,
        }
    }

    /// Keeps other tests that ask for the same away until the client is dropped: for tests that look
    /// at, or damage, what all databases of the server share.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub async fn alone_on_the_server(&self) -> Client {
        let client = connect(&self.servers.superuser_url).await;
        client.batch_execute("SELECT pg_advisory_lock(1)").await.expect("a superuser may lock");
        client
    }

    /// The superuser in this database.
    pub async fn superuser(&self) -> Client {
        self.direct("postgres", &self.superuser_password()).await
    }

    /// The admin in this database.
    pub async fn admin_client(&self) -> Client {
        self.direct(&self.config.roles.admin(), &self.servers.admin_password).await
    }

    /// The reader in this database.
    pub async fn reader_client(&self) -> Client {
        let login = self.config.roles.reader();
        let password = self.config.lanes.secret().expect("set").password(&login);
        self.direct(&login, password.expose()).await
    }

    /// A lane in this database, past PgBouncer.
    pub async fn lane_direct(&self, lane: tenantry_db::LaneId) -> Client {
        let login = self.config.roles.lane(lane);
        let password = self.config.lanes.secret().expect("set").password(&login);
        self.direct(&login, password.expose()).await
    }

    /// A lane in this database, through PgBouncer.
    pub async fn lane(&self, lane: tenantry_db::LaneId) -> Client {
        let login = self.config.roles.lane(lane);
        let password = self.config.lanes.secret().expect("set").password(&login);
        let server = self.config.database.pooled(&login, &password).expect("set");
        connect_to(&server).await
    }

    /// A tenant with the given subdomain.
    ///
    /// # Panics
    /// If it can't be created.
    pub async fn tenant(&self, subdomain: &str) -> Tenant {
        self.create(subdomain).await.expect("the tenant can be created")
    }

    /// As [`tenant`](Self::tenant), for tests where it may fail.
    ///
    /// # Errors
    /// Those of `create_tenant`.
    pub async fn create(&self, subdomain: &str) -> Result<Tenant, tenantry_db::Error> {
        let new = NewTenant::new(&self.config, subdomain, subdomain, None, serde_json::Map::new())?;
        lifecycle::create_tenant(&self.admin, &self.migrations, &new, &self.actor()).await
    }

    /// Deletes a tenant and purges it at once.
    ///
    /// # Panics
    /// If it can't be purged.
    pub async fn purge(&self, tenant: &Tenant) {
        let confirm = tenant.subdomain.as_deref();
        let deletion = Deletion { confirm, retention: None };
        lifecycle::delete_tenant(&self.admin, &self.config, tenant.id, deletion, &self.actor())
            .await
            .expect("the tenant can be deleted");
        let authority = Authority::Confirmed { confirm, now: true };
        let (ledger, actor) = (self.ledger(), self.actor());
        lifecycle::purge_tenant(&self.admin, &ledger, tenant.id, authority, &actor, |_| {})
            .await
            .expect("the tenant can be purged");
    }

    /// Its erasure ledger.
    pub fn ledger(&self) -> ErasureLedger {
        ErasureLedger::new(&self.config).expect("the test's settings are right")
    }

    /// Everything that a service holds, on this database.
    pub fn installation(&self) -> Installation {
        Installation::new(self.config.clone()).expect("the test's settings are right")
    }

    /// Who acts in tests.
    pub fn actor(&self) -> Actor {
        Actor::new("test")
    }

    /// The servers behind it.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.config.database.name().expect("set")
    }

    fn superuser_password(&self) -> String {
        let url: tokio_postgres::Config = self.servers.superuser_url.parse().expect("a URL");
        String::from_utf8_lossy(url.get_password().expect("a password")).into_owned()
    }

    async fn direct(&self, login: &str, password: &str) -> Client {
        let mut server = self.config.database.direct().expect("set").clone();
        server.user(login).password(password);
        connect_to(&server).await
    }
}

async fn connect(url: &str) -> Client {
    connect_to(&url.parse().expect("a URL")).await
}

async fn connect_to(server: &tokio_postgres::Config) -> Client {
    let (client, connection) = server.connect(NoTls).await.expect("the test's servers answer");
    tokio::spawn(connection);
    client
}
