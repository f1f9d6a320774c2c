//! Many tenants at once: waves, retries, and knowing when to stop or to slow down.
//!
//! One task drives all of it. Each try is a future with a connection of its own; a tenant that has to
//! wait for its next try holds none.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::attempt::{Attempted, Verdict, attempt};
use super::event::Event;
use super::record::{self, Counts, RunLock, SchemaFailure};
use super::rollout::{Stop, Tolerance};
use super::session::Session;
use super::standing::Standing;
use super::tenant::{Arrival, Journey};
use super::traveller::Traveller;
use super::waves::{self, Portion};
use crate::error::Error;
use crate::ids::TenantId;

/// After this time without a sign of the server, a run gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what is under way may go on once somebody wants to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How often a run notes how far it came, and looks after its lock.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// After so many successes in a row, one more tenant at once is dared again.
const DARE_AFTER: usize = 20;

/// A fleet on its way.
pub(super) struct Fleet<'a, E> {
    journey: Journey<'a>,
    run: Uuid,
    pub(super) lock: RunLock,
    parallel: usize,
    tolerance: Tolerance,
    stop: watch::Receiver<Stop>,
    events: E,
    cancel: watch::Sender<bool>,
    look_after: Duration,
    in_flight: FuturesUnordered<BoxFuture<'a, Tried>>,
    idle: Vec<Session>,
    ready: VecDeque<Traveller>,
    waiting: Vec<(Instant, Traveller)>,
    limit: usize,
    smooth: usize,
    away_since: Option<Instant>,
    there: HashSet<TenantId>,
    /// Whether the server was away for a while, and may have crashed.
    pub(super) lost_server: bool,
    pub(super) counts: Counts,
    pub(super) failures: Vec<SchemaFailure>,
    /// Why nobody new sets out.
    pub(super) halted: Option<Halt>,
}

/// Why nobody new sets out.
#[derive(Debug)]
pub(super) enum Halt {
    /// Too many failed.
    Failures,
    /// Somebody stopped it.
    Signal,
    /// The server was lost, or another runner took over.
    Error(Error),
}

struct Tried {
    attempted: Attempted,
    attempts: u32,
    lost: u32,
}

impl<'a, E: FnMut(Event)> Fleet<'a, E> {
    pub(super) fn new(
        journey: Journey<'a>,
        run: Uuid,
        lock: RunLock,
        settings: (u16, Tolerance),
        stop: watch::Receiver<Stop>,
        events: E,
    ) -> Self {
        let parallel = usize::from(settings.0.max(1));
        Self {
            look_after: journey.look_after(),
            journey,
            run,
            lock,
            parallel,
            tolerance: settings.1,
            stop,
            events,
            cancel: watch::Sender::new(false),
            in_flight: FuturesUnordered::new(),
            idle: Vec::new(),
            ready: VecDeque::new(),
            waiting: Vec::new(),
            limit: parallel,
            smooth: 0,
            away_since: None,
            there: HashSet::new(),
            lost_server: false,
            counts: Counts::default(),
            failures: Vec::new(),
            halted: None,
        }
    }

    pub(super) fn say(&mut self, event: Event) {
        (self.events)(event);
    }

    /// Takes tenants along in waves; a wave begins when the one before is through and clean.
    pub(super) async fn travel(&mut self, tenants: Vec<Standing>, portions: &[Portion]) {
        self.counts.total += tenants.len();
        let ends = waves::ends(portions, tenants.len());
        let mut tenants = tenants.into_iter();
        let mut from = 0;
        for (number, end) in ends.iter().enumerate() {
            if !self.may_go_on() {
                return;
            }
            self.say(Event::WaveBegan {
                wave: number + 1,
                waves: ends.len(),
                tenants: end - from,
                total: self.counts.total,
            });
            self.ready.extend(tenants.by_ref().take(end - from).map(Traveller::new));
            from = *end;
            self.wave().await;
        }
    }

    /// Whether somebody who has arrived is not there any more, as after a crash: commits of a fleet's
    /// sessions do not wait for the disk. They are counted anew.
    pub(super) fn fell_back(&mut self, tenant: TenantId) -> bool {
        let fell_back = self.there.remove(&tenant);
        if fell_back {
            self.counts.done -= 1;
            self.counts.total -= 1;
        }
        fell_back
    }

