//! Whether a replica may be read from: what was seen of it in, a verdict out. Asks nobody itself.
//!
//! Time since the last replayed commit is not looked at: it is unknown on a fresh replica, and grows on an
//! idle primary. The distance to what the replica has received is not either: it is none while the
//! replica is cut off. How far behind it is, is told by what the primary itself said ([`Track`]).
//!
//! [`Track`]: super::track::Track

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::types::PgLsn;

use super::track::Lag;
use crate::config;

/// Why a replica is not read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It does not answer, or not in time.
    Unreachable,
    /// The reader may not ask it: `tenantry init` has not run since the last upgrade.
    NotPermitted,
    /// It is no replica any more: somebody promoted it.
    NotAReplica,
    /// It follows another history than the primary's.
    OtherTimeline,
    /// Somebody stopped its replay.
    Paused,
    /// It has no connection to the primary.
    NotStreaming,
    /// The primary has sent it nothing for too long.
    Silent,
    /// It is too far behind the primary in time.
    BehindInTime,
    /// It is too far behind the primary in WAL.
    BehindInWal,
    /// The heartbeat that it shows is too old.
    OldHeartbeat,
    /// It shows no heartbeat: the public migrations have not come there.
    NoHeartbeat,
    /// It answers the reader, but not by way of PgBouncer, as tenants' reads go.
    NoWay,
    /// PgBouncer's entry leads to another server than the address at which health is asked.
    OtherServer,
    /// Tenants' reads broke off there, several in a row.
    ReadsFail,
    /// Nothing speaks against it any more, but not for long enough yet.
    Returning,
}

impl Reason {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Unreachable,
            Self::NotPermitted,
            Self::NotAReplica,
            Self::OtherTimeline,
            Self::Paused,
            Self::NotStreaming,
            Self::Silent,
            Self::BehindInTime,
            Self::BehindInWal,
            Self::OldHeartbeat,
            Self::NoHeartbeat,
            Self::NoWay,
            Self::OtherServer,
            Self::ReadsFail,
            Self::Returning,
        ]
        .into_iter()
    }

    /// As in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::NotPermitted => "not_permitted",
            Self::NotAReplica => "not_a_replica",
            Self::OtherTimeline => "other_timeline",
            Self::Paused => "paused",
            Self::NotStreaming => "not_streaming",
            Self::Silent => "silent",
            Self::BehindInTime => "behind_in_time",
            Self::BehindInWal => "behind_in_wal",
            Self::OldHeartbeat => "old_heartbeat",
            Self::NoHeartbeat => "no_heartbeat",
            Self::NoWay => "no_way",
            Self::OtherServer => "other_server",
            Self::ReadsFail => "reads_fail",
            Self::Returning => "returning",
        }
    }

    /// For people, after the replica's name.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unreachable => "does not answer",
            Self::NotPermitted => {
                "can't be asked about its health by the reader: run `tenantry init`"
            }
            Self::NotAReplica => {
                "is no replica: it was promoted, or the address is another server's"
            }
            Self::OtherTimeline => "follows another timeline than the primary's",
            Self::Paused => "has its replay paused",
            Self::NotStreaming => "has no connection to the primary",
            Self::Silent => "has heard nothing from the primary for too long",
            Self::BehindInTime => "is too far behind the primary in time",
            Self::BehindInWal => "is too far behind the primary in WAL",
            Self::OldHeartbeat => "shows an old heartbeat",
            Self::NoHeartbeat => "shows no heartbeat",
            Self::NoWay => "does not answer by way of PgBouncer",
            Self::OtherServer => {
                "is not the server that `database.replica_direct_urls` names in the same place"
            }
            Self::ReadsFail => "breaks off tenants' reads",
            Self::Returning => "was ill a moment ago",
        }
    }

    /// Whether one look is enough: it does not pass by itself, or reading on would show the past.
    fn is_certain(self) -> bool {
        match self {
            Self::NotAReplica
            | Self::OtherTimeline
            | Self::Paused
            | Self::OtherServer
            | Self::ReadsFail => true,
            Self::Unreachable
            | Self::NoWay
            | Self::NotPermitted
            | Self::NotStreaming
            | Self::Silent
            | Self::BehindInTime
            | Self::BehindInWal
            | Self::OldHeartbeat
            | Self::NoHeartbeat
            | Self::Returning => false,
        }
    }

    /// Whether reads that are under way there will not end well either.
    pub(crate) fn ends_reads(self) -> bool {
        match self {
            Self::Unreachable | Self::NoWay | Self::NotAReplica | Self::OtherTimeline => true,
            Self::NotPermitted
            | Self::Paused
            | Self::NotStreaming
            | Self::Silent
            | Self::BehindInTime
            | Self::BehindInWal
            | Self::OldHeartbeat
            | Self::NoHeartbeat
            | Self::OtherServer
            | Self::ReadsFail
            | Self::Returning => false,
        }
    }
}

