//! Who answers a read: the healthy replica with the fewest reads under way, or the primary.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_postgres::types::PgLsn;

use super::{Replica, Replicas, State};
use crate::error::Error;
use crate::ids::LaneId;
use crate::lanes::LaneConnection;

/// Who answered a read, and if it was the primary, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOn {
    /// A replica.
    Replica,
    /// The primary: no replica is healthy.
    NoneHealthy,
    /// The primary: changes of tenants are not heard of, so a replica could serve one that is shut out.
    Unannounced,
    /// The primary: nobody knows what the caller's token asks for.
    Token,
    /// The primary: the replica was older than what the caller has written or seen.
    Stale,
    /// The primary: the replica does not know the tenant yet, or no longer.
    NotBound,
    /// The primary: the replica lacks something that the statement names.
    Missing,
    /// The primary: the replica's replay got in the statement's way.
    Conflict,
    /// The primary: the connection to the replica was lost, or there was none in time.
    Lost,
    /// The primary: the replica could not run the statement, for instance for want of memory.
    Broken,
}

impl ReadOn {
    pub(crate) const COUNT: usize = 10;

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Replica,
            Self::NoneHealthy,
            Self::Unannounced,
            Self::Token,
            Self::Stale,
            Self::NotBound,
            Self::Missing,
            Self::Conflict,
            Self::Lost,
            Self::Broken,
        ]
        .into_iter()
    }

    /// As in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::NoneHealthy => "none_healthy",
            Self::Unannounced => "unannounced",
            Self::Token => "token",
            Self::Stale => "stale",
            Self::NotBound => "not_bound",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Lost => "lost",
            Self::Broken => "broken",
        }
    }

    pub(super) fn index(self) -> usize {
        Self::all().position(|on| on == self).unwrap_or_default()
    }
}

/// How long a replica that had not reached a position is not asked for it again.
const REFUSED_FOR: Duration = Duration::from_millis(10);

/// A position that a replica had not reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    position: PgLsn,
    at: Instant,
}

/// What was chosen.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    Replica(Lease<'a>),
    Primary(ReadOn),
}

impl Replicas {
    /// Chooses for a read that must show at least this. A replica that is not known to have come so far
    /// may be chosen all the same: it will tell.
    pub(crate) fn choose(&self, needed: PgLsn) -> Choice<'_> {
        if needed == PgLsn::from(super::memory::BEYOND) {
            return Choice::Primary(ReadOn::Stale);
        }
        let now = Instant::now();
        let mut why = ReadOn::NoneHealthy;
        let mut best: Option<((bool, bool, usize), &Replica)> = None;
        for replica in &self.replicas {
            let doubtful = {
                let seen = replica.seen.borrow();
                if seen.health.state != State::Healthy {
                    continue;
                }
                !seen.health.reasons.is_empty()
            };
            if replica.has_refused(needed, now) {
                why = ReadOn::Stale;
                continue;
            }
            let behind = PgLsn::from(replica.replayed.load(Ordering::Acquire)) < needed;
            let rank = (doubtful, behind, replica.under_way.load(Ordering::Relaxed));
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, replica));
            }
        }
        match best {
            Some((_, replica)) => Choice::Replica(Lease::new(replica)),
            None => Choice::Primary(why),
        }
    }

    /// Notes who answered a read.
    pub(crate) fn count(&self, on: ReadOn) {
        self.counts[on.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until a read may go to the primary: a share of the lane's connections is left to writes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it took too long.
    pub(crate) async fn fallback(
        &self,
        lane: LaneId,
        patience: Duration,
    ) -> Result<Option<tokio::sync::SemaphorePermit<'_>>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let permits = &self.fallback[usize::from(lane.number())];
        match tokio::time::timeout(patience, permits.acquire()).await {
            Ok(permit) => Ok(permit.ok()),
            Err(elapsed) => Err(Error::Unavailable {
                server: "the primary for a read that no replica answers".to_owned(),
                source: Box::new(elapsed),
            }),
        }
    }
}

impl Replica {
    fn has_refused(&self, needed: PgLsn, now: Instant) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|refusal| {
            refusal.position <= needed && now.duration_since(refusal.at) < REFUSED_FOR
        })
    }
}

/// A replica while one read is under way there.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    replica: &'a Replica,
}

impl<'a> Lease<'a> {
    fn new(replica: &'a Replica) -> Self {
        replica.under_way.fetch_add(1, Ordering::Relaxed);
        Self { replica }
    }

    pub(crate) fn name(&self) -> &str {
        &self.replica.name
    }

    pub(crate) async fn connection(&self, lane: LaneId) -> Result<LaneConnection, Error> {
        self.replica.lanes.connection(lane).await
    }

    /// Done when the replica turns out to be out of reach: whoever waits for it waits in vain.
    pub(crate) async fn gone(&self) {
        let mut seen = self.replica.seen.subscribe();
        let gone = seen.wait_for(|seen| {
            seen.health.state == State::Unhealthy
                && seen.health.reasons.iter().any(|reason| reason.ends_reads())
        });
        if gone.await.is_err() {
            // Nobody will ever say so.
            std::future::pending::<()>().await;
        }
    }

    /// The read was answered.
    pub(crate) fn answered(&self, replayed: Option<PgLsn>) {
        self.replica.reads.fetch_add(1, Ordering::Relaxed);
        self.replica.broken.store(0, Ordering::Relaxed);
        if let Some(replayed) = replayed {
            self.replica.note_replayed(replayed.into());
        }
    }

    /// The replica had not come so far.
    pub(crate) fn refused(&self, position: PgLsn) {
        let mut refused = self.replica.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = Some(Refusal { position, at: Instant::now() });
    }

    /// The read broke off there.
    pub(crate) fn broken(&self) {
        self.replica.broken.fetch_add(1, Ordering::Relaxed);
        self.replica.suspect.notify_one();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.replica.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
