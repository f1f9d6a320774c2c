//! Moving tenants between lanes while they are served.
//!
//! Only memberships move. A tenant belongs to both lanes for a while: the new one is given, requests
//! go there as each process hears of it, what is under way on the old one ends, then the old one is
//! taken away. A process that has not heard is refused by PostgreSQL, looks again and follows.

use std::collections::BTreeSet;

use serde_json::json;

use super::access;
use super::suspend::limit_waiting;
use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{LaneId, TenantId};
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::{self, Status};

/// What a resize did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocated {
    /// Tenants that were moved.
    pub moved: usize,
    /// Transactions that took longer than `lanes.settle_timeout` and were ended.
    pub ended: usize,
}

/// Spreads all tenants over `count` lanes, one after another, and calls `progress` with the number of
/// tenants looked at and of all.
///
/// Run again after an interruption, it finishes. It changes no configuration: set `lanes.count` for
/// new tenants.
///
/// # Errors
/// [`Error::Config`] if so many lanes break a rule of the configuration; [`Error::Busy`] where a
/// tenant's row is held, by a migration for instance.
pub async fn resize_lanes(
    admin: &AdminDb,
    config: &Config,
    count: u8,
    actor: &Actor,
    mut progress: impl FnMut(usize, usize),
) -> Result<Relocated, Error> {
    config.lanes.resized(count, &config.tiers)?;
    let mut db = admin.connection().await?;
    let all = tenants::lanes_of_all(&**db).await?;
    let (mut moved, mut left) = (0, BTreeSet::new());
    for (done, (tenant, lane)) in all.iter().enumerate() {
        progress(done, all.len());
        if *lane != LaneId::spread(*tenant, count) {
            left.extend(move_tenant(admin, *tenant, count, actor).await?);
            moved += 1;
        }
    }
    let left: Vec<LaneId> = left.into_iter().collect();
    let ended = if left.is_empty() { 0 } else { access::settle(admin, &left).await? };
    // From the catalog, so that what an interrupted run left is found, too.
    for tenant in access::list_served_twice(&**db, &admin.roles).await? {
        let tx = begin(&mut db).await?;
        limit_waiting(&tx, admin).await?;
        let row = tenants::lock(&tx, tenant).await?;
        access::revoke(&tx, &admin.roles, tenant, Some(row.lane)).await?;
        tx.commit().await.doing("commit the move")?;
    }
    let tx = begin(&mut db).await?;
    let details = json!({ "lanes": count, "moved": moved, "transactions_ended": ended });
    audit::record_of_installation(&tx, actor, Action::LanesResized, &details).await?;
    tx.commit().await.doing("record the number of lanes")?;
    progress(all.len(), all.len());
    Ok(Relocated { moved, ended })
}

/// Gives the tenant to its new lane too, and sends it there. Yields the lane that it leaves.
async fn move_tenant(
    admin: &AdminDb,
    tenant: TenantId,
    count: u8,
    actor: &Actor,
) -> Result<Option<LaneId>, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    let row = tenants::lock(&tx, tenant).await?;
    let (from, to) = (row.lane, LaneId::spread(tenant, count));
    // One that is shut out gets its lane when it is let in again.
    if matches!(row.status, Status::Ready | Status::Active) {
        access::grant(&tx, &admin.roles, tenant, to).await?;
    }
    tenants::set_lane(&tx, tenant, to).await?;
    let details = json!({ "from": from, "to": to });
    audit::record(&tx, actor, Action::Moved, tenant, &details).await?;
    tx.commit().await.doing("commit the move")?;
    tracing::debug!(tenant.id = %tenant, %from, %to, "tenant moved");
    Ok((from != to).then_some(from))
}
