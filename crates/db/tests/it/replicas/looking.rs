//! Looking at replicas from outside: one look, and what the primary keeps for them.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tenantry_db::Config;
use tenantry_db::doctor::{Outcome, examine};
use tenantry_db::replicas::{Reason, State, inspect};
use tenantry_stack::{Server, StackOptions};

use super::rig::{Process, Rig, add, find, until, until_on_replica};
use crate::texts;

/// State, reasons and lag as whoever looks from outside sees them.
async fn seen(rig: &Rig) -> (State, Vec<Reason>, Duration) {
    let view = inspect(&rig.db.config).await.unwrap().remove(0);
    (view.state, view.reasons, Duration::from_millis(view.lag_ms.unwrap()))
}

#[tokio::test]
async fn whoever_looks_from_outside_sees_how_late_a_replica_is() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let process = rig.process().await;
    let acme = process.tenant(id).await;
    add(&acme, "one").await;
    rig.until_caught_up().await;
    assert_eq!(seen(&rig).await, (State::Healthy, vec![], Duration::ZERO));

    rig.pause(1).await;
    add(&acme, "two").await;
    // Each look takes a second, since the replica is behind.
    let mut lag = Duration::ZERO;
    for _ in 0..5 {
        let (state, reasons, late) = seen(&rig).await;
        assert_eq!((state, reasons.first()), (State::Unhealthy, Some(&Reason::Paused)));
        lag = late;
    }
    assert!(lag > Duration::from_secs(4), "{lag:?}");
    rig.resume(1).await;
}

#[tokio::test]
async fn a_replay_that_stands_still_unpaused_is_seen_from_outside() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let process = Process::start(rig.layers().flag("test", "replicas.max_lag", "2s"));
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    let startup = "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'startup'";
    let startup = texts(&rig.on_replica(1).await, startup).await.remove(0).parse().unwrap();
    let startup = Pid::from_raw(startup).unwrap();
    let hasty = Config::from_layers(rig.layers().flag("test", "replicas.max_lag", "2s")).unwrap();
    kill_process(startup, Signal::STOP).unwrap();
    add(&acme, "one").await;
    process.until_health(1, "unhealthy behind_in_time").await;
    let view = inspect(&hasty).await.unwrap().remove(0);
    kill_process(startup, Signal::CONT).unwrap();
    assert_eq!((view.state, view.reasons), (State::Unhealthy, vec![Reason::BehindInTime]));
    process.until_health(1, "healthy").await;
    // A moment's lag is none: whoever is behind is given time to catch up.
    for n in 0..5 {
        add(&acme, &format!("team {n}")).await;
        assert_eq!(inspect(&hasty).await.unwrap().remove(0).state, State::Healthy);
    }
}

/// What doctor says of the primary's slots.
async fn replication(rig: &Rig) -> (Outcome, String) {
    let checks = examine(&rig.db.config, &rig.db.migrations).await;
    let check = checks.into_iter().find(|check| check.name == "replication").unwrap();
    (check.outcome, check.detail)
}

#[tokio::test]
async fn a_slot_that_is_unused_or_lost_is_named_and_its_replica_is_left_until_it_is_built_anew() {
    let keeps_little = |options: &mut StackOptions| {
        options.settings.push(("max_slot_wal_keep_size".to_owned(), "1MB".to_owned()));
        options.settings.push(("wal_keep_size".to_owned(), "0".to_owned()));
    };
    let mut rig = Rig::with(1, keeps_little).await;
    let id = rig.tenant("acme").await;
    let process = rig.process().await;
    let acme = process.tenant(id).await;
    assert_eq!(replication(&rig).await, (Outcome::Ok, "replication slots in use: 1".to_owned()));

    rig.stack.stop_server(Server::Replica(1)).await.unwrap();
    process.until_health(1, "unhealthy unreachable").await;
    let (outcome, detail) = replication(&rig).await;
    assert_eq!(outcome, Outcome::Warning);
    assert!(detail.contains("nobody uses") && detail.contains("`replica`"), "{detail}");

    let primary = rig.db.superuser().await;
    let status = "SELECT coalesce(wal_status, '') FROM pg_replication_slots";
    until("the slot to be lost", async || {
        add(&acme, "team").await;
        primary.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        primary.batch_execute("CHECKPOINT").await.unwrap();
        texts(&primary, status).await == ["lost"]
    })
    .await;
    let (outcome, detail) = replication(&rig).await;
    assert_eq!(outcome, Outcome::Warning);
    assert!(detail.contains("come back") && detail.contains("`replica`"), "{detail}");
    assert!(find(&acme.read(), "team").await.0);

    rig.stack.start_replica(1).await.unwrap();
    process.until_health(1, "healthy").await;
    until_on_replica(&acme).await;
    assert!(find(&acme.read(), "team").await.0);
    assert_eq!(replication(&rig).await.0, Outcome::Ok);
}
