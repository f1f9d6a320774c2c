//! When a replica is used again, when it is built anew, and when it is left alone.

use std::fs;

use tenantry_stack::{Error, Server, Stack, StackOptions};

use crate::place::{Place, connect, eventually, fill, kill_9, pooled, settings, value};

/// A stack whose replica was built and then stopped; the primary runs.
async fn with_stopped_replica(place: &Place) -> Stack {
    let mut stack = Stack::open(place.options()).await.unwrap();
    stack.start_primary().await.unwrap();
    stack.start_replica(1).await.unwrap();
    stack.stop_server(Server::Replica(1)).await.unwrap();
    fs::write(stack.data_dir().join("replica/was_here"), "").unwrap();
    stack
}

fn assert_refused(error: &Error, words: &str) {
    assert!(matches!(error, Error::ReplicaUnusable { .. }), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.hint().unwrap().contains("remove"));
}

#[tokio::test]
async fn a_replica_catches_up_and_one_that_lost_its_slot_is_built_anew() {
    let place = Place::new();
    let mut stack = with_stopped_replica(&place).await;
    let mark = stack.data_dir().join("replica/was_here");
    let primary = connect(&stack.superuser_config()).await;
    primary.batch_execute("CREATE TABLE seen AS SELECT 1 AS one").await.unwrap();

    stack.start_replica(1).await.unwrap();
    assert!(mark.exists(), "it was copied without need");
    let replica = stack.replica_superuser_config(1);
    eventually("the table", async || value(&replica, "SELECT one FROM seen").await.is_some()).await;

    stack.stop_server(Server::Replica(1)).await.unwrap();
    primary.batch_execute("SELECT pg_drop_replication_slot('replica')").await.unwrap();
    stack.start_replica(1).await.unwrap();
    assert!(!mark.exists(), "it was not copied anew");
    eventually("the table", async || value(&replica, "SELECT one FROM seen").await.is_some()).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_promoted_replica_is_never_started_as_a_second_primary() {
    let place = Place::new();
    let mut stack = Stack::open(place.options()).await.unwrap();
    stack.start_primary().await.unwrap();
    stack.start_replica(1).await.unwrap();
    let promoted = value(&stack.replica_superuser_config(1), "SELECT pg_promote()").await;
    assert_eq!(promoted.as_deref(), Some("t"));
    stack.stop_server(Server::Replica(1)).await.unwrap();

    assert_refused(&stack.start_replica(1).await.unwrap_err(), "promoted");
    assert!(stack.data_dir().join("replica/PG_VERSION").exists());
    assert_eq!(stack.pid(Server::Replica(1)), None);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_replica_of_another_cluster_is_left_alone() {
    let place = Place::new();
    let mut stack = with_stopped_replica(&place).await;
    stack.stop().await.unwrap();
    fs::remove_dir_all(stack.data_dir().join("primary")).unwrap();
    stack.start_primary().await.unwrap();

    assert_refused(&stack.start_replica(1).await.unwrap_err(), "another cluster");
    assert!(stack.data_dir().join("replica/was_here").exists());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_replica_ahead_of_its_primary_is_told_at_once() {
    let place = Place::new();
    let mut stack = with_stopped_replica(&place).await;
    // What a recovery to an earlier point does to the primary, by hand: put an older copy back.
    stack.stop().await.unwrap();
    let (primary, old) = (stack.data_dir().join("primary"), stack.data_dir().join("old"));
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&primary).arg(&old).status().unwrap();
    assert!(copied.success());
    stack.start_primary().await.unwrap();
    stack.start_replica(1).await.unwrap();
    let client = connect(&stack.superuser_config()).await;
    client.batch_execute("CREATE TABLE lost AS SELECT generate_series(1, 100000)").await.unwrap();
    client.batch_execute("SELECT pg_switch_wal(); CHECKPOINT").await.unwrap();
    let replica = stack.replica_superuser_config(1);
    eventually("the table", async || value(&replica, "SELECT 1 FROM lost").await.is_some()).await;
    drop(client);
    stack.stop().await.unwrap();
    fs::remove_dir_all(&primary).unwrap();
    fs::rename(&old, &primary).unwrap();

    stack.start_primary().await.unwrap();
    assert_refused(&stack.start_replica(1).await.unwrap_err(), "ahead of the primary");
    assert!(stack.data_dir().join("replica/was_here").exists());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn two_replicas_have_ports_slots_and_entries_of_their_own() {
    let place = Place::new();
    let mut stack = Stack::open(StackOptions { replicas: 2, ..place.options() }).await.unwrap();
    stack.start_primary().await.unwrap();
    fill(&stack).await;
    stack.start_replicas().await.unwrap();
    stack.start_pooler(&settings()).await.unwrap();
    let slots = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots \
                 WHERE active";
    let slots = value(&stack.superuser_config(), slots).await;
    assert_eq!(slots.as_deref(), Some("replica replica_2"));
    for (number, entry) in [(1, "shop_replica"), (2, "shop_replica_2")] {
        let server = value(&pooled(&stack, entry), "SELECT current_setting('cluster_name')").await;
        assert_eq!(server, Some(format!("tenantry {}", Server::Replica(number).name())));
    }
    let shown: Vec<_> = tenantry_stack::status(stack.data_dir()).await.unwrap().servers;
    let shown: Vec<_> = shown.iter().map(|status| status.server.name()).collect();
    assert_eq!(shown, ["primary", "replica", "replica_2", "pgbouncer"]);

    kill_9(stack.pid(Server::Replica(2)).unwrap());
    assert_eq!(stack.wait_for_exit().await.server, Server::Replica(2));
    assert!(stack.pid(Server::Replica(1)).is_some());
    stack.start_replica(2).await.unwrap();
    assert!(stack.start_replica(3).await.is_err());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn no_log_is_kept_for_a_replica_that_is_no_longer_wanted() {
    let place = Place::new();
    let with = |replicas| StackOptions { replicas, ..place.options() };
    let mut stack = Stack::open(with(2)).await.unwrap();
    stack.start_primary().await.unwrap();
    stack.start_replicas().await.unwrap();
    let mark = stack.data_dir().join("replica_2/was_here");
    fs::write(&mark, "").unwrap();
    stack.stop().await.unwrap();
    drop(stack);

    let mut stack = Stack::open(with(1)).await.unwrap();
    stack.start_primary().await.unwrap();
    let somebody = connect(&stack.superuser_config()).await;
    // Of a name of ours, and in use as long as this session lasts.
    let temporary = "SELECT pg_create_physical_replication_slot('replica_3', true, true)";
    somebody.batch_execute(temporary).await.unwrap();
    let other = "SELECT pg_create_physical_replication_slot('other', true)";
    somebody.batch_execute(other).await.unwrap();
    assert_eq!(stack.release_unwanted_replicas().await.unwrap(), [Server::Replica(2)]);
    assert_eq!(stack.release_unwanted_replicas().await.unwrap(), []);
    let slots = "SELECT string_agg(slot_name || ' ' || coalesce(wal_status, '-'), ', ' \
                 ORDER BY slot_name) FROM pg_replication_slots";
    let slots = value(&stack.superuser_config(), slots).await.unwrap();
    assert_eq!(slots, "other reserved, replica reserved, replica_2 -, replica_3 reserved");
    assert!(mark.exists());
    stack.stop().await.unwrap();
    drop(stack);

    let mut stack = Stack::open(with(2)).await.unwrap();
    stack.start_primary().await.unwrap();
    assert_eq!(stack.release_unwanted_replicas().await.unwrap(), []);
    stack.start_replicas().await.unwrap();
    assert!(!mark.exists(), "it was not copied anew");
    stack.stop().await.unwrap();
}
