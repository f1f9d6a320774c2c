//! What a read shows: never an older state than was written or seen, and on a replica otherwise.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tenantry_db::replicas::{ReadOn, State};
use tenantry_db::{Error, ServedBy};
use tenantry_stack::Server;
use tenantry_testing::Proxy;
use tokio_postgres::types::Type;

use super::rig::{ADD, Process, Rig, add, find, until, until_on_replica};
use crate::texts;

#[tokio::test]
async fn a_replica_answers_in_one_trip_and_a_token_costs_none() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let proxy = Proxy::start(rig.db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
    let url = format!("postgresql://127.0.0.1:{}/{}_replica", proxy.port(), rig.db.name());
    let layers = rig.layers().flag("test", "database.replica_urls", vec![url]);
    let process = Process::start(layers);
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    add(&acme, "one").await;
    let token = acme.token().unwrap();
    rig.until_caught_up().await;
    until_on_replica(&acme).await;
    for read in [acme.read(), acme.read().after(&token)] {
        let before = proxy.requests();
        assert_eq!(find(&read, "one").await, (true, ServedBy::Replica));
        assert_eq!(proxy.requests() - before, 1);
    }
}

#[tokio::test]
async fn what_was_written_is_seen_however_far_behind_the_replica_is() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    // Three processes that do not notice the pause: only what they were told can save them.
    let patient = || Process::start(rig.patient());
    let (here, there, elsewhere) = (patient(), patient(), patient());
    for process in [&here, &there, &elsewhere] {
        // The first look at the primary may have come after the one at the replica.
        process.until_all(State::Healthy).await;
        until_on_replica(&process.tenant(id).await).await;
    }
    rig.pause(1).await;
    let acme = here.tenant(id).await;
    add(&acme, "one").await;
    let token = acme.token().unwrap();

    // The same process remembers, also for another handle and without a token.
    assert_eq!(find(&acme.read(), "one").await, (true, ServedBy::Primary));
    assert_eq!(find(&here.tenant(id).await.read(), "one").await, (true, ServedBy::Primary));
    // Another process is told by the token.
    let read = there.tenant(id).await.read().after(&token);
    assert_eq!(find(&read, "one").await, (true, ServedBy::Primary));
    assert!(there.count(ReadOn::Stale) > 0);
    // And from then on it knows what it has shown.
    assert_eq!(find(&there.tenant(id).await.read(), "one").await, (true, ServedBy::Primary));
    // Without all that the past is what there is: the replica really is behind.
    assert_eq!(find(&elsewhere.tenant(id).await.read(), "one").await, (false, ServedBy::Replica));

    rig.resume(1).await;
    rig.until_caught_up().await;
    for process in [&here, &there] {
        until_on_replica(&process.tenant(id).await).await;
    }
    assert_eq!(find(&read, "one").await, (true, ServedBy::Replica));
}

