//! Deleting a tenant so that it can be restored, restoring it, and the hold that keeps it from being
//! purged.
//!
//! As a suspension, a deletion takes effect in the database, in the transaction that records it. Refuses
//! what does not name the tenant's subdomain: whoever deletes must know whom.

use std::time::Duration;

use serde_json::json;

use super::suspend::limit_waiting;
use super::{ErasureError, access};
use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::audit::{self, Action, Actor};
use crate::models::deletion;
use crate::models::tenants::{self, Status, Tenant};
use crate::operate::end_sessions;

/// How to delete.
#[derive(Debug, Clone, Copy)]
pub struct Deletion<'a> {
    /// The tenant's subdomain, as whoever deletes it gave it.
    pub confirm: Option<&'a str>,
    /// How long it can be restored. Else as its tier or the configuration says.
    pub retention: Option<Duration>,
}

/// Shuts a tenant out and lets its retention begin. When it returns, nothing that the tenant began can
/// still commit: it waits for older transactions of the tenant's lane, and ends those that take longer
/// than `lanes.settle_timeout`.
///
/// For one that is deleted already, changes nothing but the retention, where one is given; that counts
/// from the deletion. A legal hold stands against purging, not against this.
/// Cancel-safe: a dropped call did all of it or nothing, or did not wait.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`ErasureError::ConfirmationRequired`]; [`Error::InvalidState`] once its
/// purge has begun; [`Error::StillReachable`] if somebody keeps access by a grant that is not
/// Tenantry's: then nothing was changed. [`Error::Busy`] if a transaction would not end: the tenant is
/// deleted all the same, and the same call waits again.
pub async fn delete_tenant(
    admin: &AdminDb,
    config: &Config,
    tenant: TenantId,
    how: Deletion<'_>,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    let mut row = tenants::lock_taken(&tx, tenant).await?;
    let before = row.status;
    match before {
        Status::Active | Status::Suspended | Status::Deleted => {}
        Status::Ready | Status::Purging | Status::Purged => {
            return Err(Error::InvalidState { tenant, status: before, step: "deleted" });
        }
    }
    require_confirmation(&row, how.confirm)?;
    if before != Status::Deleted || how.retention.is_some() {
        let retention = how.retention.unwrap_or_else(|| config.retention(&row.tier));
        row = deletion::set_deleted(&tx, tenant, retention).await?;
        let details = json!({ "retention_s": retention.as_secs() });
        audit::record(&tx, actor, Action::Deleted, tenant, &details).await?;
    }
    let mut out = access::shut_out(&tx, &admin.roles, tenant).await?;
    tx.commit().await.doing("commit the deletion")?;
    end_sessions(&**db, &out.shells).await?;
    drop(db);
    tracing::info!(tenant.id = %tenant, "tenant deleted");
    out.lanes.push(row.lane);
    let ended = access::settle(admin, &out.lanes).await?;
    if ended > 0 {
        tracing::warn!(tenant.id = %tenant, lane = %row.lane, ended, "transactions ended");
    }
    Ok(row)
}

/// Brings a deleted tenant back, to what it was: one that was suspended is suspended. One that is not
/// deleted stays as it is.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::InvalidState`] once its purge has begun.
pub async fn restore_tenant(
    admin: &AdminDb,
    tenant: TenantId,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    let row = tenants::lock_taken(&tx, tenant).await?;
    match row.status {
        Status::Deleted => {}
        Status::Active | Status::Suspended => return Ok(row),
        status @ (Status::Ready | Status::Purging | Status::Purged) => {
            return Err(Error::InvalidState { tenant, status, step: "restored" });
        }
    }
    let row = deletion::set_restored(&tx, tenant).await?;
    if row.status == Status::Active {
        access::grant(&tx, &admin.roles, tenant, row.lane).await?;
    }
    audit::record(&tx, actor, Action::Restored, tenant, &json!({})).await?;
    tx.commit().await.doing("commit the restoration")?;
    tracing::info!(tenant.id = %tenant, "tenant restored");
    Ok(row)
}

/// Sets or lifts a legal hold. While it stands, no purge begins, whoever asks for one. Where it is as
/// wanted, changes nothing.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::InvalidState`] once its purge has begun.
pub async fn hold_tenant(
    admin: &AdminDb,
    tenant: TenantId,
    held: bool,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    let row = tenants::lock_taken(&tx, tenant).await?;
    match row.status {
        Status::Active | Status::Suspended | Status::Deleted => {}
        status @ (Status::Ready | Status::Purging | Status::Purged) => {
            let step = if held { "held" } else { "released from a hold" };
            return Err(Error::InvalidState { tenant, status, step });
        }
    }
    if row.legal_hold == held {
        return Ok(row);
    }
    let row = deletion::set_legal_hold(&tx, tenant, held).await?;
    let action = if held { Action::Held } else { Action::Unheld };
    audit::record(&tx, actor, action, tenant, &json!({})).await?;
    tx.commit().await.doing("commit the legal hold")?;
    tracing::info!(tenant.id = %tenant, held, "legal hold changed");
    Ok(row)
}

/// Whoever does what can't be undone names the tenant once more, in other words than its id.
pub(super) fn require_confirmation(row: &Tenant, confirm: Option<&str>) -> Result<(), Error> {
    match (row.subdomain.as_deref(), confirm) {
        (Some(subdomain), Some(confirm)) if subdomain == confirm => Ok(()),
        _ => Err(ErasureError::ConfirmationRequired(row.id).into()),
    }
}
