//! Purging in the background: what is due, and what stopped half-way.
//!
//! Any number of services may run it: each tenant is purged by one of them. Refuses to believe a clock.
//! A tenant is due when the server's clock *and* this machine's say so; and when the server's clock went on
//! by much more than the time between two looks, nothing begins for an hour, in which somebody can read the
//! warning. A service that was down for that long sees the same and waits, too.

use std::time::Duration;

use jiff::Timestamp;

use super::begin::Authority;
use super::ledger::ErasureLedger;
use super::{begin, certificate, go_on, session::PurgeSession, statistics};
use crate::background;
use crate::error::{Error, ErrorKind};
use crate::ids::TenantId;
use crate::installation::Installation;
use crate::models::audit::Actor;
use crate::models::{deletion, purge_watch, purges};

/// After the server's clock jumped.
const PAUSE_AFTER_JUMP: Duration = Duration::from_secs(3600);
/// How much further than expected the clock may have gone on, at least.
const MIN_GAP: Duration = Duration::from_secs(15 * 60);
/// While it runs nobody can plan a query, so not after each purge.
const STATISTICS_EVERY: Duration = Duration::from_secs(3600);
/// Tenants looked at in one round.
const PER_ROUND: i64 = 100;

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Tenants that were purged.
    pub purged: usize,
    /// Purges that did not come to their end.
    pub failed: usize,
    /// Whether nothing was begun, since the clock may be wrong.
    pub paused: bool,
}

/// Purges what is due, one tenant after another, until it is to stop. It never fails: what went wrong is
/// logged and tried again. Stopped or dropped at any point, the next one goes on from there.
///
/// Does nothing where `erasure.ledger_dir` is not set.
pub async fn run_due_purges(installation: Installation, stop: impl Future<Output = ()> + Send) {
    let Ok(ledger) = ErasureLedger::new(installation.config()) else {
        tracing::info!("`erasure.ledger_dir` is not set: this service purges nothing");
        return;
    };
    let actor = Actor::new("service:purge");
    let every = installation.config().erasure.check_every;
    background::repeat("purge what is due", every, stop, async || {
        purge_due(&installation, &ledger, Timestamp::now(), &actor).await.map(|_| ())
    })
    .await;
}

/// One round. `host_now` is what the clock of this machine says.
///
/// # Errors
/// What concerns the whole installation: the ledger, the server. What concerns one tenant is logged, and
/// that tenant waits for a while.
pub async fn purge_due(
    installation: &Installation,
    ledger: &ErasureLedger,
    host_now: Timestamp,
    actor: &Actor,
) -> Result<Round, Error> {
    let admin = installation.admin();
    let db = admin.connection().await?;
    let mut round = Round { paused: !may_begin(installation, &db).await?, ..Round::default() };
    let due = deletion::list_due(&**db, host_now, PER_ROUND).await?;
    for due in due {
        // A round may take long, and the clock is to be looked at often.
        if !due.begun && (round.paused || !may_begin(installation, &db).await?) {
            round.paused = true;
            continue;
        }
        match purge(installation, ledger, due, host_now, actor).await {
            Ok(true) => round.purged += 1,
            Ok(false) => {}
            Err(error) if concerns_all(&error) => return Err(error),
            Err(error) => {
                round.failed += 1;
                let hint = error.hint().unwrap_or_default();
                tracing::warn!(tenant.id = %due.tenant, %error, hint, "the purge stopped: it will be tried again");
            }
        }
    }
    if purges::statistics_are_due(&**db, STATISTICS_EVERY).await? {
        match statistics::rewrite_statistics(admin).await {
            Ok(purges) => tracing::info!(purges, "statistics written anew"),
            Err(error) if error.kind() == ErrorKind::Busy => tracing::debug!(%error, "later"),
            Err(error) => return Err(error),
        }
    }
    drop(db);
    certificate::look_at_certificates(admin, actor).await?;
    Ok(round)
}

/// Whether the clock can be believed, and the hour's number of purges is not used up.
async fn may_begin(
    installation: &Installation,
    db: &tokio_postgres::Client,
) -> Result<bool, Error> {
    let erasure = &installation.config().erasure;
    let gap = MIN_GAP.max(erasure.check_every * 3);
    match purge_watch::look(db, gap, PAUSE_AFTER_JUMP).await? {
        purge_watch::Look::Steady => {}
        purge_watch::Look::Elsewhere | purge_watch::Look::Paused => return Ok(false),
        purge_watch::Look::Jumped(seconds) => {
            tracing::warn!(
                seconds,
                "the server's clock went on by this much since somebody last looked for tenants to purge: no service \
                 did, or the clock jumped. No purge begins for an hour: check the clock"
            );
            return Ok(false);
        }
    }
    let begun = purges::count_begun_within_an_hour(db).await?;
    Ok(begun < i64::from(erasure.max_per_hour))
}

/// Whether it was purged here. What somebody else is at, or has changed in the meantime, is theirs.
async fn purge(
    installation: &Installation,
    ledger: &ErasureLedger,
    due: deletion::Due,
    host_now: Timestamp,
    actor: &Actor,
) -> Result<bool, Error> {
    let tenant: TenantId = due.tenant;
    let Some(mut session) = PurgeSession::try_open(installation.admin(), tenant).await? else {
        return Ok(false);
    };
    match begin::begin(&mut session, ledger, Authority::Due { host_now }, actor).await {
        Ok(_) => {}
        Err(Error::InvalidState { .. } | Error::LegalHold(_) | Error::Busy(_)) => return Ok(false),
        Err(Error::Erasure(crate::lifecycle::ErasureError::NotDue { .. })) => return Ok(false),
        Err(error) => return Err(error),
    }
    go_on(&mut session, ledger, actor, &mut |_| {}).await.map(|_| true)
}

pub(super) fn concerns_all(error: &Error) -> bool {
    match error {
        Error::Erasure(error) => error.concerns_all(),
        error => error.kind() == ErrorKind::Unavailable,
    }
}
