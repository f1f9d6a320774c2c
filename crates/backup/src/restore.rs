//! Taking the server back to a moment: beside it, or in its place.
//!
//! Owns the order. Everything is done to a copy that nobody can reach: recovered, proved, the erased erased
//! again, the log of the rewinding written. Only then the copy gets the server's name, and the old directory
//! keeps its data under another one. So whatever is killed in the middle, the server is what it was, and the
//! next call begins anew. Refuses while the server runs.

mod place;
mod settle;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tenantry_db::lifecycle::{
    ErasureLedger, LostDecision, StandingTenant, list_standings, require_ledger_complete,
};
use tenantry_db::models::audit::Actor;
use tenantry_db::models::backups::commit_once;
use tenantry_db::{AdminDb, Config};
use tenantry_stack::Scratch;

use self::place::Place;
use crate::engine::Engine;
use crate::error::Result;
use crate::health::causes;
use crate::moment::{When, locate};
use crate::progress::Progress;
use crate::recovery::{Fate, Reached, capacity, require_nothing_later};

/// Where the restored server is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Where the server is, which must not run. Its directory is kept under another name.
    InPlace,
    /// In a directory of its own, which is not there yet. The server is left alone.
    Beside(PathBuf),
}

/// What is to be restored, and how.
#[derive(Debug)]
pub struct Restore<'a> {
    /// pgBackRest.
    pub engine: &'a Engine,
    /// The installation.
    pub config: &'a Config,
    /// Who restores.
    pub actor: &'a Actor,
    /// To which moment.
    pub when: When,
    /// Where.
    pub destination: Destination,
    /// Whether tenants are suspended, deleted and held again who were so after the moment.
    pub decide_again: bool,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The files of a backup are copied.
    Copying(Progress),
    /// The server's log is applied to them.
    Recovering,
    /// The state that is given up is looked at.
    LookingBack,
    /// Whoever was erased is erased again.
    Erasing,
    /// The restored server gets its place.
    Placing,
}

/// A server that was restored.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    /// Where it lies.
    pub data_dir: PathBuf,
    /// Where the old directory lies now.
    pub kept: Option<PathBuf>,
    /// The backup that it began with.
    pub backup: String,
    /// The timeline that it was restored from.
    pub from_timeline: u32,
    /// The timeline that begins with it.
    pub timeline: u32,
    /// The last commit that it has.
    pub last_commit: Option<Timestamp>,
    /// The first one that it has not.
    pub stopped_before: Option<Timestamp>,
    /// The newest time that its database knows of.
    pub newest_known: Option<Timestamp>,
    /// Tenants that were erased again.
    pub erased_again: usize,
    /// What was decided after the moment about who may come in; none if nobody can know.
    pub lost_decisions: Option<Vec<LostDecision>>,
    /// How many of these were decided again.
    pub decided_again: usize,
    /// What should be known.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Restores the server to a moment.
///
/// Dropped or killed at any point, it has done nothing to the server, or all of it; what it made is wiped, by
/// the next one at the latest.
///
/// # Errors
/// [`Error::NotRecoverable`], [`Error::NothingBehind`]; [`Error::ServerRuns`], [`Error::TargetTaken`],
/// [`Error::NoRoom`]; [`Error::DamagedBackup`]; [`Error::Busy`] while a backup is made; [`Error::NotRecovered`], [`Error::Unproven`] and
/// [`Error::StillErased`] for a copy that was thrown away.
///
/// [`Error::NotRecoverable`]: crate::Error::NotRecoverable
/// [`Error::NothingBehind`]: crate::Error::NothingBehind
/// [`Error::ServerRuns`]: crate::Error::ServerRuns
/// [`Error::TargetTaken`]: crate::Error::TargetTaken
/// [`Error::NoRoom`]: crate::Error::NoRoom
/// [`Error::DamagedBackup`]: crate::Error::DamagedBackup
/// [`Error::Busy`]: crate::Error::Busy
/// [`Error::NotRecovered`]: crate::Error::NotRecovered
/// [`Error::Unproven`]: crate::Error::Unproven
/// [`Error::StillErased`]: crate::Error::StillErased
pub async fn restore(restore: &Restore<'_>, mut progress: impl FnMut(Step)) -> Result<Restored> {
    let begun = std::time::Instant::now();
    let Restore { engine, config, when, .. } = *restore;
    let place = Place::find(engine, &restore.destination)?;
    // No expiry may remove what is read here.
    let _lock = engine.lock()?;
    let mut notes = Vec::new();
    if restore.destination != Destination::InPlace {
        notes.extend(catch_up(engine, config, when).await?);
    }
    let repository = engine.repository().await?;
    let recoverable = engine.recoverable(&repository).await?;
    let mut start = locate(when, Timestamp::now(), &repository.backups, &recoverable)?;
    place.require_room(start.backup.size_bytes)?;
    notes.extend(place.unarchived());
    let mut scratch = Scratch::open(&place.scratch, engine.owner()).await?;
    let copied = |now| progress(Step::Copying(now));
    let reached = engine.recover_or_older(&mut scratch, &mut start, when, Fate::Kept, copied).await;
    let (reached, mut scratch) = wiped(reached, scratch).await?;
    notes.extend(reached.remarks(&start, &recoverable, when));
    progress(Step::Recovering);
    let done = finish(restore, &place, &mut scratch, reached, notes, &mut progress).await;
    let (mut restored, scratch) = wiped(done, scratch).await?;
    scratch.wipe().await?;
    restored.backup.clone_from(&start.backup.label);
    restored.from_timeline = start.window.timeline;
    restored.took = begun.elapsed();
    Ok(restored)
}