    /// Whether somebody new may set out.
    pub(super) fn may_go_on(&self) -> bool {
        self.halted.is_none() && self.is_clean()
    }

    fn is_clean(&self) -> bool {
        match self.tolerance {
            Tolerance::Continue { max_failures: Some(max) } => {
                self.failures.len() <= max.of(self.counts.total)
            }
            Tolerance::Stop | Tolerance::Continue { max_failures: None } => {
                self.failures.is_empty()
            }
        }
    }

    async fn wave(&mut self) {
        let mut note_at = Instant::now() + NOTE_EVERY;
        let mut cancel_at = None;
        loop {
            self.look_for_stop(&mut cancel_at);
            if self.halted.is_none() {
                self.set_out();
            } else {
                self.ready.clear();
                self.waiting.clear();
            }
            if self.in_flight.is_empty() && self.ready.is_empty() && self.waiting.is_empty() {
                return;
            }
            let wake_at = self.next_retry().map_or(note_at, |at| at.min(note_at));
            let wake_at = cancel_at.map_or(wake_at, |at: Instant| at.min(wake_at));
            let (mut stop, mut hurry) = (self.stop.clone(), self.stop.clone());
            let halted = self.halted.is_some();
            tokio::select! {
                Some(tried) = self.in_flight.next() => self.arrived(tried).await,
                () = tokio::time::sleep_until(wake_at) => {}
                () = is_wished(&mut stop, |stop| stop != Stop::Go), if !halted => {}
                () = is_wished(&mut hurry, |stop| stop == Stop::Cancel),
                    if halted && !*self.cancel.borrow() => {}
            }
            if Instant::now() >= note_at {
                self.note().await;
                note_at = Instant::now() + NOTE_EVERY;
            }
        }
    }

    fn look_for_stop(&mut self, cancel_at: &mut Option<Instant>) {
        let wish = *self.stop.borrow();
        if wish != Stop::Go && self.halted.is_none() {
            self.halted = Some(Halt::Signal);
            let under_way = self.in_flight.len();
            self.say(Event::Stopping { under_way });
        }
        if wish != Stop::Go && cancel_at.is_none() {
            *cancel_at = Some(Instant::now() + GRACE);
        }
        if wish == Stop::Cancel || cancel_at.is_some_and(|at| Instant::now() >= at) {
            self.cancel.send_replace(true);
            // It is done once; what is left is waiting for the answers.
            *cancel_at = cancel_at.map(|_| Instant::now() + PATIENCE);
        }
    }

