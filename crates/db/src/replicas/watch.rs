//! Looking at the primary and each replica again and again, each at its own pace.

use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use tokio_postgres::Client;

use super::health::{Facts, Health, Look, Reason, State, Way, judge};
use super::track::Shown;
use super::view::LastLook;
use super::{Replica, Replicas, look};
use crate::config;
use crate::direct::connect_once;
use crate::error::Error;
use crate::installation::Installation;

/// After a read that broke off, the next look comes so soon, and not sooner.
const SOON: Duration = Duration::from_millis(100);

/// Watches the replicas until `stop` is done: run it beside whatever serves tenants. Without it no replica
/// is read from. Where there are none, only waits.
pub async fn watch(installation: Installation, stop: impl Future<Output = ()>) {
    let replicas = installation.replicas();
    if replicas.is_empty() {
        return stop.await;
    }
    let each = replicas.replicas.iter().map(|replica| forever(replicas, replica));
    let all = join(primary_forever(&installation), join_all(each));
    tokio::select! {
        biased;
        () = pin!(stop) => {}
        _ = all => {}
    }
}

async fn primary_forever(installation: &Installation) {
    let replicas = installation.replicas();
    let limits = replicas.limits();
    let mut session = None;
    loop {
        let asked = Instant::now();
        let answer = tokio::time::timeout(limits.poll_timeout, async {
            let client = match session.take() {
                Some(client) => client,
                None => installation.reader().single_session().await?,
            };
            let facts = look::primary(&client).await?;
            session = Some(client);
            Ok::<_, Error>(facts)
        });
        match answer.await {
            Ok(Ok(facts)) => replicas.track().note(asked, facts),
            // Whoever needs the primary says so; replicas are judged by what they heard themselves.
            Ok(Err(error)) => tracing::debug!(%error, "the primary does not say where it is"),
            Err(_) => tracing::debug!("the primary does not say in time where it is"),
        }
        tokio::time::sleep(jittered(limits.poll_every)).await;
    }
}

async fn forever(replicas: &Replicas, replica: &Replica) {
    let limits = replicas.limits();
    let mut sessions = Sessions::default();
    loop {
        let answer = ask(replica, &replicas.question, limits, &mut sessions).await;
        if let Some(before) = note(replicas, replica, answer) {
            say(replica, before);
        }
        tokio::select! {
            () = replica.suspect.notified() => tokio::time::sleep(SOON.min(limits.poll_every)).await,
            () = tokio::time::sleep(jittered(limits.poll_every)) => {}
        }
    }
}

/// The connections over which a replica is asked, kept while they are good.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    direct: Option<Client>,
    pooled: Option<Client>,
    /// How many reads the replica had answered at the last look.
    reads: u64,
}

/// What was learned of a replica: what it says of itself, and how it is reached by tenants' reads.
pub(super) type Answer = (Result<Facts, (Reason, String)>, Way);

/// Asks a replica, within a time that counts connecting in.
pub(super) async fn ask(
    replica: &Replica,
    question: &str,
    limits: &config::Replicas,
    sessions: &mut Sessions,
) -> Answer {
    let patience = limits.poll_timeout;
    let Sessions { direct, pooled, reads } = sessions;
    let facts = async {
        let client = match direct.take() {
            Some(client) => client,
            None => connect_once(&replica.direct, patience)
                .await
                .map_err(|error| (Reason::Unreachable, error))?,
        };
        let answer = look::replica(&client, question).await;
        if answer.is_ok() {
            *direct = Some(client);
        }
        answer
    };
    let facts = async {
        match tokio::time::timeout(patience, facts).await {
            Ok(answer) => {
                answer.map_err(|(reason, error)| (reason, crate::background::causes(&error)))
            }
            Err(_) => Err((Reason::Unreachable, format!("no answer within {patience:?}"))),
        }
    };
    join(facts, way(replica, limits, pooled, reads)).await
}

