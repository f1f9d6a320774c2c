//! Purging: taking everything of a deleted tenant away, for good.
//!
//! One file for each step, each of which looks at what is there and takes the rest: a purge that was
//! killed anywhere is called again and goes on. `begin` decides, and enters it in the `ledger`, before
//! which nothing is dropped; `freeze` makes sure that nobody adds anything; `objects` empties the schemas
//! in batches; `role` takes large objects and the role; `finish` the rows of shared tables (`shared`),
//! leaves the tombstone, has `verify` look whether anything is left, and issues the `certificate`;
//! `statistics` is for several purges at once. `due` does all that in the background. `reapply` erases again
//! what a restore has brought back.

mod begin;
mod blockers;
mod certificate;
mod due;
mod finish;
mod freeze;
mod inventory;
mod ledger;
mod objects;
mod reapply;
mod report;
mod role;
mod session;
mod shared;
mod statistics;
mod verify;

use std::time::Instant;

use crate::audit;
use crate::direct::AdminDb;
use crate::error::Error;
use crate::ids::TenantId;
use crate::models::audit::Actor;
use crate::models::purges::{self, Step};
use crate::models::tenants::Tenant;

pub use begin::Authority;
pub use certificate::{
    BackupsHold, Certificate, CertificateStatus, ErasureCounts, FiledCheck, check_certificate,
    count_erasures, declare_replica_gone, get_certificate, look_at_certificates,
    refresh_certificate,
};
pub use due::{Round, purge_due, run_due_purges};
pub use ledger::{ErasureEntry, ErasureLedger};
pub use reapply::{Reapplied, reapply_ledger, require_erased_stay_erased, require_ledger_complete};
pub use report::{PurgeProgress, PurgeReport};
pub use shared::{find_shared_tables, shared_tables};
pub use statistics::rewrite_statistics;
pub use verify::{Parameter, Place};

pub(super) use blockers::that_hold_locks;
pub(super) use objects::{drop_next, list_outside};
use session::PurgeSession;
pub(super) use session::{take_alone, try_alone};

/// Begins a tenant's purge: from then on it can't be restored. [`continue_purge`] does the rest, here or
/// in any service that runs [`run_due_purges`]. For one that has begun, makes sure of it.
///
/// # Errors
/// [`Error::InvalidState`] for one that is not deleted; [`Error::LegalHold`];
/// [`crate::lifecycle::ErasureError`] for what is not confirmed, not due, or can't be entered in the ledger:
/// then nothing was changed. [`Error::Busy`] if somebody else is at it.
pub async fn begin_purge(
    admin: &AdminDb,
    ledger: &ErasureLedger,
    tenant: TenantId,
    authority: Authority<'_>,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let mut session = PurgeSession::open(admin, tenant).await?;
    begin::begin(&mut session, ledger, authority, actor).await
}

/// Goes on with a purge that has begun, to its end. Calls `progress` with what was done.
///
/// Dropped or killed anywhere, it is called again.
///
/// # Errors
/// [`Error::InvalidState`] for a tenant whose purge has not begun; [`Error::Busy`] if somebody else is at
/// it; [`crate::lifecycle::ErasureError`] with what stands against it.
pub async fn continue_purge(
    admin: &AdminDb,
    ledger: &ErasureLedger,
    tenant: TenantId,
    actor: &Actor,
    mut progress: impl FnMut(&PurgeProgress) + Send,
) -> Result<PurgeReport, Error> {
    let mut session = PurgeSession::open(admin, tenant).await?;
    go_on(&mut session, ledger, actor, &mut progress).await
}

/// [`begin_purge`] and [`continue_purge`] in one.
///
/// # Errors
/// As both.
pub async fn purge_tenant(
    admin: &AdminDb,
    ledger: &ErasureLedger,
    tenant: TenantId,
    authority: Authority<'_>,
    actor: &Actor,
    mut progress: impl FnMut(&PurgeProgress) + Send,
) -> Result<PurgeReport, Error> {
    let mut session = PurgeSession::open(admin, tenant).await?;
    begin::begin(&mut session, ledger, authority, actor).await?;
    go_on(&mut session, ledger, actor, &mut progress).await
}

async fn go_on(
    session: &mut PurgeSession<'_>,
    ledger: &ErasureLedger,
    actor: &Actor,
    progress: &mut (dyn FnMut(&PurgeProgress) + Send),
) -> Result<PurgeReport, Error> {
    let gone_on = steps(session, ledger, actor, progress).await;
    match &gone_on {
        // Somebody else has done it, or it has not begun: nothing has failed.
        Ok(_) | Err(Error::InvalidState { .. }) => {}
        Err(error) => session.record_failure(error).await,
    }
    gone_on
}

async fn steps(
    session: &mut PurgeSession<'_>,
    ledger: &ErasureLedger,
    actor: &Actor,
    progress: &mut (dyn FnMut(&PurgeProgress) + Send),
) -> Result<PurgeReport, Error> {
    let started = Instant::now();
    let reached = begin::require_entry(session, ledger, actor).await?;
    session.reached = Some(reached);
    session.done(Step::Recorded, started, 1, progress).await?;
    let started = Instant::now();
    let ended = freeze::freeze(session).await?;
    session.done(Step::Frozen, started, ended, progress).await?;
    let started = Instant::now();
    let dropped = objects::drop_all(session, progress).await?;
    session.done(Step::Emptied, started, dropped, progress).await?;
    let started = Instant::now();
    let unlinked = role::drop_role(session).await?;
    session.done(Step::RoleDropped, started, unlinked, progress).await?;
    finish::finish(session, actor, progress).await?;
    if ledger.anchors() {
        audit::seal_and_anchor(session.admin, ledger.dir()).await;
    }
    report::read(&session.client, session.tenant).await
}

impl PurgeSession<'_> {
    /// Records a step that was done, and tells of it. A purge that goes on does not record again what it
    /// had reached before.
    async fn done(
        &self,
        step: Step,
        started: Instant,
        count: u64,
        progress: &mut (dyn FnMut(&PurgeProgress) + Send),
    ) -> Result<(), Error> {
        let took = started.elapsed();
        if self.reached < Some(step) {
            purges::set_step(&self.client, self.tenant, step, took, count).await?;
        }
        tracing::debug!(tenant.id = %self.tenant, ?step, count, "purge came a step further");
        progress(&PurgeProgress::done(step, count));
        Ok(())
    }
}
