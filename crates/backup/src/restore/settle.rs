//! What is done to the restored server before anybody can reach it.
//!
//! Owns that the erased stay erased, and that the log says what happened. Refuses a server in which somebody is
//! left whom the erasure ledger names.

use serde_json::json;
use tenantry_db::audit::{Anchor, continue_after_restore};
use tenantry_db::init::init;
use tenantry_db::lifecycle::{
    self, ErasureLedger, LostDecision, StandingTenant, lost_decisions, reapply_ledger,
    record_rewind, require_erased_stay_erased,
};
use tenantry_db::migrate::{Migrations, migrate_public};
use tenantry_db::models::audit::Actor;
use tenantry_db::{AdminDb, Config, ReaderDb};

use super::{Destination, GivenUp, Restore, Restored};
use crate::error::{Error, Result};
use crate::health::causes;

/// Brings the copy to what this program needs: roles, functions and tables of a server that is older than it.
/// Erasing takes today's, and so does whoever is to serve from it.
pub(super) async fn bring_up_to_date(
    copy: &Config,
    superuser: tokio_postgres::Config,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut as_superuser = copy.clone();
    as_superuser.init.superuser_url = Some(superuser);
    match init(&as_superuser).await {
        Ok(report) if report.changed.is_empty() => {}
        Ok(report) => notes.push(format!(
            "`tenantry init` was done on it, since it is older than this program or its passwords: {} changes",
            report.changed.len()
        )),
        Err(error) => notes.push(format!(
            "run `tenantry init` on it before anybody is served, since here it can't be done: {}",
            causes(&error)
        )),
    }
    let admin = AdminDb::new(copy)?;
    let migrations = Migrations::load(&copy.migrations).map_err(tenantry_db::Error::from)?;
    let applied = migrate_public(&admin, &migrations.public, None, |_| {}).await?;
    if !applied.is_empty() {
        notes.push(format!(
            "{} public migrations were applied again; those of the tenants wait for `tenantry migrate run`",
            applied.len()
        ));
    }
    Ok(())
}

/// Erases again whom the ledger names. Yields how many.
pub(super) async fn erase_again(
    copy: &Config,
    actor: &Actor,
    notes: &mut Vec<String>,
) -> Result<usize> {
    let admin = AdminDb::new(copy)?;
    let Ok(ledger) = ErasureLedger::new(copy).map(ErasureLedger::of_copy) else {
        notes.push(
            "`erasure.ledger_dir` is not set: nobody knows whether somebody is back who was erased"
                .to_owned(),
        );
        return Ok(0);
    };
    let report = reapply_ledger(&admin, &ledger, actor, |_, _| {}).await?;
    if !report.failed.is_empty() {
        let left = report.failed.iter().map(|(tenant, why)| format!("`{tenant}`: {why}"));
        return Err(Error::StillErased { left: left.collect() });
    }
    require_erased_stay_erased(&ReaderDb::new(copy)?, &ledger).await?;
    if !report.purged.is_empty() {
        // Statistics hold values of rows that are gone.
        lifecycle::rewrite_statistics(&admin).await?;
    }
    Ok(report.purged.len())
}

/// What the state that is given up knows, if it can be known.
pub(super) fn compare(
    given_up: GivenUp,
    restored: &[StandingTenant],
    notes: &mut Vec<String>,
) -> Option<Vec<LostDecision>> {
    match given_up {
        Ok(given_up) => Some(lost_decisions(&given_up, restored)),
        Err(reason) => {
            notes.push(format!(
                "nobody can know what was decided after the moment, so look in your own records who was \
                 suspended or deleted since: {reason}"
            ));
            None
        }
    }
}

/// Shuts out again who was shut out after the moment. Yields how many.
pub(super) async fn decide_again(
    copy: &Config,
    lost: &[LostDecision],
    actor: &Actor,
) -> Result<usize> {
    let admin = AdminDb::new(copy)?;
    let mut done = 0;
    for decision in lost {
        done += usize::from(lifecycle::decide_again(&admin, copy, decision, actor).await?);
    }
    Ok(done)
}

/// Writes down what happened: in the audit log of the restored server and, where it takes the server's place,
/// in the anchor of that log, whose later heads are lost.
pub(super) async fn record(
    restore: &Restore<'_>,
    copy: &Config,
    restored: &Restored,
) -> Result<()> {
    let admin = AdminDb::new(copy)?;
    let in_place = restore.destination == Destination::InPlace;
    let details = json!({
        "to": restore.when.to_string(),
        "last_commit": restored.last_commit,
        "timeline": restored.timeline,
        "in_place": in_place,
        "erased_again": restored.erased_again,
        "decisions_lost": restored.lost_decisions.as_ref().map(Vec::len),
        "decided_again": restored.decided_again,
        // Each is on a timeline that ended.
        "replicas": "to be built anew",
    });
    record_rewind(&admin, restore.actor, &details).await?;
    if in_place && let Some(anchor) = Anchor::find(restore.config) {
        continue_after_restore(&admin, &anchor).await?;
    }
    Ok(())
}