/// The result with the scratch directory, which goes at once if there is none.
pub(crate) async fn wiped<T>(result: Result<T>, scratch: Scratch) -> Result<(T, Scratch)> {
    match result {
        Ok(value) => Ok((value, scratch)),
        Err(error) => {
            // The reason matters more than the rest of it; the next one wipes what is left.
            if let Err(left) = scratch.wipe().await {
                tracing::warn!(error = causes(&left), "a scratch directory is left");
            }
            Err(error)
        }
    }
}

/// Sees to a commit behind this moment in the repository, where the server runs. For `now` it must be there; for
/// a moment in the past it may be there already.
pub(crate) async fn catch_up(
    engine: &Engine,
    config: &Config,
    when: When,
) -> Result<Option<String>> {
    let committed = match AdminDb::new(config) {
        Ok(admin) => commit_once(&admin).await,
        Err(error) => Err(error),
    };
    if let Err(error) = committed {
        return Ok(Some(format!("the server does not run, or can't be asked: {}", causes(&error))));
    }
    match (engine.check().await, when) {
        (Ok(()), _) => Ok(None),
        (Err(error), When::Now) => Err(error),
        (Err(error), When::At(_)) => {
            Ok(Some(format!("the newest commits are not in the repository: {}", causes(&error))))
        }
    }
}

async fn finish(
    restore: &Restore<'_>,
    place: &Place,
    scratch: &mut Scratch,
    reached: Reached,
    mut notes: Vec<String>,
    progress: &mut impl FnMut(Step),
) -> Result<Restored> {
    let (engine, config) = (restore.engine, restore.config);
    let copy = config.of_copy(scratch.socket())?;
    let newest_known = require_nothing_later(&copy, restore.when).await?;
    progress(Step::Erasing);
    let superuser = scratch.config(&engine.settings().server.user, "postgres");
    settle::bring_up_to_date(&copy, superuser, &mut notes).await?;
    let erased_again = settle::erase_again(&copy, restore.actor, &mut notes).await?;
    let standings = list_standings(&AdminDb::new(&copy)?).await?;
    scratch.stop().await?;

    progress(Step::LookingBack);
    let given_up = look_back(restore, place, scratch).await?;
    let lost_decisions = settle::compare(given_up, &standings, &mut notes);
    let settings = capacity(&scratch.data_dir())?;
    scratch.start(&scratch.data_dir(), &settings, START_PATIENCE).await?;
    let decided_again = match &lost_decisions {
        Some(lost) if restore.decide_again => {
            settle::decide_again(&copy, lost, restore.actor).await?
        }
        _ => 0,
    };
    let mut restored = Restored {
        data_dir: place.target.clone(),
        kept: None,
        backup: String::new(),
        from_timeline: 0,
        timeline: reached.timeline,
        last_commit: reached.last_commit,
        stopped_before: reached.stopped_before,
        newest_known,
        erased_again,
        lost_decisions,
        decided_again,
        notes,
        took: Duration::ZERO,
    };
    settle::record(restore, &copy, &restored).await?;
    scratch.stop().await?;
    progress(Step::Placing);
    restored.kept = place.take(engine, scratch, reached.timeline)?;
    Ok(restored)
}

/// A server that was stopped cleanly needs a second.
const START_PATIENCE: Duration = Duration::from_secs(600);

/// How the tenants stand in the state that is given up, or why nobody can know.
type GivenUp = std::result::Result<Vec<StandingTenant>, String>;

/// Looks at the state that is given up: in the server that runs, or in its directory, on which a server nobody can
/// reach is started for a moment.
///
/// # Errors
/// The erasure ledger lacks what that state knows to have been erased: who is in it would be back.
async fn look_back(restore: &Restore<'_>, place: &Place, scratch: &mut Scratch) -> Result<GivenUp> {
    let config = match place_of_given_up(restore, place, scratch).await {
        Ok(config) => config,
        Err(reason) => return Ok(Err(reason)),
    };
    let found = async {
        let admin = AdminDb::new(&config)?;
        if let Ok(ledger) = ErasureLedger::new(restore.config).map(ErasureLedger::of_copy) {
            require_ledger_complete(&admin, &ledger).await?;
        }
        list_standings(&admin).await
    };
    let found = found.await;
    if restore.destination == Destination::InPlace {
        scratch.stop().await?;
    }
    match found {
        Ok(standings) => Ok(Ok(standings)),
        Err(error @ tenantry_db::Error::Erasure(_)) => Err(error.into()),
        Err(error) => Ok(Err(causes(&error))),
    }
}

async fn place_of_given_up(
    restore: &Restore<'_>,
    place: &Place,
    scratch: &mut Scratch,
) -> std::result::Result<Config, String> {
    Ok(match &restore.destination {
        Destination::Beside(_) => restore.config.clone(),
        Destination::InPlace if !place.target.join("PG_VERSION").exists() => {
            return Err(format!("there is no server in `{}`", place.target.display()));
        }
        Destination::InPlace => {
            place.require_stopped().map_err(|error| causes(&error))?;
            let settings = capacity(&place.target).map_err(|e| causes(&e))?;
            let started = scratch.start(&place.target, &settings, START_PATIENCE).await;
            started.map_err(|error| causes(&error))?;
            restore.config.of_copy(scratch.socket()).map_err(|error| causes(&error))?
        }
    })
}
