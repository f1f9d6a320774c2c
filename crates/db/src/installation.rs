//! An installation in use: configuration, connections, directory. What a service holds.

use std::sync::Arc;

use crate::config::Config;
use crate::direct::{AdminDb, ReaderDb};
use crate::directory::{Directory, TenantEntry};
use crate::error::Error;
use crate::lanes::LanePools;
use crate::migrate::Migrations;
use crate::replicas::Replicas;
use crate::tenant_db::{self, TenantDb};

/// Everything that serving tenants takes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Installation {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    admin: AdminDb,
    reader: ReaderDb,
    migrations: Migrations,
    directory: Directory,
    lanes: LanePools,
    replicas: Replicas,
}

impl Installation {
    /// Prepares everything. Nothing connects before its first use.
    ///
    /// # Errors
    /// [`Error::Config`] for a missing setting, [`Error::Migration`] for unusable files.
    pub fn new(config: Config) -> Result<Self, Error> {
        let migrations = Migrations::load(&config.migrations)?;
        let (admin, reader, lanes) =
            (AdminDb::new(&config)?, ReaderDb::new(&config)?, LanePools::new(&config)?);
        let replicas = Replicas::new(&config)?;
        let config = Arc::new(config);
        let directory = Directory::new(Arc::clone(&config), reader.clone());
        let inner = Inner { config, admin, reader, migrations, directory, lanes, replicas };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The control plane's connections.
    pub fn admin(&self) -> &AdminDb {
        &self.inner.admin
    }

    /// Connections for looking.
    pub fn reader(&self) -> &ReaderDb {
        &self.inner.reader
    }

    /// The migrations in effect.
    pub fn migrations(&self) -> &Migrations {
        &self.inner.migrations
    }

    /// The lookup of tenants.
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// A tenant's database.
    ///
    /// # Errors
    /// [`Error::TenantNotServed`] for one that is not active.
    pub fn tenant_db(&self, tenant: Arc<TenantEntry>) -> Result<TenantDb, Error> {
        TenantDb::new(self.clone(), tenant)
    }

    /// Makes sure that this database has nobody whom the erasure ledger names: a backup may have been
    /// restored without applying the ledger again. Remembered, so that it costs nothing the next time.
    /// Lookups of tenants do it by themselves; whoever makes tenants asks before.
    ///
    /// # Errors
    /// [`crate::lifecycle::ErasureError::ErasedBefore`]; others if the database can't be asked.
    pub async fn require_erased_stay_erased(&self) -> Result<(), Error> {
        self.directory().require_erased_stay_erased().await
    }

    /// Tries the way of a tenant's statements: its lane, the bind, the server. Takes none of its slots,
    /// so that a busy tenant neither hides an outage nor is made busier.
    ///
    /// # Errors
    /// Those of [`TenantDb::query`], but for [`Error::TenantBusy`].
    pub async fn probe(&self, tenant: &TenantEntry) -> Result<(), Error> {
        tenant_db::probe(self.lanes().connection(tenant.lane).await?, tenant).await
    }

    /// The replicas.
    pub fn replicas(&self) -> &Replicas {
        &self.inner.replicas
    }

    pub(crate) fn lanes(&self) -> &LanePools {
        &self.inner.lanes
    }
}
