//! The decision: the status, then the entry in the erasure ledger. Nothing is dropped before both.
//!
//! The status comes first. A tenant with an entry in the ledger can't be restored, so an entry never
//! names one that lives. If the entry can't be written, the status is taken back.

use jiff::Timestamp;
use serde_json::json;

use super::ErasureLedger;
use super::ledger::Recorded;
use super::session::PurgeSession;
use crate::error::{Doing, Error};
use crate::lifecycle::ErasureError;
use crate::lifecycle::delete::require_confirmation;
use crate::models::audit::{self, Action, Actor};
use crate::models::deletion;
use crate::models::purges::{self, Ground, Step};
use crate::models::tenants::{self, Status, Tenant};

/// By what right a purge begins.
#[derive(Debug, Clone, Copy)]
pub enum Authority<'a> {
    /// Somebody wants it, and named the tenant's subdomain.
    Confirmed {
        /// The subdomain, as it was given.
        confirm: Option<&'a str>,
        /// Also before the retention is over.
        now: bool,
    },
    /// The retention is over.
    Due {
        /// What the clock of this machine says. A tenant is due when this and the server's clock say so.
        host_now: Timestamp,
    },
}

pub(super) async fn begin(
    session: &mut PurgeSession<'_>,
    ledger: &ErasureLedger,
    authority: Authority<'_>,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let tenant = session.tenant;
    let tx = session.begin().await?;
    let mut row = tenants::lock_taken(&tx, tenant).await?;
    match row.status {
        Status::Deleted => {}
        Status::Purging => {
            if let Authority::Confirmed { confirm, .. } = authority {
                require_confirmation(&row, confirm)?;
            }
            return Ok(row);
        }
        status @ (Status::Ready | Status::Active | Status::Suspended | Status::Purged) => {
            return Err(Error::InvalidState { tenant, status, step: "purged" });
        }
    }
    let (host_now, ground) = match authority {
        Authority::Confirmed { confirm, now } => {
            require_confirmation(&row, confirm)?;
            (Timestamp::now(), if now { Ground::RequestedNow } else { Ground::Requested })
        }
        Authority::Due { host_now } => (host_now, Ground::RetentionOver),
    };
    let now = ground == Ground::RequestedNow;
    if row.legal_hold {
        return Err(Error::LegalHold(tenant));
    }
    if !now && !deletion::is_due(&tx, tenant, host_now).await? {
        return Err(ErasureError::NotDue { tenant, purge_after: row.purge_after }.into());
    }
    // Locked until the entry is there. What can't be opened changes nothing.
    let open = ledger.open().await?;
    open.require(purges::newest_in_ledger(&tx).await?)?;
    row = deletion::set_purging(&tx, tenant, true).await?;
    purges::begin(&tx, tenant, actor, ground).await?;
    audit::record(&tx, actor, Action::PurgeBegun, tenant, &json!({ "now": now })).await?;
    tx.commit().await.doing("commit the beginning of the purge")?;
    tracing::info!(tenant.id = %tenant, "purge begun");
    match open.record(tenant).await {
        Ok(entry) => remember(session, entry).await.map(|()| row),
        Err(error) => {
            withdraw(session, actor).await?;
            Err(error)
        }
    }
}

/// Makes sure that the entry is there, also of a purge that was killed before it wrote one, and that the
/// ledger is still the one that it was written to. Yields how far the purge came.
pub(super) async fn require_entry(
    session: &mut PurgeSession<'_>,
    ledger: &ErasureLedger,
    actor: &Actor,
) -> Result<Step, Error> {
    let tenant = session.tenant;
    let tx = session.begin().await?;
    let row = tenants::lock(&tx, tenant).await?;
    if row.status != Status::Purging {
        return Err(Error::InvalidState { tenant, status: row.status, step: "purged" });
    }
    let open = ledger.open().await?;
    open.require(purges::newest_in_ledger(&tx).await?)?;
    // Somebody set the status by hand: then the purge begins here.
    purges::begin(&tx, tenant, actor, Ground::Unknown).await?;
    let reached = purges::find(&tx, tenant).await?.map_or(Step::Begun, |purge| purge.step);
    tx.commit().await.doing("look how far the purge came")?;
    let entry = open.record(tenant).await?;
    remember(session, entry).await?;
    // The entry's step is recorded with it.
    Ok(reached.max(Step::Recorded))
}

async fn remember(session: &PurgeSession<'_>, entry: Recorded) -> Result<(), Error> {
    purges::set_ledger_entry(&session.client, session.tenant, entry.sequence, &entry.hash).await
}

/// The tenant can be restored again, as if nobody had asked.
async fn withdraw(session: &mut PurgeSession<'_>, actor: &Actor) -> Result<(), Error> {
    let tenant = session.tenant;
    let tx = session.begin().await?;
    let row = tenants::lock(&tx, tenant).await?;
    if row.status == Status::Purging && purges::withdraw(&tx, tenant).await? == 1 {
        deletion::set_purging(&tx, tenant, false).await?;
        audit::record(&tx, actor, Action::PurgeWithdrawn, tenant, &json!({})).await?;
    }
    tx.commit().await.doing("take the beginning of the purge back")
}
