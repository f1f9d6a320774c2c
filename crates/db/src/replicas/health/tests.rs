//! Looks in, states out.

use proptest::prelude::*;

use super::*;
use crate::config::{Config, Layers};

fn limits() -> config::Replicas {
    Config::from_layers(Layers::defaults()).unwrap().replicas
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// A replica that is as it should be.
fn fine() -> Look {
    let receiver = Receiver {
        streaming: true,
        timeline: Some(1),
        primary_end: Some(PgLsn::from(100)),
        silence: secs(0),
    };
    let facts = Facts {
        started_micros: 7,
        in_recovery: true,
        paused: false,
        replayed: Some(PgLsn::from(100)),
        receiver: Some(receiver),
        beat_at_micros: Some(0),
        committed_at_micros: Some(0),
    };
    Look {
        facts: Ok(facts),
        lag: Lag { time: secs(0), bytes: Some(0) },
        heartbeat_age: secs(10),
        primary_timeline: Some(1),
        way: Way::LeadsTo(7),
    }
}

fn but(change: impl FnOnce(&mut Look, &mut Facts)) -> Look {
    let mut look = fine();
    let mut facts = look.facts.clone().unwrap();
    change(&mut look, &mut facts);
    if look.facts.is_ok() {
        look.facts = Ok(facts);
    }
    look
}

fn verdict(look: &Look) -> Vec<Reason> {
    judge(look, &limits(), false)
}

fn receiver(facts: &mut Facts) -> &mut Receiver {
    facts.receiver.as_mut().unwrap()
}

#[test]
fn each_fault_has_its_reason() {
    assert_eq!(verdict(&fine()), []);
    let mib = 1024 * 1024;
    for (look, reason) in [
        (but(|look, _| look.facts = Err(Reason::Unreachable)), Reason::Unreachable),
        (but(|look, _| look.facts = Err(Reason::NotPermitted)), Reason::NotPermitted),
        (but(|_, facts| facts.in_recovery = false), Reason::NotAReplica),
        (but(|_, facts| receiver(facts).timeline = Some(2)), Reason::OtherTimeline),
        (but(|_, facts| facts.paused = true), Reason::Paused),
        (but(|_, facts| facts.receiver = None), Reason::NotStreaming),
        (but(|_, facts| receiver(facts).streaming = false), Reason::NotStreaming),
        (but(|_, facts| receiver(facts).silence = secs(46)), Reason::Silent),
        (but(|look, _| look.lag.time = secs(11)), Reason::BehindInTime),
        (but(|look, _| look.lag.bytes = Some(65 * mib)), Reason::BehindInWal),
        (but(|_, facts| facts.replayed = None), Reason::BehindInWal),
        (but(|look, _| look.heartbeat_age = secs(181)), Reason::OldHeartbeat),
        (but(|_, facts| facts.beat_at_micros = None), Reason::NoHeartbeat),
        (but(|look, _| look.way = Way::Closed), Reason::NoWay),
        (but(|look, _| look.way = Way::LeadsTo(8)), Reason::OtherServer),
        (but(|look, _| look.way = Way::BreaksOff), Reason::ReadsFail),
    ] {
        assert_eq!(verdict(&look), [reason], "{look:?}");
    }
}

#[test]
fn what_is_not_known_is_not_held_against_it() {
    // The primary has not answered, and the receiver has just connected.
    let look = but(|look, facts| {
        (look.lag, look.primary_timeline) = (Lag::default(), None);
        (look.heartbeat_age, look.way) = (None, Way::InUse);
        (receiver(facts).silence, receiver(facts).primary_end) = (None, None);
    });
    assert_eq!(verdict(&look), []);
}

#[test]
fn coming_back_takes_half_the_lag() {
    let look = but(|look, _| look.lag.time = secs(6));
    assert_eq!(judge(&look, &limits(), false), []);
    assert_eq!(judge(&look, &limits(), true), [Reason::BehindInTime]);
}

/// The state after each look, as a letter.
fn course(looks: &[&[Reason]]) -> String {
    let mut health = Health::default();
    looks
        .iter()
        .map(|reasons| {
            health.observe(reasons.to_vec(), &limits());
            match health.state {
                State::Unknown => '?',
                State::Healthy => '+',
                State::Unhealthy => '-',
            }
        })
        .collect()
}

#[test]
fn a_state_changes_after_several_looks_alike() {
    const GOOD: &[Reason] = &[];
    const AWAY: &[Reason] = &[Reason::Unreachable];
    const PAUSED: &[Reason] = &[Reason::Silent, Reason::Paused];
    assert_eq!(course(&[GOOD, AWAY, GOOD, AWAY, GOOD]), "+++++", "one bad look is none");
    assert_eq!(course(&[GOOD, AWAY, AWAY, GOOD, GOOD, GOOD]), "++---+");
    assert_eq!(course(&[GOOD, AWAY, AWAY, GOOD, GOOD, AWAY, GOOD, GOOD, GOOD]), "++------+");
    assert_eq!(course(&[GOOD, PAUSED, GOOD, GOOD, GOOD]), "+---+", "that is certain at once");
    assert_eq!(course(&[AWAY, GOOD, GOOD, GOOD]), "???+", "nothing is taken on trust");
    assert_eq!(course(&[AWAY, AWAY, GOOD, GOOD, GOOD]), "?---+");
}

proptest! {
    /// It never changes more often than every `fall` bad or `rise` good looks allow.
    #[test]
    fn it_does_not_flap(looks in proptest::collection::vec(any::<bool>(), 1..200)) {
        let (limits, mut health) = (limits(), Health::default());
        let (mut good, mut bad) = (0, 0);
        for (n, look) in looks.into_iter().enumerate() {
            let reasons = if look { vec![] } else { vec![Reason::BehindInTime] };
            (good, bad) = if look { (good + 1, 0) } else { (0, bad + 1) };
            let changed = health.observe(reasons, &limits);
            if changed && n > 0 {
                let enough = match health.state {
                    State::Healthy => good == limits.rise,
                    State::Unhealthy => bad == limits.fall,
                    State::Unknown => false,
                };
                prop_assert!(enough, "look {n}: {health:?}");
            }
        }
    }
}
