//! Where the primary's WAL stood, and when: from it follows how far behind a replica is.
//!
//! Bounded: it need not reach further back than the lag that is allowed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio_postgres::types::PgLsn;

/// How far behind a replica is; what is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// The primary had written nothing more than the replica shows that long ago; it is so late at most.
    pub(crate) time: Option<Duration>,
    pub(crate) bytes: Option<u64>,
}

/// What a replica shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shown {
    pub(crate) replayed: Option<PgLsn>,
    /// What the primary told the replica itself, for when it does not answer us.
    pub(crate) heard: Option<PgLsn>,
    /// How old the newest commit is that it has replayed.
    pub(crate) commit_age: Option<Duration>,
}

/// What the primary said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrimaryFacts {
    pub(crate) flushed: PgLsn,
    pub(crate) timeline: u32,
    /// Its clock, in microseconds since 1970.
    pub(crate) now_micros: i64,
}

/// A position, and the first and last moment at which the primary was seen there.
#[derive(Debug, Clone, Copy)]
struct Seen {
    position: PgLsn,
    first: Instant,
    last: Instant,
}

/// The last things that the primary said.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Ever higher positions.
    positions: VecDeque<Seen>,
    timeline: Option<u32>,
    clock: Option<(Instant, i64)>,
}

impl Track {
    const MAX_POSITIONS: usize = 1024;

    /// Notes what it said. `asked` is the moment before the question, so that no lag seems shorter than
    /// it is.
    pub(crate) fn note(&mut self, asked: Instant, facts: PrimaryFacts) {
        let PrimaryFacts { flushed, timeline, now_micros } = facts;
        let last = self.positions.back().map(|seen| seen.position);
        // A promotion, or a recovery to an earlier point: what was known is of another history.
        if self.timeline != Some(timeline) || last.is_some_and(|last| last > flushed) {
            self.positions.clear();
        }
        match self.positions.back_mut() {
            Some(seen) if seen.position == flushed => seen.last = asked,
            _ => self.positions.push_back(Seen { position: flushed, first: asked, last: asked }),
        }
        if self.positions.len() > Self::MAX_POSITIONS {
            self.positions.pop_front();
        }
        self.timeline = Some(timeline);
        self.clock = Some((asked, now_micros));
    }

    /// The timeline that the primary writes; none as long as it has not answered.
    pub(crate) fn timeline(&self) -> Option<u32> {
        self.timeline
    }

    /// How far behind a replica is that shows this. Who is behind all that is known here is as late as the
    /// newest commit that it shows is old, though the primary may have rested since.
    pub(crate) fn lag(&self, now: Instant, shown: Shown) -> Lag {
        let Shown { replayed, heard, commit_age } = shown;
        let Some(replayed) = replayed else { return Lag::default() };
        let last = self.positions.back().map(|seen| seen.position);
        let bytes = last.max(heard).map(|end| u64::from(end).saturating_sub(u64::from(replayed)));
        let time = match last {
            Some(last) if last <= replayed => Some(Duration::ZERO),
            Some(_) => {
                let age = |since: Instant| now.saturating_duration_since(since);
                let passed = self.positions.iter().rev().find(|seen| seen.position <= replayed);
                let known = passed.map(|seen| age(seen.last));
                known.or_else(|| commit_age.max(self.positions.front().map(|seen| age(seen.first))))
            }
            None => None,
        };
        Lag { time, bytes }
    }

    /// How old something is that was written at `micros` by the primary's clock.
    pub(crate) fn age(&self, now: Instant, micros: i64) -> Option<Duration> {
        let (at, clock) = self.clock?;
        let then = u64::try_from(clock.saturating_sub(micros)).unwrap_or(0);
        Some(Duration::from_micros(then) + now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(flushed: u64, timeline: u32) -> PrimaryFacts {
        PrimaryFacts { flushed: flushed.into(), timeline, now_micros: 5_000_000 }
    }

    fn lag(track: &Track, now: Instant, replayed: u64) -> (Option<u64>, Option<u64>) {
        let shown = Shown { replayed: Some(replayed.into()), ..Shown::default() };
        let lag = track.lag(now, shown);
        (lag.time.map(|time| time.as_secs()), lag.bytes)
    }

    #[test]
    fn lag_is_measured_by_what_the_primary_said() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut track = Track::default();
        assert_eq!(lag(&track, at(0), 100), (None, None));
        for (seconds, flushed) in [(0, 100), (1, 200), (2, 300), (3, 400)] {
            track.note(at(seconds), facts(flushed, 1));
        }
        assert_eq!(lag(&track, at(3), 400), (Some(0), Some(0)));
        assert_eq!(lag(&track, at(3), 500), (Some(0), Some(0)), "it may be ahead of the last look");
        assert_eq!(lag(&track, at(4), 250), (Some(3), Some(150)), "it shows what was at second 1");
        assert_eq!(lag(&track, at(4), 50), (Some(4), Some(350)), "at least");
        assert_eq!(track.lag(at(4), Shown::default()), Lag::default());
        let replayed = Some(250.into());
        let heard = Shown { replayed, heard: Some(1000.into()), ..Shown::default() };
        assert_eq!(track.lag(at(4), heard).bytes, Some(750));
    }

    #[test]
    fn who_is_behind_all_that_is_known_is_as_late_as_its_newest_commit() {
        let (start, age) = (Instant::now(), Some(Duration::from_secs(60)));
        let mut track = Track::default();
        track.note(start, facts(100, 1));
        let time = |replayed: u64, commit_age| {
            track
                .lag(start, Shown { replayed: Some(replayed.into()), heard: None, commit_age })
                .time
        };
        assert_eq!(time(50, age), age);
        assert_eq!(time(50, None), Some(Duration::ZERO));
        assert_eq!(time(100, age), Some(Duration::ZERO), "it has all there is");
    }

    #[test]
    fn an_idle_primary_makes_nobody_late() {
        let start = Instant::now();
        let mut track = Track::default();
        for minute in 0..10 {
            track.note(start + Duration::from_secs(60 * minute), facts(100, 1));
        }
        let now = start + Duration::from_secs(600);
        assert_eq!(lag(&track, now, 100), (Some(0), Some(0)));
        assert_eq!(track.positions.len(), 1);
        // And whoever missed its last record is as late as the record is old.
        assert_eq!(lag(&track, now, 99).0, Some(600));
    }

    #[test]
    fn another_history_begins_anew() {
        let start = Instant::now();
        let mut track = Track::default();
        track.note(start, facts(1000, 1));
        track.note(start, facts(900, 2));
        assert_eq!((track.timeline(), lag(&track, start, 900)), (Some(2), (Some(0), Some(0))));
    }

    #[test]
    fn ages_are_told_by_the_primarys_clock() {
        let start = Instant::now();
        let mut track = Track::default();
        assert_eq!(track.age(start, 0), None);
        track.note(start, facts(100, 1));
        let age = |micros| track.age(start + Duration::from_secs(2), micros);
        assert_eq!(age(4_000_000), Some(Duration::from_secs(3)));
        assert_eq!(age(9_000_000), Some(Duration::from_secs(2)), "not from the future");
    }

    #[test]
    fn it_stays_small() {
        let mut track = Track::default();
        for position in 0..10_000 {
            track.note(Instant::now(), facts(position, 1));
        }
        assert_eq!(track.positions.len(), Track::MAX_POSITIONS);
    }
}
