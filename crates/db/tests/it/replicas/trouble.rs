//! Replicas that die, freeze, stand still or turn into something else: nobody who reads sees an error.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tenantry_db::models::heartbeat::beat;
use tenantry_db::replicas::{ReadOn, State};
use tenantry_db::{ServedBy, TenantDb};
use tenantry_stack::{Server, StackOptions};

use super::rig::{Process, Rig, add, find, until, until_on_replica};
use crate::texts;

/// Reads again and again while something happens. Every read must succeed and be up to date.
struct Reader {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Reader {
    fn start(tenant: TenantDb) -> Self {
        let stop = tokio::sync::watch::Sender::new(false);
        let stopped = stop.subscribe();
        let task = tokio::spawn(async move {
            let mut reads = 0;
            while !*stopped.borrow() {
                let name = format!("team {reads}");
                add(&tenant, &name).await;
                assert!(find(&tenant.read(), &name).await.0, "{name} is lost");
                find(&tenant.read(), "nobody").await;
                reads += 1;
            }
            reads
        });
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        assert!(self.task.await.unwrap() > 0);
    }
}

async fn rig_and_process(replicas: u16) -> (Rig, Process, TenantDb) {
    let rig = Rig::new(replicas).await;
    let id = rig.tenant("acme").await;
    let process = rig.process().await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    (rig, process, acme)
}

#[tokio::test]
async fn a_killed_replica_is_left_and_comes_back() {
    let (mut rig, process, acme) = rig_and_process(1).await;
    let reader = Reader::start(acme.clone());
    rig.stack.kill_server(Server::Replica(1)).await.unwrap();
    process.until_health(1, "unhealthy unreachable").await;
    assert_eq!(find(&acme.read(), "").await.1, ServedBy::Primary);
    rig.stack.start_replica(1).await.unwrap();
    process.until_health(1, "healthy").await;
    reader.end().await;
    until_on_replica(&acme).await;
    assert!(process.count(ReadOn::NoneHealthy) > 0);
}

/// The postmaster and all its children.
fn processes(rig: &Rig, number: u16) -> Vec<Pid> {
    let postmaster = rig.stack.pid(Server::Replica(number)).unwrap();
    let output = std::process::Command::new("ps")
        .args(["-o", "pid=", "--pid", &postmaster.to_string(), "--ppid", &postmaster.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pid = |word: &str| Pid::from_raw(word.parse().unwrap()).unwrap();
    text.split_whitespace().map(pid).collect()
}

#[tokio::test]
async fn a_frozen_replica_holds_nobody_up_for_long() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    // No limit on statements ends these reads.
    let process = Process::start(rig.layers().flag("test", "tiers.free.statement_timeout", "1h"));
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    let frozen = processes(&rig, 1);
    assert!(frozen.len() > 3);
    for pid in &frozen {
        kill_process(*pid, Signal::STOP).unwrap();
    }
    // These are under way there when it is found out.
    let reads = (0..4).map(|_| async { find(&acme.read(), "").await.1 });
    let served = futures_util::future::join_all(reads);
    let served = tokio::time::timeout(Duration::from_secs(60), served).await.unwrap();
    assert_eq!(served, [ServedBy::Primary; 4]);
    assert_eq!(process.health(), ["unhealthy unreachable"]);
    for pid in &frozen {
        kill_process(*pid, Signal::CONT).unwrap();
    }
    process.until_health(1, "healthy").await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn a_paused_replica_is_left_at_the_first_look() {
    let (rig, process, acme) = rig_and_process(1).await;
    let reader = Reader::start(acme.clone());
    rig.pause(1).await;
    until("the pause to be seen", async || process.health()[0].starts_with("unhealthy paused"))
        .await;
    rig.resume(1).await;
    process.until_health(1, "healthy").await;
    reader.end().await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn a_promoted_replica_is_left_and_shows_nobody_its_own_history() {
    let (rig, process, acme) = rig_and_process(1).await;
    let slow = Process::start(rig.patient());
    slow.until_all(State::Healthy).await;
    let unaware = slow.tenant(acme.tenant().id).await;
    until_on_replica(&unaware).await;
    let replica = rig.on_replica(1).await;
    assert_eq!(texts(&replica, "SELECT pg_promote()::text").await, ["true"]);
    // Somebody writes there by mistake.
    let schema = acme.tenant().id.schema();
    let write = format!("INSERT INTO {schema}.teams (name) VALUES ('of another history')");
    replica.batch_execute(&write).await.unwrap();

    assert_eq!(find(&unaware.read(), "of another history").await, (false, ServedBy::Primary));
    process.until_health(1, "unhealthy not_a_replica").await;
    assert_eq!(find(&acme.read(), "of another history").await, (false, ServedBy::Primary));
}

#[tokio::test]
async fn all_replicas_down_is_no_error_and_one_left_is_enough() {
    let (mut rig, process, acme) = rig_and_process(2).await;
    let reader = Reader::start(acme.clone());
    rig.stack.kill_server(Server::Replica(1)).await.unwrap();
    process.until_health(1, "unhealthy unreachable").await;
    until_on_replica(&acme).await;
    rig.stack.kill_server(Server::Replica(2)).await.unwrap();
    process.until_health(2, "unhealthy unreachable").await;
    assert_eq!(find(&acme.read(), "").await.1, ServedBy::Primary);
    rig.stack.start_replicas().await.unwrap();
    process.until_all(State::Healthy).await;
    reader.end().await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn an_idle_primary_and_a_fresh_replica_are_no_fault() {
    let (rig, process, acme) = rig_and_process(1).await;
    // When it begins anew from here, it has no commit to replay: its clocks say nothing.
    let primary = rig.db.superuser().await;
    primary.batch_execute("CHECKPOINT").await.unwrap();
    let at = texts(&primary, "SELECT pg_current_wal_flush_lsn()::text").await.remove(0);
    let replica = rig.on_replica(1).await;
    let there = format!("SELECT (pg_last_wal_replay_lsn() >= '{at}')::text");
    until("the checkpoint", async || texts(&replica, &there).await == ["true"]).await;
    replica.batch_execute("CHECKPOINT").await.unwrap();
    // A backend that crashes takes all others with it, and the server recovers.
    let pid = texts(&replica, "SELECT pg_backend_pid()::text").await.remove(0);
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    until("the crash", async || replica.is_closed()).await;
    process.until_health(1, "healthy").await;
    until_on_replica(&acme).await;
    let replica = rig.on_replica(1).await;
    let fresh = "SELECT coalesce(pg_last_xact_replay_timestamp()::text, 'none')";
    assert_eq!(texts(&replica, fresh).await, ["none"], "or this test shows nothing");
    until("a look", async || {
        let view = process.installation.replicas().views().remove(0);
        (view.lag_ms, view.behind_bytes) == (Some(0), Some(0))
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_lost_its_slot_is_left_and_heals_when_built_anew() {
    let (mut rig, process, acme) = rig_and_process(1).await;
    rig.stack.stop_server(Server::Replica(1)).await.unwrap();
    let primary = rig.db.superuser().await;
    primary.batch_execute("SELECT pg_drop_replication_slot('replica')").await.unwrap();
    process.until_health(1, "unhealthy unreachable").await;
    let reader = Reader::start(acme.clone());
    rig.stack.start_replica(1).await.unwrap();
    process.until_health(1, "healthy").await;
    reader.end().await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn a_replica_that_hears_nothing_from_the_primary_is_left() {
    let (rig, process, acme) = rig_and_process(1).await;
    // The primary lets the replica in no more, and what it writes does not come there.
    let primary = rig.db.superuser().await;
    primary
        .batch_execute(
            "ALTER ROLE replicator NOLOGIN;
             SELECT pg_terminate_backend(pid) FROM pg_stat_replication",
        )
        .await
        .unwrap();
    process.until_health(1, "unhealthy not_streaming").await;
    assert_eq!(find(&acme.read(), "").await.1, ServedBy::Primary);
    primary.batch_execute("ALTER ROLE replicator LOGIN").await.unwrap();
    process.until_health(1, "healthy").await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn a_read_that_replay_gets_in_the_way_of_is_answered_by_the_primary() {
    let impatient = |options: &mut StackOptions| {
        options.settings.push(("max_standby_streaming_delay".to_owned(), "10ms".to_owned()));
    };
    let rig = Rig::with(1, impatient).await;
    let id = rig.tenant("acme").await;
    let process = rig.process().await;
    let acme = process.tenant(id).await;
    for n in 0..100 {
        add(&acme, &format!("team {n}")).await;
    }
    rig.until_caught_up().await;
    let primary = rig.db.superuser().await;
    let schema = id.schema();
    let snapshot =
        format!("DELETE FROM {schema}.teams WHERE name = 'team 1'; VACUUM {schema}.teams");
    let lock = format!("BEGIN; LOCK {schema}.teams IN ACCESS EXCLUSIVE MODE; COMMIT");
    for (number, conflict) in [snapshot, lock].into_iter().enumerate() {
        rig.until_caught_up().await;
        until_on_replica(&acme).await;
        let before = process.count(ReadOn::Conflict);
        let read = acme.read();
        let slow = "SELECT name, pg_sleep(0.01) FROM teams";
        let reading = tokio::spawn(async move { read.query(slow, &[]).await.unwrap().len() });
        let replica = rig.on_replica(1).await;
        let busy =
            "SELECT pid::text FROM pg_stat_activity WHERE query LIKE 'SELECT name, pg_sleep%'";
        until("the read", async || !texts(&replica, busy).await.is_empty()).await;
        // One statement each: VACUUM takes no company.
        for statement in conflict.split_inclusive("; VACUUM") {
            let statement = statement.trim_end_matches("; VACUUM");
            let statement = if statement.starts_with(' ') {
                format!("VACUUM{statement}")
            } else {
                statement.to_owned()
            };
            primary.batch_execute(&statement).await.unwrap();
        }
        assert!(reading.await.unwrap() >= 98);
        assert_eq!(process.count(ReadOn::Conflict), before + 1, "conflict {number}");
    }
    assert_eq!(process.health(), ["healthy"], "a conflict is no fault of the replica's");
}

#[tokio::test]
async fn the_heart_beats_once_for_all_and_reaches_the_replicas() {
    let (rig, process, _) = rig_and_process(1).await;
    let primary = rig.db.superuser().await;
    let old = "UPDATE public.heartbeat SET beat_at = beat_at - interval '1 hour'";
    primary.batch_execute(old).await.unwrap();
    process.until_health(1, "unhealthy old_heartbeat").await;
    let beats = (0..8).map(|_| beat(&rig.db.admin));
    let beats = futures_util::future::join_all(beats).await;
    let written = beats.into_iter().filter(|beat| *beat.as_ref().unwrap()).count();
    assert_eq!(written, 1);
    assert!(!beat(&rig.db.admin).await.unwrap(), "it is young");
    process.until_health(1, "healthy").await;
    let says = "SELECT (timeline = 1 AND position <= pg_current_wal_lsn()
                        AND beat_at > now() - interval '1 minute')::text FROM public.heartbeat";
    assert_eq!(texts(&primary, says).await, ["true"]);
    // A clock that was set back does not stop it.
    primary.batch_execute(&old.replace("- interval", "+ interval")).await.unwrap();
    assert!(beat(&rig.db.admin).await.unwrap());
}

#[tokio::test]
#[ignore = "takes minutes: part of `script/test --full`"]
async fn minutes_without_anybody_writing_are_no_reason_to_leave_a_replica() {
    let (rig, process, acme) = rig_and_process(1).await;
    let admin = rig.db.admin.clone();
    let heart = tokio::spawn(async move {
        loop {
            beat(&admin).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let end = std::time::Instant::now() + Duration::from_secs(200);
    while std::time::Instant::now() < end {
        assert_eq!(process.health(), ["healthy"]);
        assert_eq!(find(&acme.read(), "nobody").await, (false, ServedBy::Replica));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    heart.abort();
}
