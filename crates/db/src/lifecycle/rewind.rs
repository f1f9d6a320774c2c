//! What was decided after the moment that a server was taken back to, and deciding it again.
//!
//! Compares how tenants stand in the state that is given up with how they stand in the one that was restored.
//! Owns which differences shut somebody out. Refuses to undo anything: a tenant that was let in again after
//! the moment stays out until somebody says so. Purges are the erasure ledger's business.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Deletion, delete_tenant, hold_tenant, suspend_tenant};
use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::Status;

/// How a tenant stands in one state of the database.
#[derive(Debug, Clone)]
pub struct StandingTenant {
    id: TenantId,
    subdomain: Option<String>,
    status: Status,
    legal_hold: bool,
    purge_after: Option<Timestamp>,
    /// The last entry about its life.
    decided: Option<(Timestamp, String)>,
}

/// Something that was decided about a tenant and that a restored server does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostDecision {
    /// The tenant.
    pub tenant: TenantId,
    /// Its subdomain, as it was last.
    pub subdomain: Option<String>,
    /// What was decided: `created`, `suspended`, `deleted` or `held`.
    pub decision: &'static str,
    /// When the tenant's life was last decided about, as the audit log says.
    pub at: Option<Timestamp>,
    /// By whom.
    pub by: Option<String>,
    /// Until when a deleted one was to be restorable.
    pub purge_after: Option<Timestamp>,
}

/// How all tenants stand.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn list_standings(admin: &AdminDb) -> Result<Vec<StandingTenant>, Error> {
    let db = admin.connection().await?;
    let doing = "list how the tenants stand";
    let rows = db
        .query_typed(
            "SELECT t.id, t.subdomain, t.status, t.legal_hold, t.purge_after, a.recorded_at, a.actor
             FROM public.tenants t
             LEFT JOIN LATERAL (
                 SELECT l.recorded_at, l.actor FROM public.audit_log l
                 WHERE l.tenant_id = t.id
                   AND l.action IN ('tenant.created', 'tenant.suspended', 'tenant.deleted', 'tenant.held')
                 ORDER BY l.recorded_at DESC, l.id DESC LIMIT 1
             ) a ON true
             WHERE t.status <> 'ready'
             ORDER BY t.id",
            &[],
        )
        .await
        .doing(doing)?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let decided: (Option<Timestamp>, Option<String>) = (row.get(5), row.get(6));
        all.push(StandingTenant {
            id: row.get::<_, Uuid>(0).into(),
            subdomain: row.get(1),
            // As everywhere: a newer program's status counts as shut out.
            status: row.try_get::<_, &str>(2).doing(doing)?.parse().unwrap_or(Status::Purging),
            legal_hold: row.get(3),
            purge_after: row.get(4),
            decided: decided.0.zip(decided.1),
        });
    }
    Ok(all)
}

/// What the state that is given up knows and the restored one does not, oldest first.
pub fn lost_decisions(
    given_up: &[StandingTenant],
    restored: &[StandingTenant],
) -> Vec<LostDecision> {
    let restored: HashMap<TenantId, &StandingTenant> =
        restored.iter().map(|tenant| (tenant.id, tenant)).collect();
    let mut lost = Vec::new();
    for later in given_up {
        let now = restored.get(&later.id).copied();
        for decision in decisions(later, now) {
            let (at, by) = later.decided.clone().unzip();
            lost.push(LostDecision {
                tenant: later.id,
                subdomain: later.subdomain.clone(),
                decision,
                at,
                by,
                purge_after: later.purge_after.filter(|_| decision == "deleted"),
            });
        }
    }
    lost.sort_by_key(|decision| decision.at);
    lost
}

fn decisions(later: &StandingTenant, now: Option<&StandingTenant>) -> Vec<&'static str> {
    let Some(now) = now else {
        // Whom the ledger names is no loss.
        let is_gone = matches!(later.status, Status::Purging | Status::Purged);
        return if is_gone { Vec::new() } else { vec!["created"] };
    };
    let mut found = Vec::new();
    match (later.status, now.status) {
        // One that was deleted then, and suspended now, was restored in between and shut out again.
        (Status::Suspended, Status::Active) => found.push("suspended"),
        (Status::Deleted, Status::Active | Status::Suspended) => found.push("deleted"),
        _ => {}
    }
    if later.legal_hold && !now.legal_hold {
        found.push("held");
    }
    found
}

/// Decides it again, in the restored state. One that was created later can't be: it is not there.
///
/// # Errors
/// Those of suspending, deleting and holding.
pub async fn decide_again(
    admin: &AdminDb,
    config: &Config,
    lost: &LostDecision,
    actor: &Actor,
) -> Result<bool, Error> {
    match lost.decision {
        "suspended" => drop(suspend_tenant(admin, lost.tenant, actor).await?),
        "held" => drop(hold_tenant(admin, lost.tenant, true, actor).await?),
        "deleted" => {
            let retention = lost.purge_after.map(|until| {
                Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default()
            });
            let subdomain = subdomain_of(admin, lost.tenant).await?;
            let how = Deletion { confirm: subdomain.as_deref(), retention };
            drop(delete_tenant(admin, config, lost.tenant, how, actor).await?);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// It may have had another one then.
async fn subdomain_of(admin: &AdminDb, tenant: TenantId) -> Result<Option<String>, Error> {
    let db = admin.connection().await?;
    let row = db
        .query_typed_opt(
            "SELECT subdomain FROM public.tenants WHERE id = $1",
            &[(tenant.as_uuid(), tokio_postgres::types::Type::UUID)],
        )
        .await
        .doing("look up a tenant's subdomain")?;
    Ok(row.and_then(|row| row.get(0)))
}

/// Writes into the audit log that the whole server was taken back.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn record_rewind(admin: &AdminDb, actor: &Actor, details: &Value) -> Result<(), Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    audit::record_of_installation(&tx, actor, Action::Rewound, details).await?;
    tx.commit().await.doing("commit the audit entry")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: u128, status: Status, legal_hold: bool) -> StandingTenant {
        let id = Uuid::from_u128(n).into();
        let (subdomain, purge_after) = (Some(format!("t{n}")), None);
        StandingTenant { id, subdomain, status, legal_hold, purge_after, decided: None }
    }

    #[test]
    fn what_shut_somebody_out_is_named_and_nothing_that_let_somebody_in() {
        use Status::{Active, Deleted, Purged, Suspended};
        let before = [
            tenant(1, Active, false),
            tenant(2, Active, true),
            tenant(3, Suspended, false),
            tenant(4, Suspended, false),
            tenant(6, Deleted, false),
            tenant(7, Active, false),
        ];
        let after = [
            tenant(1, Suspended, true),
            tenant(2, Active, false),
            tenant(3, Deleted, false),
            tenant(4, Active, false),
            tenant(5, Active, false),
            tenant(6, Active, false),
            tenant(7, Purged, false),
            tenant(8, Purged, false),
        ];
        let lost = lost_decisions(&after, &before);
        let shown: Vec<_> =
            lost.iter().map(|it| (it.subdomain.as_deref().unwrap(), it.decision)).collect();
        assert_eq!(
            shown,
            [("t1", "suspended"), ("t1", "held"), ("t3", "deleted"), ("t5", "created")]
        );
        assert_eq!(lost_decisions(&before, &before), []);
    }
}
