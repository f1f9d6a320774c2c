//! After a restore: erasing again whom the erasure ledger names.
//!
//! A database that was taken back to last week has those again who were purged since. For each entry of the
//! ledger whose tenant is there in any state, or of whom anything is left, the purge runs again. Nothing is
//! asked any more: neither the status, nor a retention, nor a legal hold, since all of that was decided when
//! the entry was written, and a hold that is newer than the erasure had nothing left to hold. Adds no entry to
//! the ledger. Refuses a ledger that is damaged or lacks what the database knows of.

use serde::Serialize;
use serde_json::json;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::due::concerns_all;
use super::session::PurgeSession;
use super::{ErasureLedger, PurgeProgress, go_on};
use crate::direct::{AdminDb, ReaderDb};
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::ErasureError;
use crate::models::audit::{self, Action, Actor};
use crate::models::deletion;
use crate::models::purges::{self, Ground};
use crate::models::tenants::{self, Status};

/// What re-applying the ledger did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reapplied {
    /// Entries of the ledger.
    pub entries: usize,
    /// Of these, tenants that the database does not have, or that are purged, with nothing left.
    pub nothing_to_do: usize,
    /// Those that were purged again.
    pub purged: Vec<TenantId>,
    /// Those that were not, each with why. Nobody may be served before these are gone.
    pub failed: Vec<(TenantId, String)>,
}

/// Purges again whom the ledger names and this database has. Stopped or killed anywhere, it is called again
/// and does the rest; called once more after that, it does nothing.
///
/// # Errors
/// What concerns all of them: the ledger, the server. What concerns one tenant stands in the report.
pub async fn reapply_ledger(
    admin: &AdminDb,
    ledger: &ErasureLedger,
    actor: &Actor,
    mut progress: impl FnMut(TenantId, &PurgeProgress) + Send,
) -> Result<Reapplied, Error> {
    require_ledger_complete(admin, ledger).await?;
    let db = admin.connection().await?;
    let erased: Vec<(TenantId, i64)> =
        ledger.entries()?.into_iter().map(|entry| (entry.tenant_id, entry.sequence)).collect();
    let there = list_there(&**db, &erased, THERE).await?;
    drop(db);
    let mut report = Reapplied {
        entries: erased.len(),
        nothing_to_do: erased.len() - there.len(),
        ..Reapplied::default()
    };
    for (tenant, sequence) in erased.into_iter().filter(|(tenant, _)| there.contains(tenant)) {
        let progress = &mut |step: &PurgeProgress| progress(tenant, step);
        match purge_again(admin, ledger, tenant, sequence, actor, progress).await {
            Ok(()) => report.purged.push(tenant),
            Err(error) if concerns_all(&error) => return Err(error),
            Err(error) => report.failed.push((tenant, error.to_string())),
        }
    }
    Ok(report)
}

/// Refuses a ledger that is damaged, or lacks what this database knows to have been erased: it is another file,
/// or was lost or cut.
///
/// # Errors
/// [`ErasureError::LedgerIncomplete`], [`ErasureError::LedgerDamaged`]; others if either can't be read.
pub async fn require_ledger_complete(admin: &AdminDb, ledger: &ErasureLedger) -> Result<(), Error> {
    ledger.check(&**admin.connection().await?).await
}

/// Whether this database has tenants that the ledger says were erased, and who are not being purged: then
/// nobody may be served from it. One read of the file, one query.
///
/// # Errors
/// [`ErasureError::ErasedBefore`] with who they are; others if the ledger or the database can't be read.
pub async fn require_erased_stay_erased(
    reader: &ReaderDb,
    ledger: &ErasureLedger,
) -> Result<(), Error> {
    let erased: Vec<(TenantId, i64)> =
        ledger.entries()?.into_iter().map(|entry| (entry.tenant_id, entry.sequence)).collect();
    if erased.is_empty() {
        return Ok(());
    }
    let back = list_there(&**reader.connection().await?, &erased, SERVABLE).await?;
    if back.is_empty() { Ok(()) } else { Err(ErasureError::ErasedBefore(back).into()) }
}

/// In any state but gone. A name of a schema or a role is one, too, whatever the row says.
const THERE: &str = "
    WITH erased AS (
        SELECT id, 'tenant_' || replace(id::text, '-', '') AS name FROM unnest($1::uuid[]) id
    )
    SELECT e.id FROM erased e
    WHERE EXISTS (SELECT FROM public.tenants t WHERE t.id = e.id AND t.status <> 'purged')
       OR EXISTS (SELECT FROM public.tenants t LEFT JOIN public.purges p ON p.tenant_id = t.id
                   WHERE t.id = e.id AND p.finished_at IS NULL)
       OR e.name IN (SELECT rolname FROM pg_roles)
       OR e.name IN (SELECT split_part(nspname, '__', 1) FROM pg_namespace)";

/// In a state that could be served, or become so.
const SERVABLE: &str = "
    SELECT id FROM public.tenants WHERE id = ANY ($1) AND status NOT IN ('purging', 'purged') ORDER BY id";

async fn list_there(
    db: &impl GenericClient,
    erased: &[(TenantId, i64)],
    statement: &str,
) -> Result<Vec<TenantId>, Error> {
    let ids: Vec<Uuid> = erased.iter().map(|(tenant, _)| *tenant.as_uuid()).collect();
    let rows = db
        .query_typed(statement, &[(&ids, Type::UUID_ARRAY)])
        .await
        .doing("look for tenants that were erased")?;
    let id = |row: &Row| row.get::<_, Uuid>(0).into();
    Ok(rows.iter().map(id).collect())
}

async fn purge_again(
    admin: &AdminDb,
    ledger: &ErasureLedger,
    tenant: TenantId,
    sequence: i64,
    actor: &Actor,
    progress: &mut (dyn FnMut(&PurgeProgress) + Send),
) -> Result<(), Error> {
    let mut session = PurgeSession::open(admin, tenant).await?;
    let tx = session.begin().await?;
    let row = tenants::lock(&tx, tenant).await?;
    // One that is purging goes on; that its purge is another one's repetition was recorded when it began.
    if row.status != Status::Purging {
        let details = json!({
            "ledger_sequence": sequence, "status": row.status, "legal_hold": row.legal_hold,
        });
        deletion::set_purging_again(&tx, tenant).await?;
        purges::begin(&tx, tenant, actor, Ground::Ledger).await?;
        purges::begin_again(&tx, tenant, actor).await?;
        audit::record(&tx, actor, Action::PurgedAgain, tenant, &details).await?;
    }
    tx.commit().await.doing("commit the beginning of the purge")?;
    tracing::warn!(tenant.id = %tenant, sequence, "erased before: purging it again");
    go_on(&mut session, ledger, actor, progress).await.map(drop)
}
