//! When a backup is made by itself, and what else is done now and then.
//!
//! Owns the decision. It is taken from what is in the repository and nothing else, so a restart, a second
//! service or a backup by hand change nothing about it. One at a time decides on a machine.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tenantry_db::models::backups::save_report;
use tenantry_db::models::holding::find_holding;
use tenantry_db::{AdminDb, Config, Installation, repeat};

use crate::backups::{Backup, BackupKind};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::health::Examination;
use crate::progress::Progress;
use crate::settings::{Settings, signed};
use crate::verify::Verified;

/// Why a backup is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// There is no full one yet.
    First,
    /// The newest full one is old enough.
    Full,
    /// The log since the newest one has a gap: what comes behind it can't be recovered without another one.
    Gap,
    /// The repository is damaged, and this is to be the one that is not.
    Damage,
    /// The newest one of any kind is old enough for a difference.
    Diff,
}

impl Due {
    /// What is to be made.
    pub fn kind(self) -> BackupKind {
        match self {
            Self::First | Self::Full | Self::Gap | Self::Damage => BackupKind::Full,
            Self::Diff => BackupKind::Diff,
        }
    }
}

/// A gap or damage that a new backup did not heal is not tried again sooner than this.
const REMEDY_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// A backup that began further in the future than this was made with a wrong clock, and counts for nothing.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(5);

/// What is due, if anything.
pub fn due(
    now: Timestamp,
    settings: &Settings,
    backups: &[Backup],
    is_continuous: bool,
    verified: Option<&Verified>,
) -> Option<Due> {
    let believed = || backups.iter().filter(|it| it.started_at <= now + CLOCK_SLACK);
    let newest_of = |kind: Option<BackupKind>| {
        believed()
            .filter(|it| kind.is_none_or(|kind| it.kind == kind))
            .map(|it| it.started_at)
            .max()
    };
    let old = |at: Timestamp, every: Duration| now.duration_since(at) >= signed(every);
    let Some(full) = newest_of(Some(BackupKind::Full)) else { return Some(Due::First) };
    let remedy_may_be_tried = now.duration_since(full) >= REMEDY_EVERY;
    let damaged_since = verified.is_some_and(|it| !it.ok && it.at > full);
    match () {
        () if old(full, settings.full_every) => Some(Due::Full),
        () if !is_continuous && remedy_may_be_tried => Some(Due::Gap),
        () if damaged_since => Some(Due::Damage),
        () => {
            let newest = newest_of(None).unwrap_or(full);
            settings.diff_every.filter(|every| old(newest, *every)).map(|_| Due::Diff)
        }
    }
}

/// Whether the backups should be looked at again: it is time, or they were found bad and one has been made since.
/// `last` is when that was done last, and whether all was well.
fn look_is_due(
    now: Timestamp,
    every: Option<Duration>,
    backups: &[Backup],
    last: Option<(Timestamp, bool)>,
) -> bool {
    let (Some(every), Some(oldest), Some(newest)) = (every, backups.first(), backups.last()) else {
        return false;
    };
    match last {
        None => now.duration_since(oldest.stopped_at) >= signed(every),
        Some((at, ok)) => now.duration_since(at) >= signed(every) || !ok && newest.stopped_at > at,
    }
}

/// Makes the backup that is due, if one is; then stores how everything stands. Yields the backup.
///
/// # Errors
/// [`Error::Busy`] if somebody else is at it; those of [`Engine::back_up`].
pub async fn run_if_due(
    engine: &Engine,
    admin: &AdminDb,
    progress: impl FnMut(Progress),
) -> Result<Option<(Due, Backup)>> {
    let made = make_if_due(engine, admin, progress).await;
    // Also after a failure: whoever watches learns of it from the report.
    let reported = report(engine, admin).await;
    let made = made?;
    reported?;
    Ok(made)
}

async fn make_if_due(
    engine: &Engine,
    admin: &AdminDb,
    progress: impl FnMut(Progress),
) -> Result<Option<(Due, Backup)>> {
    let _lock = engine.lock()?;
    let mut found = engine.examine(admin).await?;
    if !found.is_continuous && !found.backups.is_empty() {
        // A listing takes its time, and segments arrive meanwhile. A gap is there the second time, too.
        found = engine.examine(admin).await?;
    }
    let Some(due) = due_now(engine, &found) else { return Ok(None) };
    tracing::info!(?due, kind = due.kind().as_str(), "making a backup");
    Ok(Some((due, make(engine, due.kind(), progress).await?)))
}

fn due_now(engine: &Engine, found: &Examination) -> Option<Due> {
    let verified = engine.last_verified();
    let (now, settings) = (Timestamp::now(), engine.settings());
    due(now, settings, &found.backups, found.is_continuous, verified.as_ref())
}

async fn make(engine: &Engine, kind: BackupKind, progress: impl FnMut(Progress)) -> Result<Backup> {
    engine.create_stanza().await?;
    engine.back_up(kind, progress).await
}

/// Looks, and stores what was found.
async fn report(engine: &Engine, admin: &AdminDb) -> Result<Examination> {
    let mut found = engine.examine(admin).await?;
    store(admin, &mut found).await?;
    Ok(found)
}

