//! Taking the whole installation to a version, or back: the public schema, then the fleet in waves.
//!
//! One runner at a time. All that can be known before is looked at first, so that a run that is refused
//! has touched nobody. What a run did stays: running again goes on from there.

use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

use super::event::Event;
use super::fleet::{Fleet, Halt};
use super::preflight::plan_back;
use super::record::{self, Counts, RunLock, RunState, SchemaFailure};
use super::standing::Standing;
use super::tenant::{Journey, Route};
use super::waves::Portion;
use super::{
    AppliedNow, MigrationError, Migrations, SetKind, ledger, lint, preflight, public, standing,
};
use crate::config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::audit::Actor;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct RolloutOptions {
    /// Where to.
    pub direction: Direction,
    /// Whether the public schema is concerned.
    pub public: bool,
    /// Which tenants are.
    pub tenants: Tenants,
    /// How many tenants at once.
    pub parallel: u16,
    /// In which portions.
    pub waves: Vec<Portion>,
    /// What failures do.
    pub tolerance: Tolerance,
    /// Whether changed files are recorded as they are now, instead of being refused.
    pub repair: bool,
    /// Whether the way back takes this program's own public files, too: it works on their tables.
    pub built_in: bool,
    /// Whether files are refused that [`lint`](super::lint) calls wrong, on the way up.
    pub lint: bool,
}

impl RolloutOptions {
    /// To which version the public set goes back.
    pub(super) fn public_goal(&self, migrations: &Migrations, to: i64) -> i64 {
        if self.built_in { to } else { to.max(migrations.newest_built_in()) }
    }

    /// Everything to head, with the waves and the number at once that are configured.
    pub fn to_head(configured: &config::Migrations) -> Self {
        Self {
            direction: Direction::Up { to: None },
            public: true,
            tenants: Tenants::All,
            parallel: configured.parallel,
            waves: configured.waves.clone(),
            tolerance: Tolerance::Stop,
            repair: false,
            built_in: false,
            lint: true,
        }
    }
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Up to a version, or to the newest.
    Up {
        /// The version.
        to: Option<i64>,
    },
    /// Back to a version, 0 for none.
    Down {
        /// The version.
        to: i64,
        /// Whether rows may be lost.
        accept_data_loss: bool,
    },
}

/// Which tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// All that have a schema: also those of the ready pool, suspended and deleted ones.
    All,
    /// These.
    Only(Vec<TenantId>),
    /// None.
    None,
}

/// What failures do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// The first one ends the run.
    Stop,
    /// The wave goes on; the next one begins only after a clean one.
    Continue {
        /// So many are no reason to end the run, nor to call a wave unclean.
        max_failures: Option<Portion>,
    },
}

/// Somebody's wish to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// None.
    Go,
    /// Begin nothing new; what is under way may end, within ten seconds.
    Finish,
    /// Roll back what is under way.
    Cancel,
}

/// What a run did.
#[derive(Debug, Serialize)]
pub struct RolloutReport {
    /// The run's id in `public.migration_runs`; absent where that does not exist (any more).
    pub run: Option<Uuid>,
    /// How it ended.
    pub state: RunState,
    /// How many migrations of the public schema were applied or taken back.
    pub public: usize,
    /// How many tenants came how far.
    pub tenants: Counts,
    /// How many tenants were not begun.
    pub left: usize,
    /// Who failed, and why.
    pub failures: Vec<SchemaFailure>,
    /// What ended the run, if it was neither a failure of a tenant nor a signal.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// A run about to begin.
pub struct Rollout<'a> {
    /// The control plane's connections.
    pub admin: &'a AdminDb,
    /// The files.
    pub migrations: &'a Migrations,
    /// On whose behalf.
    pub actor: &'a Actor,
    /// What is to be done.
    pub options: &'a RolloutOptions,
}