#[tokio::test]
async fn a_transaction_is_remembered_and_gives_a_token_too() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let process = Process::start(rig.patient());
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    rig.pause(1).await;
    let before = acme.token();
    let mut tx = acme.begin().await.unwrap();
    tx.execute(ADD, &[(&"one", Type::TEXT)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_ne!(acme.token(), before);
    assert_eq!(find(&acme.read(), "one").await, (true, ServedBy::Primary));
    rig.resume(1).await;
}

#[tokio::test]
async fn where_commit_does_not_wait_for_the_disk_what_was_written_is_seen_as_well() {
    let late = |options: &mut tenantry_stack::StackOptions| {
        options.settings.push(("synchronous_commit".to_owned(), "off".to_owned()));
    };
    let rig = Rig::with(1, late).await;
    let id = rig.tenant("acme").await;
    let process = Process::start(rig.patient());
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    // Nobody writes to the disk any more what nobody waits for, and so nothing comes to the replica.
    let writer = "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'walwriter'";
    let writer = texts(&rig.db.superuser().await, writer).await.remove(0).parse().unwrap();
    let writer = Pid::from_raw(writer).unwrap();
    kill_process(writer, Signal::STOP).unwrap();
    for n in 0..20 {
        let name = format!("team {n}");
        add(&acme, &name).await;
        assert_eq!(find(&acme.read(), &name).await, (true, ServedBy::Primary));
    }
    kill_process(writer, Signal::CONT).unwrap();
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn a_silly_token_costs_a_read_on_the_primary_and_nothing_else() {
    let rig = Rig::new(1).await;
    let (id, other) = (rig.tenant("acme").await, rig.tenant("globex").await);
    let process = rig.process().await;
    let acme = process.tenant(id).await;
    add(&process.tenant(other).await, "two").await;
    let foreign = process.tenant(other).await;
    add(&foreign, "three").await;
    let foreign = foreign.token().unwrap();
    until_on_replica(&acme).await;
    for token in ["", "nonsense", "\u{1f980}", foreign.as_str(), &"A".repeat(100_000)] {
        let read = acme.read().after(token);
        assert_eq!(find(&read, "two").await, (false, ServedBy::Primary));
    }
    assert_eq!(process.count(ReadOn::Token), 5);
    rig.until_caught_up().await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn a_read_that_may_wait_is_answered_by_the_replica() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let process = Process::start(rig.layers().flag("test", "replicas.wait", "20s"));
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    for n in 0..20 {
        let name = format!("team {n}");
        add(&acme, &name).await;
        assert_eq!(find(&acme.read(), &name).await, (true, ServedBy::Replica));
    }
}

#[tokio::test]
async fn a_write_in_a_read_is_refused_by_the_database_and_called_a_bug() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let process = rig.process().await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    // The second one goes to the primary, for its token.
    for read in [acme.read(), acme.read().after("?")] {
        for sql in [
            "INSERT INTO teams (name) VALUES ('x')",
            "WITH gone AS (DELETE FROM teams RETURNING 1) SELECT 1 FROM gone",
            "SELECT name FROM teams FOR UPDATE",
        ] {
            let error = read.query(sql, &[]).await.unwrap_err();
            assert!(matches!(error, Error::WriteInRead(_)), "{sql}: {error:?}");
        }
    }
    let counted = |on| process.count(on);
    assert_eq!((counted(ReadOn::Token), counted(ReadOn::Conflict)), (3, 0), "and not tried twice");
    // Its connections are as good as before.
    assert_eq!(find(&acme.read(), "x").await, (false, ServedBy::Replica));
    assert_eq!(process.health(), ["healthy"]);
}

#[tokio::test]
async fn nobody_goes_back_in_time_between_two_replicas() {
    let mut rig = Rig::new(2).await;
    let mut ids = Vec::new();
    for name in ["acme", "globex", "initech"] {
        ids.push(rig.tenant(name).await);
    }
    // What a dead replica does not answer is given up soon; and one bad look is enough, since after it reads go
    // elsewhere and nothing would ask for a second one.
    let layers = rig
        .patient()
        .flag("test", "replicas.poll_timeout", "2s")
        .flag("test", "replicas.fall", 1)
        .flag("test", "tiers.free.statement_timeout", "1s");
    let process = Process::start(layers);
    process.until_all(State::Healthy).await;
    let (acme, globex, initech) =
        (process.tenant(ids[0]).await, process.tenant(ids[1]).await, process.tenant(ids[2]).await);
    rig.until_caught_up().await;
    until_on_replica(&acme).await;
    // The second one stands still, and nobody notices.
    rig.pause(2).await;
    let writer = Process::start(rig.patient());
    add(&writer.tenant(ids[0]).await, "one").await;
    until("the first replica to show it", async || {
        find(&acme.read(), "one").await == (true, ServedBy::Replica)
    })
    .await;
    // Now the first one is gone, which somebody else's reads find out.
    rig.stack.kill_server(Server::Replica(1)).await.unwrap();
    until("the first replica to be left", async || {
        let (one, other) = (globex.read(), globex.read());
        tokio::join!(find(&one, ""), find(&other, ""));
        process.health()[0].starts_with("unhealthy")
    })
    .await;
    assert!(find(&acme.read(), "one").await.0, "it was there, and then it was not");
    assert_eq!(find(&initech.read(), "").await.1, ServedBy::Replica, "others read there");
    rig.resume(2).await;
}
