//! What is known of a replica, for people and metrics.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::health::{Look, Reason, State};
use super::{Replica, Replicas, look, watch};
use crate::config::Config;
use crate::direct::ReaderDb;
use crate::error::Error;

/// What the last look found.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastLook {
    problem: Option<String>,
    replayed: Option<String>,
    timeline: Option<u32>,
    lag_ms: Option<u64>,
    behind_bytes: Option<u64>,
    silence_ms: Option<u64>,
    heartbeat_age_ms: Option<u64>,
}

impl LastLook {
    pub(super) fn new(look: &Look, problem: Option<String>) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).ok();
        let facts = look.facts.as_ref().ok();
        let receiver = facts.and_then(|facts| facts.receiver.as_ref());
        Self {
            problem,
            replayed: facts.and_then(|facts| facts.replayed).map(|lsn| lsn.to_string()),
            timeline: receiver.and_then(|receiver| receiver.timeline),
            lag_ms: look.lag.time.and_then(ms),
            behind_bytes: look.lag.bytes,
            silence_ms: receiver.and_then(|receiver| receiver.silence).and_then(ms),
            heartbeat_age_ms: look.heartbeat_age.and_then(ms),
        }
    }
}

/// What is known of a replica.
#[derive(Debug, Clone, Serialize)]
pub struct ReplicaView {
    /// Where it is, as PgBouncer's entry.
    pub name: String,
    /// Whether it is read from.
    pub state: State,
    /// What speaks against it.
    pub reasons: Vec<Reason>,
    /// In which words it refused to answer.
    pub problem: Option<String>,
    /// How far behind the primary it is in time, at most.
    pub lag_ms: Option<u64>,
    /// How far behind the primary it is in WAL.
    pub behind_bytes: Option<u64>,
    /// How long the primary has sent it nothing.
    pub silence_ms: Option<u64>,
    /// How old the heartbeat is that it shows.
    pub heartbeat_age_ms: Option<u64>,
    /// The position up to which it has replayed.
    pub replayed: Option<String>,
    /// The timeline that it follows.
    pub timeline: Option<u32>,
    /// Reads under way there, from this process.
    #[serde(skip)]
    pub under_way: usize,
    /// Reads that it has answered, for this process.
    #[serde(skip)]
    pub reads: u64,
}

impl ReplicaView {
    pub(super) fn of(replica: &Replica) -> Self {
        let seen = replica.seen.borrow().clone();
        let last = seen.last.unwrap_or_default();
        Self {
            name: replica.name.clone(),
            state: seen.health.state,
            reasons: seen.health.reasons,
            problem: last.problem,
            lag_ms: last.lag_ms,
            behind_bytes: last.behind_bytes,
            silence_ms: last.silence_ms,
            heartbeat_age_ms: last.heartbeat_age_ms,
            replayed: last.replayed,
            timeline: last.timeline,
            under_way: replica.under_way.load(Ordering::Relaxed),
            reads: replica.reads.load(Ordering::Relaxed),
        }
    }
}

/// How long [`inspect`] lets a replica catch up that is behind at its first look.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Looks at each replica, beside the primary; if one is behind, once more a second later, since a replica in
/// good order has by then what was the newest before. A running service remembers more looks, so it may still
/// read from one that is found bad here, or not yet from a good one.
///
/// # Errors
/// [`Error::Config`] for a missing setting. Servers that do not answer are no error.
pub async fn inspect(config: &Config) -> Result<Vec<ReplicaView>, Error> {
    let mut hasty = config.clone();
    (hasty.replicas.fall, hasty.replicas.rise) = (1, 1);
    let replicas = Replicas::new(&hasty)?;
    let reader = ReaderDb::new(config)?;
    look_once(&replicas, &reader).await;
    if replicas.views().iter().any(|view| view.behind_bytes > Some(0)) {
        tokio::time::sleep(CATCH_UP).await;
        look_once(&replicas, &reader).await;
    }
    Ok(replicas.views())
}

async fn look_once(replicas: &Replicas, reader: &ReaderDb) {
    let limits = replicas.limits();
    let asked = Instant::now();
    let primary = tokio::time::timeout(limits.poll_timeout, async {
        look::primary(&reader.single_session().await?).await
    });
    if let Ok(Ok(facts)) = primary.await {
        replicas.track().note(asked, facts);
    }
    let looks = replicas.replicas.iter().map(async |replica| {
        let mut sessions = watch::Sessions::default();
        let answer = watch::ask(replica, &replicas.question, limits, &mut sessions).await;
        watch::note(replicas, replica, answer);
    });
    futures_util::future::join_all(looks).await;
}