impl Rollout<'_> {
    /// Does it, and tells of it.
    ///
    /// Dropped, it leaves what was done, and the run as one that was killed.
    ///
    /// # Errors
    /// [`Error::Busy`] if another runner is at it; [`Error::Migration`] with what stands against it, in
    /// which case no tenant was touched. A tenant's failure is no error: the report names it.
    pub async fn run(
        &self,
        stop: watch::Receiver<Stop>,
        mut events: impl FnMut(Event),
    ) -> Result<RolloutReport, Error> {
        if self.options.lint && matches!(self.options.direction, Direction::Up { .. }) {
            lint::refuse_errors(&lint::lint(self.migrations))?;
        }
        let lock = RunLock::take(self.admin).await?;
        if self.options.repair {
            self.repair(&mut events).await?;
        }
        match self.options.direction {
            Direction::Up { to } => self.up(lock, to, stop, events).await,
            Direction::Down { to, accept_data_loss } => {
                self.down(lock, to, accept_data_loss, stop, events).await
            }
        }
    }

    async fn repair(&self, events: &mut impl FnMut(Event)) -> Result<(), Error> {
        let mut db = self.admin.connection().await?;
        let tx = begin(&mut db).await?;
        if !ledger::exists(&tx).await? {
            return Ok(());
        }
        let mut entries = 0;
        for set in [&self.migrations.public, &self.migrations.tenant] {
            entries += ledger::repair(&tx, set, self.actor).await?;
        }
        tx.commit().await.doing("commit the repaired checksums")?;
        events(Event::Remark { remark: format!("{entries} ledger entries were repaired") });
        Ok(())
    }

    async fn up(
        &self,
        lock: RunLock,
        to: Option<i64>,
        stop: watch::Receiver<Stop>,
        mut events: impl FnMut(Event),
    ) -> Result<RolloutReport, Error> {
        for remark in preflight::up(self.admin, self.migrations).await? {
            events(Event::Remark { remark });
        }
        let mut run = self.record(to).await?;
        let mut public = 0;
        if self.options.public {
            let set = &self.migrations.public;
            let progress = |now: &AppliedNow| {
                public += 1;
                events(Event::public(now));
            };
            let applied = public::up(self.admin, set, to, run, progress).await;
            self.or_record_failure(run, applied).await?;
        }
        if run.is_none() {
            run = self.record(to).await?;
        }
        let Some(run) = run else {
            return Ok(RolloutReport::of_public(public));
        };
        if self.options.public && to.is_none() {
            let repeated = public::repeat(self.admin, &self.migrations.public, run).await;
            self.or_record_failure(Some(run), repeated).await?;
        }
        let route = Route::up(&self.migrations.tenant, to);
        let journey = Journey { admin: self.admin, route, run: Some(run) };
        if self.options.tenants != Tenants::None {
            let db = self.admin.connection().await?;
            let behind = public::require_public_head(&**db, &self.migrations.public).await;
            // With `to`, the public schema was brought as far as was asked.
            self.or_record_failure(Some(run), if to.is_none() { behind } else { Ok(()) }).await?;
        }
        self.fleet(journey, run, lock, stop, events, public).await.map(|(report, _)| report)
    }

    async fn down(
        &self,
        lock: RunLock,
        to: i64,
        accept_data_loss: bool,
        stop: watch::Receiver<Stop>,
        mut events: impl FnMut(Event),
    ) -> Result<RolloutReport, Error> {
        let plan = plan_back(self.admin, self.migrations, self.options, to).await?;
        if !accept_data_loss && !plan.losses.is_empty() {
            return Err(MigrationError::DataLoss { losses: plan.losses }.into());
        }
        let run = self.record(Some(to)).await?;
        let route = Route::down(&self.migrations.tenant, to, accept_data_loss);
        let journey = Journey { admin: self.admin, route, run };
        // Held to the end: nobody may go up while the public schema goes back.
        let (mut report, _lock) = match run {
            Some(run) => self.fleet(journey, run, lock, stop, &mut events, 0).await?,
            None => (RolloutReport::of_public(0), lock),
        };
        let through = report.state == RunState::Complete && report.left == 0;
        if self.options.public && through {
            let progress = |now: &AppliedNow| {
                report.public += 1;
                events(Event::public(now));
            };
            let public_set = &self.migrations.public;
            let to = self.options.public_goal(self.migrations, to);
            let back = public::down(self.admin, public_set, to, accept_data_loss, progress).await;
            self.or_record_failure(run, back).await?;
            let db = self.admin.connection().await?;
            if !record::is_possible(&**db).await? {
                report.run = None;
            }
        }
        Ok(report)
    }

    /// Takes the tenants along, those that were created meanwhile, and those whose last commit a crash of
    /// the server took back.
    async fn fleet(
        &self,
        journey: Journey<'_>,
        run: Uuid,
        lock: RunLock,
        stop: watch::Receiver<Stop>,
        events: impl FnMut(Event),
        public: usize,
    ) -> Result<(RolloutReport, RunLock), Error> {
        let options = self.options;
        let tenants = self.concerned(journey.route, &options.tenants).await?;
        let mut total = tenants.len();
        let settings = (options.parallel, options.tolerance);
        let mut fleet = Fleet::new(journey, run, lock, settings, stop, events);
        let mut seen: std::collections::HashSet<TenantId> = tenants.iter().map(|t| t.id).collect();
        let everybody = [Portion::Percent(100)];
        let reaches_all = super::waves::ends(&options.waves, tenants.len()).last() == Some(&total);
        fleet.travel(tenants, &options.waves).await;
        let newcomers_too = (total == 0 || reaches_all) && options.tenants == Tenants::All;
        while fleet.may_go_on() && (newcomers_too || fleet.lost_server) {
            let mut more = self.concerned(journey.route, &options.tenants).await?;
            more.retain(|tenant| match seen.contains(&tenant.id) {
                true => fleet.fell_back(tenant.id),
                false => newcomers_too,
            });
            if more.is_empty() {
                break;
            }
            total += more.iter().filter(|tenant| seen.insert(tenant.id)).count();
            fleet.travel(more, &everybody).await;
        }
        let Fleet { mut counts, failures, halted, lock, .. } = fleet;
        counts.total = total;
        let left = total - counts.done - counts.failed - counts.skipped;
        let (state, error) = match halted {
            Some(Halt::Signal) => (RunState::Interrupted, None),
            Some(Halt::Error(error)) => (RunState::Interrupted, Some(error)),
            Some(Halt::Failures) => (RunState::Failed, None),
            None if failures.is_empty() => (RunState::Complete, None),
            None => (RunState::Failed, None),
        };
        let ended = record::end(self.admin, run, counts, state, &failures).await;
        match (&error, ended) {
            // The first error says more.
            (None, Err(error)) => return Err(error),
            (Some(_), Err(error)) => {
                tracing::warn!(error = %error, "can't record how the run ended");
            }
            (_, Ok(())) => {}
        }
        let run = Some(run);
        let report = RolloutReport { run, state, public, tenants: counts, left, failures, error };
        Ok((report, lock))
    }

    async fn concerned(&self, route: Route<'_>, who: &Tenants) -> Result<Vec<Standing>, Error> {
        let db = self.admin.connection().await?;
        standing::concerned(&**db, route, who).await
    }

    async fn record(&self, target: Option<i64>) -> Result<Option<Uuid>, Error> {
        let db = self.admin.connection().await?;
        if !record::is_possible(&**db).await? {
            return Ok(None);
        }
        let direction = match self.options.direction {
            Direction::Up { .. } => "up",
            Direction::Down { .. } => "down",
        };
        record::begin(self.admin, direction, target, self.actor).await.map(Some)
    }

    /// The public schema failed: nobody sets out.
    async fn or_record_failure<T>(
        &self,
        run: Option<Uuid>,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let (Some(run), Err(error)) = (run, &result) {
            let failure = SchemaFailure::new(SetKind::Public.to_string(), error);
            let counts = Counts::default();
            let ended = record::end(self.admin, run, counts, RunState::Failed, &[failure]).await;
            if let Err(error) = ended {
                tracing::warn!(error = %error, "can't record how the run ended");
            }
        }
        result
    }
}

impl RolloutReport {
    fn of_public(public: usize) -> Self {
        Self {
            run: None,
            state: RunState::Complete,
            public,
            tenants: Counts::default(),
            left: 0,
            failures: Vec::new(),
            error: None,
        }
    }
}
