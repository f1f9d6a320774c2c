//! Shutting a tenant out and letting it in again.
//!
//! It takes effect in the database, in the transaction that records it: afterwards no lane can bind the
//! tenant, whatever a process still has cached.

use serde_json::json;

use super::access;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::{self, Status, Tenant};
use crate::operate::end_sessions;

/// Shuts a tenant out. Transactions that were already bound may still commit; operators' shells are ended.
///
/// For one that is suspended already, makes sure that it is shut out, and records nothing.
/// Cancel-safe: a dropped call did all of it or nothing.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::InvalidState`] for one that is deleted;
/// [`Error::StillReachable`] if somebody keeps access by a grant that is not Tenantry's: then nothing
/// was changed.
pub async fn suspend_tenant(
    admin: &AdminDb,
    tenant: TenantId,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    let mut row = tenants::lock_taken(&tx, tenant).await?;
    let before = row.status;
    match before {
        Status::Active => row = tenants::set_suspended(&tx, tenant, true).await?,
        Status::Suspended => {}
        Status::Ready | Status::Deleted | Status::Purging | Status::Purged => {
            return Err(Error::InvalidState { tenant, status: before, step: "suspended" });
        }
    }
    if before == Status::Active {
        audit::record(&tx, actor, Action::Suspended, tenant, &json!({})).await?;
    }
    let out = access::shut_out(&tx, &admin.roles, tenant).await?;
    tx.commit().await.doing("commit the suspension")?;
    end_sessions(&**db, &out.shells).await?;
    tracing::info!(tenant.id = %tenant, "tenant suspended");
    Ok(row)
}

/// As [`suspend_tenant`]; then waits for the lane's older transactions, and ends those that take longer
/// than `lanes.settle_timeout`. When it returns, nothing that the tenant began can still commit.
/// Yields how many were ended.
///
/// # Errors
/// As [`suspend_tenant`]; [`Error::Busy`] if a transaction would not end: the tenant is suspended all
/// the same.
pub async fn suspend_tenant_now(
    admin: &AdminDb,
    tenant: TenantId,
    actor: &Actor,
) -> Result<(Tenant, usize), Error> {
    let row = suspend_tenant(admin, tenant, actor).await?;
    let ended = access::settle(admin, &[row.lane]).await?;
    if ended > 0 {
        tracing::warn!(tenant.id = %tenant, lane = %row.lane, ended, "transactions ended");
    }
    Ok((row, ended))
}

/// Lets a suspended tenant in again. For one that is active, changes nothing.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::InvalidState`] for one that is deleted.
pub async fn resume_tenant(
    admin: &AdminDb,
    tenant: TenantId,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    let row = tenants::lock_taken(&tx, tenant).await?;
    match row.status {
        Status::Active => return Ok(row),
        Status::Suspended => {}
        status => return Err(Error::InvalidState { tenant, status, step: "resumed" }),
    }
    let row = tenants::set_suspended(&tx, tenant, false).await?;
    access::grant(&tx, &admin.roles, tenant, row.lane).await?;
    audit::record(&tx, actor, Action::Resumed, tenant, &json!({})).await?;
    tx.commit().await.doing("commit the resumption")?;
    tracing::info!(tenant.id = %tenant, "tenant resumed");
    Ok(row)
}

/// Somebody else may have the tenant's row for long, a migration for instance.
pub(crate) async fn limit_waiting(
    tx: &tokio_postgres::Transaction<'_>,
    admin: &AdminDb,
) -> Result<(), Error> {
    let limit = format!("SET LOCAL lock_timeout = {}", admin.limits.lock_timeout.as_millis());
    tx.batch_execute(&limit).await.doing("set a lock timeout")
}