async fn store(admin: &AdminDb, found: &mut Examination) -> Result<()> {
    found.remember(find_holding(admin).await?);
    Ok(save_report(admin, &found.report).await?)
}

impl Engine {
    /// Makes a backup now, unless another one is under way.
    ///
    /// # Errors
    /// As [`back_up`](Self::back_up).
    pub async fn back_up_now(
        &self,
        admin: &AdminDb,
        kind: BackupKind,
        progress: impl FnMut(Progress),
    ) -> Result<Backup> {
        let lock = self.lock()?;
        let made = make(self, kind, progress).await;
        drop(lock);
        let reported = report(self, admin).await;
        let made = made?;
        reported?;
        Ok(made)
    }

    /// Looks at everything, and stores what was found.
    ///
    /// # Errors
    /// As [`examine`](Self::examine), and those of the database.
    pub async fn report(&self, admin: &AdminDb) -> Result<Examination> {
        report(self, admin).await
    }

    /// Sends a segment through to the repository, looks at everything, and stores what was found. With
    /// `verify`, every file of the repository is read first.
    ///
    /// # Errors
    /// As [`check`](Self::check), for what the server's own settings are to blame; the rest is in the answer.
    pub async fn check_now(&self, admin: &AdminDb, verify: bool) -> Result<Examination> {
        if verify {
            let _lock = self.lock()?;
            self.verify().await?;
        }
        let checked = self.check().await;
        let found = report(self, admin).await?;
        // Without a stanza there is no backup, and the answer says that.
        match checked {
            Ok(()) | Err(Error::NoStanza) => Ok(found),
            Err(error) => Err(error),
        }
    }
}

/// Looks, stores how everything stands, and does what is due, each `backup.check_every` until `stop` is done. What
/// is under way then is broken off.
///
/// Looking goes on beside what is done: a large backup takes hours, and the server's log goes on meanwhile.
pub async fn keep(engine: Engine, installation: Installation, stop: impl Future<Output = ()>) {
    let every = engine.settings().check_every;
    let (engine, admin, config) = (&engine, installation.admin(), installation.config());
    repeat("look after the backups", every, stop, || async move {
        let mut found = engine.examine(admin).await?;
        let stored = store(admin, &mut found).await;
        let looking = async {
            tokio::time::sleep(every).await;
            let look = || async { report(engine, admin).await.map(drop) };
            repeat("look at the backups", every, pending(), look).await;
        };
        tokio::select! {
            biased;
            done = do_what_is_due(engine, admin, config, found) => done.and(stored),
            () = looking => stored,
        }
    })
    .await;
}

/// Each by itself: a backup that can't be made (the repository is full) keeps nobody from looking at those that are
/// there. The first error is told, after all.
async fn do_what_is_due(
    engine: &Engine,
    admin: &AdminDb,
    config: &Config,
    mut found: Examination,
) -> Result<()> {
    let made = unless_busy(back_up_if_due(engine, admin, &mut found).await);
    let verified = unless_busy(verify_if_due(engine, admin, &found.backups).await);
    // Boxed, since the compiler can't see otherwise that it may move between threads.
    let drilling: Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> =
        Box::pin(drill_if_due(engine, admin, config, &found.backups));
    let drilled = unless_busy(drilling.await);
    made.and(verified).and(drilled)
}

/// Somebody else is at it, on this machine.
fn unless_busy(done: Result<()>) -> Result<()> {
    match done {
        Err(Error::Busy) => Ok(()),
        done => done,
    }
}

/// What was found is what there is with the new one, afterwards: it may be what was waited for.
async fn back_up_if_due(engine: &Engine, admin: &AdminDb, found: &mut Examination) -> Result<()> {
    if due_now(engine, found).is_none() {
        return Ok(());
    }
    // It looks once more: somebody else may have made it by now.
    if let Some((due, made)) = make_if_due(engine, admin, |_| {}).await? {
        tracing::info!(label = made.label, ?due, "made a backup");
        *found = report(engine, admin).await?;
    }
    Ok(())
}

async fn verify_if_due(engine: &Engine, admin: &AdminDb, backups: &[Backup]) -> Result<()> {
    let last = engine.last_verified().map(|it| (it.at, it.ok));
    if !look_is_due(Timestamp::now(), engine.settings().verify_every, backups, last) {
        return Ok(());
    }
    // Not beside an expiry, which removes files.
    let lock = engine.lock()?;
    engine.verify().await?;
    drop(lock);
    report(engine, admin).await.map(drop)
}

async fn drill_if_due(
    engine: &Engine,
    admin: &AdminDb,
    config: &Config,
    backups: &[Backup],
) -> Result<()> {
    let last = engine.last_drilled().map(|it| (it.at, it.ok));
    if !look_is_due(Timestamp::now(), engine.settings().drill_every, backups, last) {
        return Ok(());
    }
    let drilled = engine.drill(config, |_| {}).await?;
    if !drilled.ok {
        tracing::error!(problems = drilled.problems(), "a backup could not be restored");
    }
    report(engine, admin).await.map(drop)
}

#[cfg(test)]
mod tests;
