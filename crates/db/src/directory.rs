//! The directory: who a tenant is and where it is served, cached in process.
//!
//! Bounded in entries and in age; an unknown name is cached like a known one, so that a flood of
//! them costs one query each. Many askers of one name at once cost one query. What can't be read is
//! an error, never a default.

use std::sync::Arc;

use moka::future::Cache;

use crate::bind;
use crate::config::{Config, Tier};
use crate::direct::ReaderDb;
use crate::error::Error;
use crate::ids::{LaneId, Subdomain, TenantId, TenantRef};
use crate::models::tenants::{Status, Tenant, find_tenant};
use crate::slots::{Slots, TenantSlots};

/// What serving a tenant takes.
#[derive(Debug)]
pub struct TenantEntry {
    /// Its id.
    pub id: TenantId,
    /// Its human name.
    pub subdomain: Option<String>,
    /// Where it stands in its life. Only an active one is served.
    pub status: Status,
    /// What it has booked.
    pub tier: String,
    /// Its lane.
    pub lane: LaneId,
    /// The newest tenant migration that it has.
    pub schema_version: i64,
    pub(crate) limits: Tier,
    pub(crate) slots: Arc<TenantSlots>,
    /// The bind, ready to be sent.
    pub(crate) bind: String,
}

/// The lookup from id or subdomain to tenant.
#[derive(Debug, Clone)]
pub struct Directory {
    cache: Cache<TenantRef, Option<Arc<TenantEntry>>>,
    reader: ReaderDb,
    config: Arc<Config>,
    slots: Arc<Slots>,
}

impl Directory {
    pub(crate) fn new(config: Arc<Config>, reader: ReaderDb) -> Self {
        let cache = Cache::builder()
            .max_capacity(config.directory.max_entries.into())
            .time_to_live(config.directory.ttl)
            .build();
        Self { cache, reader, config, slots: Arc::default() }
    }

    /// Finds a tenant by id. Tombstones are found, tenants of the ready pool are not.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Database`] if the directory can't be read.
    pub async fn find(&self, id: TenantId) -> Result<Option<Arc<TenantEntry>>, Error> {
        self.find_by(TenantRef::Id(id)).await
    }

    /// Finds a tenant by subdomain.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn find_by_subdomain(
        &self,
        subdomain: &Subdomain,
    ) -> Result<Option<Arc<TenantEntry>>, Error> {
        self.find_by(TenantRef::Subdomain(subdomain.clone())).await
    }

    /// Forgets what is known of a tenant: its next request reads it again.
    pub async fn forget(&self, entry: &TenantEntry) {
        self.cache.invalidate(&TenantRef::Id(entry.id)).await;
        if let Some(Ok(subdomain)) = entry.subdomain.as_deref().map(Subdomain::parse_existing) {
            self.cache.invalidate(&TenantRef::Subdomain(subdomain)).await;
        }
    }

    /// Forgets that a new tenant was not there.
    pub async fn learn(&self, tenant: &Tenant) {
        self.forget(&self.entry(tenant)).await;
    }

    async fn find_by(&self, key: TenantRef) -> Result<Option<Arc<TenantEntry>>, Error> {
        let read = async {
            let tenant = find_tenant(&self.reader, &key).await?;
            Ok(tenant.map(|tenant| Arc::new(self.entry(&tenant))))
        };
        self.cache.try_get_with_by_ref(&key, read).await.map_err(Error::Shared)
    }

    fn entry(&self, tenant: &Tenant) -> TenantEntry {
        // A tier that was taken out of the configuration is served like the default one.
        let tiers = &self.config.tiers;
        let limits = tiers.get(&tenant.tier).unwrap_or(&tiers[&self.config.tenants.default_tier]);
        TenantEntry {
            id: tenant.id,
            subdomain: tenant.subdomain.clone(),
            status: tenant.status,
            tier: tenant.tier.clone(),
            lane: tenant.lane,
            schema_version: tenant.schema_version,
            limits: *limits,
            slots: self.slots.of(tenant.id, limits),
            bind: bind::statement(tenant.schema(), limits),
        }
    }
}