/// Tries the way of tenants' reads, unless they try it themselves: where all connections are busy, one more
/// question would wait for its turn and take that for a fault.
async fn way(
    replica: &Replica,
    limits: &config::Replicas,
    session: &mut Option<Client>,
    reads: &mut u64,
) -> Way {
    if replica.broken.load(Ordering::Relaxed) >= limits.fall {
        // Said once; after that it has its chance again.
        replica.broken.store(0, Ordering::Relaxed);
        return Way::BreaksOff;
    }
    let answered = replica.reads.load(Ordering::Relaxed);
    if std::mem::replace(reads, answered) != answered {
        return Way::InUse;
    }
    let patience = limits.poll_timeout;
    let tried = async {
        let client = match session.take() {
            Some(client) => client,
            None => connect_once(&replica.pooled, patience).await?,
        };
        let started = look::way(&client).await?;
        *session = Some(client);
        Ok::<_, Error>(started)
    };
    match tokio::time::timeout(patience, tried).await {
        Ok(Ok(started)) => Way::LeadsTo(started),
        Ok(Err(error)) => {
            tracing::debug!(replica = replica.name, %error, "PgBouncer does not lead to the replica");
            Way::Closed
        }
        Err(_) => Way::Closed,
    }
}

/// Takes in what a look found, and yields the replica's state before if that changed.
pub(super) fn note(replicas: &Replicas, replica: &Replica, (answer, way): Answer) -> Option<State> {
    let limits = replicas.limits();
    let problem = answer.as_ref().err().map(|(_, problem)| problem.clone());
    let facts = answer.map_err(|(reason, _)| reason);
    let now = Instant::now();
    let look = {
        let track = replicas.track();
        let known = facts.as_ref().ok();
        let replayed = known.and_then(|facts| facts.replayed);
        if let Some(replayed) = replayed {
            replica.note_replayed(replayed.into());
        }
        let age = |micros: Option<i64>| micros.and_then(|at| track.age(now, at));
        let beat_at = known.and_then(|facts| facts.beat_at_micros);
        let shown = Shown {
            replayed,
            heard: known.and_then(|facts| facts.receiver.as_ref()?.primary_end),
            commit_age: age(known.and_then(|facts| facts.committed_at_micros).max(beat_at)),
        };
        Look {
            lag: track.lag(now, shown),
            heartbeat_age: age(beat_at),
            primary_timeline: track.timeline(),
            facts,
            way,
        }
    };
    let mut before = None;
    replica.seen.send_modify(|seen| {
        let reasons = judge(&look, limits, seen.health.is_returning());
        let state = seen.health.state;
        before = seen.health.observe(reasons, limits).then_some(state);
        seen.last = Some(LastLook::new(&look, problem));
    });
    before
}

fn say(replica: &Replica, before: State) {
    let Health { state, reasons, .. } = replica.seen.borrow().health.clone();
    let name = &replica.name;
    match state {
        // Whoever was warned that it is not wants to hear of the end as well.
        State::Healthy if before == State::Unhealthy => {
            tracing::warn!("replica {name} is read from again");
        }
        State::Healthy => tracing::info!("replica {name} is read from"),
        State::Unhealthy | State::Unknown => {
            let reasons: Vec<&str> = reasons.iter().map(|reason| reason.in_words()).collect();
            tracing::warn!("replica {name} is not read from: it {}", reasons.join(", "));
        }
    }
}

/// A tenth more or less, so that many instances do not ask all at once.
fn jittered(every: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 201;
    every * (900 + u32::try_from(random).unwrap_or(0)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_tenth_at_most() {
        let paces: Vec<u128> =
            (0..1000).map(|_| jittered(Duration::from_secs(1)).as_millis()).collect();
        assert!(paces.iter().all(|ms| (900..=1100).contains(ms)));
        assert!(paces.iter().min() < Some(&950) && paces.iter().max() > Some(&1050));
    }
}
