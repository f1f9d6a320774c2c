//! The ready pool: tenants provisioned ahead of time, so that a sign-up takes one and waits for nothing.
//!
//! Filled in batches, each in one transaction: every role that is made flushes the membership caches of
//! all backends, once per transaction. One batch a second at most, by one instance at a time; nobody
//! waits in PostgreSQL for his turn. Claiming is in [`create_tenant`](super::create_tenant).

use std::time::Duration;

use super::create::create_tenant_schema;
use crate::background;
use crate::direct::begin;
use crate::error::{Doing, Error};
use crate::ids::{LaneId, TenantId};
use crate::installation::Installation;
use crate::migrate;
use crate::models::ready;

/// How many are made in one transaction: about 60 locks and 50 ms each.
const BATCH: i64 = 5;

/// How often a service looks whether something is missing, and so how often it makes a batch.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps the pool at `tenants.ready_pool` until `stop` is done. Ends at once if that is 0.
pub async fn keep_ready_pool(installation: Installation, stop: impl Future<Output = ()>) {
    if installation.config().tenants.ready_pool == 0 {
        return;
    }
    let fill = || {
        let installation = installation.clone();
        async move { fill_ready_pool(&installation).await.map(drop) }
    };
    background::repeat("fill the ready pool", EVERY, stop, fill).await;
}

/// Makes the pool's next batch. Yields how many it has made: none if the pool is full, or if somebody
/// else is filling it.
///
/// Cancel-safe: a dropped call has made a whole batch or nothing.
///
/// # Errors
/// [`Error::Behind`] if the public schema lacks a migration of its set; [`Error::Migration`] where a file
/// of the tenant set fails.
pub async fn fill_ready_pool(installation: &Installation) -> Result<u16, Error> {
    let (admin, migrations) = (installation.admin(), installation.migrations());
    let (target, set) = (installation.config().tenants.ready_pool, &migrations.tenant);
    if target == 0 {
        return Ok(0);
    }
    let mut db = admin.connection().await?;
    match ready::count(&**db, set).await {
        Ok(stock) if stock.missing(target) == 0 => return Ok(0),
        Ok(_) => {}
        Err(error) if error.is_missing_relation() => {
            migrate::require_public_head(&**db, &migrations.public).await?;
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    let tx = begin(&mut db).await?;
    if !ready::lock_filling(&tx, &admin.roles.to_string()).await? {
        return Ok(0);
    }
    // Again: only under the lock nobody else changes it.
    let missing = ready::count(&tx, set).await?.missing(target).min(BATCH);
    if missing == 0 {
        return Ok(0);
    }
    migrate::require_public_head(&tx, &migrations.public).await?;
    let batch: Vec<(TenantId, LaneId)> = (0..missing)
        .map(|_| TenantId::random())
        .map(|id| (id, installation.config().lanes.for_new_tenant(id)))
        .collect();
    ready::insert(&tx, &batch, set.head()).await?;
    for (tenant, lane) in &batch {
        create_tenant_schema(&tx, admin, set, *tenant, *lane).await?;
    }
    tx.commit().await.doing("commit tenants of the ready pool")?;
    let made = batch.len();
    tracing::info!(made, "tenants made ready");
    Ok(u16::try_from(made).unwrap_or(u16::MAX))
}
