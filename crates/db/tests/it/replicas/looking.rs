//! Looking at replicas from outside: one look, and what the primary keeps for them.

use tenantry_db::doctor::{Outcome, examine};
use tenantry_db::replicas::{Reason, State, inspect};
use tenantry_stack::{Server, StackOptions};

use super::rig::{Rig, add, find, until, until_on_replica};
use crate::texts;

#[tokio::test]
async fn one_look_names_what_it_sees_and_how_late_a_replica_may_be() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let process = rig.process().await;
    let acme = process.tenant(id).await;
    add(&acme, "one").await;
    rig.until_caught_up().await;
    let view = inspect(&rig.db.config).await.unwrap().remove(0);
    assert_eq!((view.state, view.lag_ms, view.lag_at_most_ms), (State::Healthy, Some(0), Some(0)));

    rig.pause(1).await;
    add(&acme, "two").await;
    // This process has known the primary for a moment only, and the replica's newest commit gets older.
    until("the replica to be a second late", async || {
        let view = inspect(&rig.db.config).await.unwrap().remove(0);
        assert_eq!(
            (view.state, view.reasons.as_slice()),
            (State::Unhealthy, [Reason::Paused].as_slice())
        );
        assert!(view.lag_ms <= view.lag_at_most_ms, "{view:?}");
        view.lag_at_most_ms.unwrap() > 1000
    })
    .await;
    rig.resume(1).await;
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
