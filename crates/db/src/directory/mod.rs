//! The directory: who a tenant is and where it is served, cached in process.
//!
//! Bounded in entries and in age; an unknown name is cached like a known one. Many askers of one name
//! at once cost one query, and the reader's few connections bound how many run at once. What can't be
//! read is an error, never a default. A change is heard of through [`Directory::follow`].

mod erased;
mod follow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use tokio_postgres::types::PgLsn;

use self::erased::ErasureGate;
use crate::bind;
use crate::config::{Config, Tier};
use crate::direct::ReaderDb;
use crate::error::Error;
use crate::ids::{LaneId, Subdomain, TenantId, TenantRef};
use crate::models::tenants::{Status, Tenant, find_tenant_at};
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
    /// Where the primary's WAL stood when this was read: whatever happened to the tenant before lies
    /// before it. A replica that has not come so far may let in who is shut out here.
    pub(crate) known_at: PgLsn,
}

type Found = Option<Arc<TenantEntry>>;

/// The lookup from id or subdomain to tenant.
#[derive(Debug, Clone)]
pub struct Directory {
    cache: Cache<TenantRef, Found>,
    reader: ReaderDb,
    config: Arc<Config>,
    slots: Arc<Slots>,
    news: Arc<News>,
    gate: Arc<ErasureGate>,
}

/// What is known of changes.
#[derive(Debug, Default)]
struct News {
    /// Whether changes are being heard of.
    heard: AtomicBool,
    /// Goes up with each change, so that a lookup notices one that came meanwhile.
    changes: AtomicU64,
}

/// How long an entry is believed.
struct Age {
    config: Arc<Config>,
    news: Arc<News>,
}

impl Expiry<TenantRef, Found> for Age {
    fn expire_after_create(&self, _: &TenantRef, _: &Found, _: Instant) -> Option<Duration> {
        let ages = &self.config.directory;
        let heard = self.news.heard.load(Ordering::Acquire);
        Some(if heard { ages.ttl } else { ages.unannounced_ttl })
    }
}

impl Directory {
    pub(crate) fn new(config: Arc<Config>, reader: ReaderDb) -> Self {
        let news = Arc::<News>::default();
        let age = Age { config: Arc::clone(&config), news: Arc::clone(&news) };
        let cache = Cache::builder()
            .max_capacity(config.directory.max_entries.into())
            .expire_after(age)
            .build();
        let gate = Arc::new(ErasureGate::new(&config));
        Self { cache, reader, config, slots: Arc::default(), news, gate }
    }

    /// Hears of changes from PostgreSQL and forgets what they concern, until it is dropped: run it in a
    /// task beside whatever serves tenants. Without it entries are believed for
    /// `directory.unannounced_ttl` only.
    ///
    /// While the connection is down, everything counts as changed: nothing is known of what was
    /// missed. It is opened anew until it stands.
    pub async fn follow(&self) {
        follow::forever(self).await;
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
        self.forget_names(Some(entry.id), entry.subdomain.as_deref()).await;
    }

    async fn forget_names(&self, id: Option<TenantId>, subdomains: impl IntoIterator<Item = &str>) {
        self.news.changes.fetch_add(1, Ordering::AcqRel);
        if let Some(id) = id {
            self.cache.invalidate(&TenantRef::Id(id)).await;
        }
        for subdomain in subdomains.into_iter().flat_map(Subdomain::parse_existing) {
            self.cache.invalidate(&TenantRef::Subdomain(subdomain)).await;
        }
    }

    /// Forgets everything. What is cached from now on is believed for long only if changes are heard.
    /// Yields whether they were heard before.
    fn forget_all(&self, heard: bool) -> bool {
        let before = self.news.heard.swap(heard, Ordering::AcqRel);
        self.gate.shut();
        self.news.changes.fetch_add(1, Ordering::AcqRel);
        self.cache.invalidate_all();
        before
    }

    /// Whether changes are being heard of at the moment.
    pub fn is_following(&self) -> bool {
        self.news.heard.load(Ordering::Acquire)
    }

    /// Where the tenant is now, after its bind was refused and so nothing ran. It may be the same lane
    /// again, after a tenant went there and back: whoever is refused a second time has found a fault.
    ///
    /// # Errors
    /// [`Error::TenantNotServed`] or [`Error::TenantNotFound`].
    pub(crate) async fn find_after_refusal(
        &self,
        entry: &TenantEntry,
    ) -> Result<Arc<TenantEntry>, Error> {
        self.forget(entry).await;
        let now = self.find(entry.id).await?;
        let now = now.ok_or(Error::TenantNotFound(TenantRef::Id(entry.id)))?;
        match now.status {
            Status::Active => Ok(now),
            status => Err(Error::TenantNotServed { tenant: now.id, status }),
        }
    }

    /// Forgets that a new tenant was not there.
    pub async fn learn(&self, tenant: &Tenant) {
        self.forget_names(Some(tenant.id), tenant.subdomain.as_deref()).await;
    }

    async fn find_by(&self, key: TenantRef) -> Result<Option<Arc<TenantEntry>>, Error> {
        let read = async {
            self.gate.pass(&self.reader).await?;
            let found = find_tenant_at(&self.reader, &key).await?;
            Ok(found.map(|(tenant, at)| Arc::new(self.entry(&tenant, at))))
        };
        let before = self.news.changes.load(Ordering::Acquire);
        let found = self.cache.try_get_with_by_ref(&key, read).await.map_err(Error::Shared);
        // What was read before a change may have been cached after it.
        if self.news.changes.load(Ordering::Acquire) != before {
            self.cache.invalidate(&key).await;
        }
        found
    }

    /// Nobody of this database was erased before, as far as the erasure ledger says.
    pub(crate) async fn require_erased_stay_erased(&self) -> Result<(), Error> {
        self.gate.pass(&self.reader).await
    }

    fn entry(&self, tenant: &Tenant, known_at: PgLsn) -> TenantEntry {
        let limits = self.config.tier(&tenant.tier);
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
            known_at,
        }
    }
}