    fn set_out(&mut self) {
        let now = Instant::now();
        let due = |(at, _): &mut (Instant, Traveller)| *at <= now;
        self.ready.extend(self.waiting.extract_if(.., due).map(|(_, traveller)| traveller));
        while self.in_flight.len() < self.limit {
            let Some(Traveller { standing, attempts, lost }) = self.ready.pop_front() else {
                return;
            };
            let (journey, session) = (self.journey, self.idle.pop());
            let (cancel, look_after) = (self.cancel.subscribe(), self.look_after);
            self.in_flight.push(Box::pin(async move {
                let attempted = attempt(journey, session, standing, cancel, look_after).await;
                Tried { attempted, attempts: attempts + 1, lost }
            }));
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        // While there is no room, somebody's arrival is what to wait for.
        let has_room = self.in_flight.len() < self.limit;
        self.waiting.iter().map(|(at, _)| *at).min().filter(|_| has_room)
    }

    async fn arrived(&mut self, tried: Tried) {
        let Tried { attempted, attempts, lost } = tried;
        let Attempted { standing, session, result, applied, blocked_by, cancelled } = attempted;
        self.idle.extend(session);
        for now in &applied {
            self.say(Event::applied(&standing, now));
        }
        match result {
            Ok(arrival) => {
                self.went_well();
                match arrival {
                    Arrival::There => {
                        self.counts.done += 1;
                        self.there.insert(standing.id);
                    }
                    Arrival::Gone => {
                        self.counts.skipped += 1;
                        self.say(Event::Skipped { tenant: standing.id });
                    }
                }
                let (tenant, subdomain) = (standing.id, standing.subdomain);
                let Counts { done, total, .. } = self.counts;
                self.say(Event::TenantDone { tenant, subdomain, done, total });
            }
            Err(_) if cancelled => {}
            Err(error) => {
                let traveller = Traveller { standing, attempts, lost };
                self.went_wrong(traveller, error, blocked_by).await;
            }
        }
    }

    fn went_well(&mut self) {
        self.away_since = None;
        self.smooth += 1;
        if self.smooth >= DARE_AFTER && self.limit < self.parallel {
            self.limit += 1;
            self.smooth = 0;
        }
    }

    async fn went_wrong(
        &mut self,
        mut traveller: Traveller,
        error: Error,
        blocked_by: Vec<record::Blocker>,
    ) {
        let verdict = Verdict::of(&error);
        let retries = u32::from(self.journey.admin.limits.retries);
        let again = match verdict {
            Verdict::Final => false,
            Verdict::Later => {
                self.away_since = None;
                traveller.attempts <= retries
            }
            Verdict::Overloaded => {
                self.away_since = None;
                self.slow_down();
                traveller.attempts <= retries
            }
            Verdict::Away => {
                // The tenant is not to blame, unless each of its tries ends so.
                const MAX_LOST: u32 = 30;
                traveller.attempts = traveller.attempts.saturating_sub(1);
                traveller.lost += 1;
                self.idle.clear();
                self.lost_server = true;
                let since = *self.away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE && self.halted.is_none() {
                    self.halted = Some(Halt::Error(error));
                    return;
                }
                traveller.lost < MAX_LOST
            }
        };
        if again {
            let tries = traveller.attempts + traveller.lost;
            let pause = traveller.pause(tries);
            self.say(Event::Retrying {
                tenant: traveller.standing.id,
                subdomain: traveller.standing.subdomain.clone(),
                reason: SchemaFailure::new(String::new(), &error).message,
                blocked_by,
                attempt: tries,
                pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            });
            self.waiting.push((Instant::now() + pause, traveller));
            return;
        }
        let standing = traveller.standing;
        let mut failure = SchemaFailure::new(standing.id.schema().to_string(), &error);
        failure.tenant = Some(standing.id);
        failure.subdomain = standing.subdomain;
        failure.version = standing.version;
        failure.blocked_by = blocked_by;
        failure.attempts = traveller.attempts + traveller.lost;
        self.failed(failure).await;
    }

    async fn failed(&mut self, failure: SchemaFailure) {
        if let Err(error) = record::failed(self.journey.admin, self.run, &failure).await {
            // All of them are recorded again at the end.
            tracing::warn!(error = %error, "can't record a failure yet");
        }
        self.counts.failed += 1;
        self.say(Event::Failed(failure.clone()));
        self.failures.push(failure);
        let too_many = match self.tolerance {
            Tolerance::Stop => true,
            Tolerance::Continue { max_failures: None } => false,
            Tolerance::Continue { max_failures: Some(_) } => !self.is_clean(),
        };
        if too_many && self.halted.is_none() {
            self.halted = Some(Halt::Failures);
        }
    }

    /// The server is out of something: half as many at once, and not so soon more again.
    fn slow_down(&mut self) {
        self.idle.truncate(self.limit / 2);
        self.smooth = 0;
        let limit = (self.limit / 2).max(1);
        if limit < self.limit {
            self.limit = limit;
            self.say(Event::SlowedDown { parallel: limit });
        }
    }

    /// Notes how far it came, and looks whether nobody else has taken over.
    async fn note(&mut self) {
        const LIMIT: Duration = Duration::from_secs(1);
        let admin = self.journey.admin;
        if self.lock.is_lost() {
            match tokio::time::timeout(LIMIT, RunLock::take(admin)).await {
                Ok(Ok(lock)) => self.lock = lock,
                Ok(Err(error @ Error::Busy(_))) => self.halted = Some(Halt::Error(error)),
                // The server is away: the tries tell of it.
                Ok(Err(_)) | Err(_) => return,
            }
        }
        let noted = tokio::time::timeout(LIMIT, record::note(admin, self.run, self.counts)).await;
        if let Ok(Err(error)) = noted {
            tracing::debug!(error = %error, "can't note how far the run has come");
        }
    }
}

/// Waits for a wish. Nobody is left to have it: waits for ever. Keeps no guard over an await, so that a
/// run may be spawned.
async fn is_wished(stop: &mut watch::Receiver<Stop>, wished: impl Fn(Stop) -> bool) {
    let gone = stop.wait_for(|stop| wished(*stop)).await.is_err();
    if gone {
        std::future::pending::<()>().await;
    }
}
