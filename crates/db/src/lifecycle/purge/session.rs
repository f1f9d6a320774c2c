//! The one session that purges a tenant: it holds a lock on the tenant's purge, and all of the purge's
//! transactions are its own. If it ends, the lock is free and none of them goes on: a tenant is never
//! purged twice at once.

use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::purges::{self, Step};
use crate::models::tenants::{self, Status};

pub(super) struct PurgeSession<'a> {
    pub(super) client: Client,
    pub(super) admin: &'a AdminDb,
    pub(super) tenant: TenantId,
    /// How far the purge had come before this session.
    pub(super) reached: Option<Step>,
}

impl<'a> PurgeSession<'a> {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody else is at it.
    pub(super) async fn open(admin: &'a AdminDb, tenant: TenantId) -> Result<Self, Error> {
        Ok(Self { client: take_alone(admin, tenant).await?, admin, tenant, reached: None })
    }

    /// As [`open`](Self::open), but none at once if somebody else is at it.
    pub(super) async fn try_open(
        admin: &'a AdminDb,
        tenant: TenantId,
    ) -> Result<Option<Self>, Error> {
        let client = try_alone(admin, tenant).await?;
        Ok(client.map(|client| Self { client, admin, tenant, reached: None }))
    }

    /// A transaction that waits for nobody for long.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        let limit =
            format!("SET LOCAL lock_timeout = {}", self.admin.limits.lock_timeout.as_millis());
        let tx = self.client.transaction().await.doing("begin a transaction")?;
        tx.batch_execute(&limit).await.doing("set a lock timeout")?;
        Ok(tx)
    }

    /// One that may drop something: the tenant's purge has begun, and the ledger knows.
    pub(super) async fn begin_dropping(&mut self) -> Result<Transaction<'_>, Error> {
        let tenant = self.tenant;
        let tx = self.begin().await?;
        let row = tenants::lock(&tx, tenant).await?;
        if row.status != Status::Purging {
            return Err(Error::InvalidState { tenant, status: row.status, step: "purged" });
        }
        let purge = purges::find(&tx, tenant).await?;
        if purge.and_then(|purge| purge.ledger).is_none() {
            return Err(Error::Busy(format!("the purge of tenant `{tenant}`")));
        }
        Ok(tx)
    }

    /// The tenant's schemas, as parameters of the statements that look for them: the name, and what the
    /// names of copies begin with.
    pub(super) fn names(&self) -> (String, String) {
        names(self.tenant)
    }

    /// Notes why it stopped, in words without values. A session that is gone can't.
    pub(super) async fn record_failure(&self, error: &Error) {
        let text = error.to_string();
        let noted = purges::set_failed(&self.client, self.tenant, &text).await;
        if let Err(unnoted) = noted {
            tracing::debug!(tenant.id = %self.tenant, %unnoted, "can't note why the purge stopped");
        }
    }
}

/// A session of its own that holds the tenant's lock: whoever takes a tenant's schemas away, or puts others in
/// their place, does it alone. The server may still be at what a process began that was killed, so it tries
/// for a few seconds; it never waits inside PostgreSQL.
///
/// # Errors
/// [`Error::Busy`] if somebody else is at it.
pub(in crate::lifecycle) async fn take_alone(
    admin: &AdminDb,
    tenant: TenantId,
) -> Result<Client, Error> {
    const TRIES: u32 = 30;
    const PAUSE: Duration = Duration::from_millis(100);
    let client = admin.session().await?;
    for _ in 0..TRIES {
        if try_lock(&client, admin, tenant).await? {
            return Ok(client);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::Busy(format!("tenant `{tenant}`")))
}

/// As [`take_alone`], but none at once if somebody else is at it.
pub(in crate::lifecycle) async fn try_alone(
    admin: &AdminDb,
    tenant: TenantId,
) -> Result<Option<Client>, Error> {
    let client = admin.session().await?;
    Ok(try_lock(&client, admin, tenant).await?.then_some(client))
}

async fn try_lock(client: &Client, admin: &AdminDb, tenant: TenantId) -> Result<bool, Error> {
    let key = format!("{}:purge:{tenant}", admin.roles);
    let row = client
        .query_typed_one(
            "SELECT pg_try_advisory_lock(hashtextextended($1, 0))",
            &[(&key, Type::TEXT)],
        )
        .await
        .doing("lock the tenant's purge")?;
    Ok(row.get(0))
}

pub(super) fn names(tenant: TenantId) -> (String, String) {
    let schema = tenant.schema().to_string();
    let copies = format!("{schema}__");
    (schema, copies)
}