/// What a replica said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// When it was started, in microseconds since 1970. No two servers have the same.
    pub(crate) started_micros: i64,
    pub(crate) in_recovery: bool,
    pub(crate) paused: bool,
    /// None before the first record.
    pub(crate) replayed: Option<PgLsn>,
    /// None while it has no connection to the primary.
    pub(crate) receiver: Option<Receiver>,
    /// When its heartbeat was written, by the primary's clock, in microseconds since 1970.
    pub(crate) beat_at_micros: Option<i64>,
    /// When the last transaction that it has replayed was committed, by the primary's clock. None on a fresh one.
    pub(crate) committed_at_micros: Option<i64>,
}

/// Its connection to the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receiver {
    pub(crate) streaming: bool,
    pub(crate) timeline: Option<u32>,
    /// What the primary last said of its own WAL.
    pub(crate) primary_end: Option<PgLsn>,
    pub(crate) silence: Option<Duration>,
}

/// A look at a replica, beside what is known of the primary.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) facts: Result<Facts, Reason>,
    pub(crate) lag: Lag,
    pub(crate) heartbeat_age: Option<Duration>,
    /// None as long as the primary has not answered.
    pub(crate) primary_timeline: Option<u32>,
    /// How tenants' reads fare there.
    pub(crate) way: Way,
}

/// The way of tenants' reads to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Reads were answered since the last look, so nobody tried.
    InUse,
    /// It was tried, and leads to a server that was started then.
    LeadsTo(i64),
    /// It was tried in vain.
    Closed,
    /// Several reads in a row broke off since the last look.
    BreaksOff,
}

/// Everything that speaks against reading there. `returning` is for a replica that was left: what has
/// just come below a limit would soon be above it again.
pub(crate) fn judge(look: &Look, limits: &config::Replicas, returning: bool) -> Vec<Reason> {
    let facts = match &look.facts {
        Ok(facts) => facts,
        Err(reason) => return vec![*reason],
    };
    if !facts.in_recovery {
        return vec![Reason::NotAReplica];
    }
    let share = if returning { 2 } else { 1 };
    let receiver = facts.receiver.as_ref();
    let timeline = receiver.and_then(|receiver| receiver.timeline);
    let checks = [
        (facts.paused, Reason::Paused),
        (
            matches!((timeline, look.primary_timeline), (Some(its), Some(ours)) if its != ours),
            Reason::OtherTimeline,
        ),
        (!receiver.is_some_and(|receiver| receiver.streaming), Reason::NotStreaming),
        (
            receiver.and_then(|r| r.silence).is_some_and(|silence| silence > limits.max_silence),
            Reason::Silent,
        ),
        (look.lag.time.is_some_and(|time| time > limits.max_lag / share), Reason::BehindInTime),
        (
            facts.replayed.is_none()
                || look.lag.bytes.is_some_and(|b| b > limits.max_behind_bytes / u64::from(share)),
            Reason::BehindInWal,
        ),
        (
            look.heartbeat_age.is_some_and(|age| age > limits.max_heartbeat_age),
            Reason::OldHeartbeat,
        ),
        (facts.beat_at_micros.is_none(), Reason::NoHeartbeat),
        (look.way == Way::Closed, Reason::NoWay),
        (
            matches!(look.way, Way::LeadsTo(started) if started != facts.started_micros),
            Reason::OtherServer,
        ),
        (look.way == Way::BreaksOff, Reason::ReadsFail),
    ];
    checks.into_iter().filter_map(|(holds, reason)| holds.then_some(reason)).collect()
}

/// Whether a replica is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody has looked yet. It is not read from.
    Unknown,
    /// It is read from.
    Healthy,
    /// It is not.
    Unhealthy,
}

impl State {
    /// As in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A replica's state over several looks.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) state: State,
    /// What the last look found, also where it was not enough to leave the replica.
    pub(crate) reasons: Vec<Reason>,
    /// Bad looks in a row, or good ones.
    bad: u16,
    good: u16,
    looked: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self { state: State::Unknown, reasons: Vec::new(), bad: 0, good: 0, looked: false }
    }
}

impl Health {
    /// Whether what the next look finds is measured by the limits for coming back.
    pub(crate) fn is_returning(&self) -> bool {
        self.state == State::Unhealthy
    }

    /// Takes in what a look found, and yields whether the state changed.
    pub(crate) fn observe(&mut self, reasons: Vec<Reason>, limits: &config::Replicas) -> bool {
        let before = self.state;
        if reasons.is_empty() {
            (self.bad, self.good) = (0, self.good.saturating_add(1));
            // A first look that finds all well is enough: the service has just started.
            if !self.looked || self.good >= limits.rise {
                self.state = State::Healthy;
            }
        } else {
            (self.bad, self.good) = (self.bad.saturating_add(1), 0);
            let certain = reasons.iter().any(|reason| reason.is_certain());
            if certain || self.bad >= limits.fall {
                self.state = State::Unhealthy;
            }
        }
        self.looked = true;
        self.reasons = match self.state {
            State::Unhealthy if reasons.is_empty() => vec![Reason::Returning],
            State::Unknown | State::Healthy | State::Unhealthy => reasons,
        };
        self.state != before
    }
}

#[cfg(test)]
mod tests;
