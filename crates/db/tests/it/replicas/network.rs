//! The wire: between the service and a replica, between a replica and the primary, and how much of the
//! primary is left to others when all reads come back to it.

use std::time::Duration;

use tenantry_db::replicas::{ReadOn, State};
use tenantry_db::{Error, ServedBy};
use tenantry_stack::StackOptions;
use tenantry_testing::{Proxy, Wire, free_port};
use tokio_postgres::types::Type;

use super::rig::{ADD, Process, Rig, add, find, until, until_on_replica};

#[tokio::test]
async fn a_wire_that_is_cut_or_silent_towards_a_replica_is_seen_by_nobody() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let proxy = Proxy::start(rig.db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
    let url = format!("postgresql://127.0.0.1:{}/{}_replica", proxy.port(), rig.db.name());
    // Its health is asked another way, and is good all the time.
    let process = Process::start(rig.layers().flag("test", "database.replica_urls", vec![url]));
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    for wire in [Wire::Cut, Wire::RepliesHeld] {
        until_on_replica(&acme).await;
        proxy.set(wire);
        for _ in 0..5 {
            assert_eq!(find(&acme.read(), "").await.1, ServedBy::Primary);
        }
        until("the replica to be left", async || process.health()[0].starts_with("unhealthy"))
            .await;
        proxy.set(Wire::Open);
        process.until_health(1, "healthy").await;
    }
    assert!(process.count(ReadOn::Lost) > 0);
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn addresses_in_another_order_are_found_out() {
    let rig = Rig::new(2).await;
    let ports = &rig.db.servers().replica_ports;
    let swapped: Vec<String> = ports
        .iter()
        .rev()
        .map(|port| format!("postgresql://127.0.0.1:{port}/{}", rig.db.name()))
        .collect();
    let process =
        Process::start(rig.layers().flag("test", "database.replica_direct_urls", swapped));
    for number in [1, 2] {
        process.until_health(number, "unhealthy other_server").await;
    }
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_the_primary_is_left_when_it_falls_behind() {
    let port = free_port().unwrap();
    let proxy = Proxy::start(port, Duration::ZERO).await.unwrap();
    let by_proxy = |options: &mut StackOptions| {
        options.ports.postgres = port;
        let password = options.data_dir.join("replica/replicator.pgpass");
        let connection = format!(
            "host=127.0.0.1 port={} user=replicator application_name=replica passfile='{}'",
            proxy.port(),
            password.display()
        );
        options.settings.push(("primary_conninfo".to_owned(), connection));
    };
    let rig = Rig::with(1, by_proxy).await;
    let id = rig.tenant("acme").await;
    let layers = rig.layers().flag("test", "replicas.max_lag", "1s");
    let process = Process::start(layers);
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    // Nothing comes through and no connection ends: the replica believes that all is well.
    proxy.set(Wire::RepliesHeld);
    until("the replica to be left", async || {
        add(&acme, "one").await;
        assert!(find(&acme.read(), "one").await.0);
        process.health()[0] == "unhealthy behind_in_time"
    })
    .await;
    proxy.set(Wire::Open);
    until("the replica to come back", async || {
        assert!(find(&acme.read(), "one").await.0);
        process.health()[0] == "healthy"
    })
    .await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn reads_that_come_back_to_the_primary_leave_room_for_writes() {
    let mut rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let layers = rig
        .layers()
        // Six of the lane's twelve, and a tenant that may have more than these under way.
        .flag("test", "tiers.free.slots", 11)
        .flag("test", "replicas.fallback_percent", 50)
        .flag("test", "database.acquire_timeout", "500ms");
    let process = Process::start(layers);
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    rig.stack.kill_server(tenantry_stack::Server::Replica(1)).await.unwrap();
    process.until_health(1, "unhealthy unreachable").await;
    let slow = || async { acme.read().query("SELECT pg_sleep(1.5)", &[]).await.map(drop) };
    let reads = async { futures_util::future::join_all((0..9).map(|_| slow())).await };
    let writes = async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1.5)'
                        AND state = 'active'";
        let superuser = rig.db.superuser().await;
        until("the reads", async || {
            superuser.query_typed_one(running, &[]).await.unwrap().get::<_, i64>(0) == 6
        })
        .await;
        add(&acme, "one").await;
        superuser.query_typed_one(running, &[]).await.unwrap().get::<_, i64>(0)
    };
    let (reads, at_once) = tokio::join!(reads, writes);
    assert_eq!(at_once, 6, "and a write went through beside them");
    let refused: Vec<_> = reads.iter().filter_map(|read| read.as_ref().err()).collect();
    assert_eq!(refused.len(), 3, "those waited in vain: {refused:?}");
    assert!(refused.iter().all(|e| matches!(e, Error::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn after_a_write_whose_answer_was_lost_reads_look_on_the_primary() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let proxy = Proxy::start(rig.db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
    let url = format!("postgresql://127.0.0.1:{}/{}", proxy.port(), rig.db.name());
    let process = Process::start(rig.patient().flag("test", "database.url", url));
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    // The pool has a connection: the write leaves at once.
    add(&acme, "zero").await;
    rig.until_caught_up().await;
    until_on_replica(&acme).await;
    rig.pause(1).await;
    proxy.set(Wire::RepliesHeld);
    // The client goes away before it knows.
    let write = acme.execute(ADD, &[(&"one", Type::TEXT)]);
    assert!(tokio::time::timeout(Duration::from_millis(300), write).await.is_err());
    proxy.set(Wire::Open);
    assert_eq!(find(&acme.read(), "one").await, (true, ServedBy::Primary));
    rig.resume(1).await;
}
