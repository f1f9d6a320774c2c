//! Thousands of writes, each read back at once, while the replicas are late, each in its own way.

use std::sync::Arc;
use std::time::Duration;

use tenantry_db::replicas::ReadOn;
use tenantry_db::{ServedBy, TenantId};
use tokio::sync::watch;

use super::rig::{Process, Rig, add, find};

/// Now and then stops a replica's replay for a moment.
async fn stumbling(rig: Arc<Rig>, number: u16, stop: watch::Receiver<bool>) {
    let replica = rig.on_replica(number).await;
    let mut round = u64::from(number);
    while !*stop.borrow() {
        replica.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5 + round * 7 % 40)).await;
        replica.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5 + round * 11 % 60)).await;
        round += 1;
    }
}

/// How a pair's read knows what it must show.
#[derive(Clone, Copy)]
enum How {
    /// A token, in another process than the write's.
    Token,
    /// The process remembers.
    Memory,
}

struct Outcome {
    stale: usize,
    on_replicas: usize,
}

async fn pairs(
    how: How,
    processes: [Arc<Process>; 2],
    id: TenantId,
    task: usize,
    pairs: usize,
) -> Outcome {
    let [writes, reads] = match how {
        How::Token => processes,
        How::Memory => [Arc::clone(&processes[0]), Arc::clone(&processes[0])],
    };
    let (mut stale, mut on_replicas) = (0, 0);
    for n in 0..pairs {
        let name = format!("{task} {n}");
        // A handle for each, as each request has one.
        let writer = writes.tenant(id).await;
        add(&writer, &name).await;
        let mut read = reads.tenant(id).await.read();
        if let How::Token = how {
            read = read.after(&writer.token().unwrap());
        }
        // Some look at once, some a little later, when a replica may have come so far.
        tokio::time::sleep(Duration::from_millis((n % 4 * 3) as u64)).await;
        let (found, by) = find(&read, &name).await;
        stale += usize::from(!found);
        on_replicas += usize::from(by == ServedBy::Replica);
    }
    Outcome { stale, on_replicas }
}

async fn run(count: usize) {
    const TASKS: usize = 8;
    let rig = Arc::new(Rig::new(2).await);
    let mut tenants = Vec::new();
    for n in 0..TASKS {
        tenants.push(rig.tenant(&format!("t{n}")).await);
    }
    // These look once: no replica is left for being paused, so that only the check stands between a read
    // and the past.
    let processes = [Process::start(rig.patient()), Process::start(rig.patient())];
    for process in &processes {
        process.until_all(tenantry_db::replicas::State::Healthy).await;
    }
    let processes = processes.map(Arc::new);
    let stop = watch::Sender::new(false);
    let stumblers =
        [1, 2].map(|number| tokio::spawn(stumbling(Arc::clone(&rig), number, stop.subscribe())));
    for how in [How::Token, How::Memory] {
        let tasks = tenants.iter().enumerate().map(|(task, id)| {
            tokio::spawn(pairs(how, processes.clone(), *id, task, count / TASKS))
        });
        let (mut stale, mut on_replicas) = (0, 0);
        for task in futures_util::future::join_all(tasks).await {
            let outcome = task.unwrap();
            stale += outcome.stale;
            on_replicas += outcome.on_replicas;
        }
        assert_eq!(stale, 0, "of {count} pairs");
        // Without both this would show nothing.
        assert!(on_replicas > count / 100, "{on_replicas} of {count} pairs were read on a replica");
    }
    let late: u64 = processes.iter().map(|process| process.count(ReadOn::Stale)).sum();
    assert!(late > count as u64 / 100, "{late} reads found their replica behind");
    stop.send_replace(true);
    for stumbler in stumblers {
        stumbler.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_written_a_moment_ago_is_never_missing() {
    run(800).await;
}

#[tokio::test]
#[ignore = "takes minutes: `script/test --full`"]
async fn of_ten_thousand_pairs_none_is_stale() {
    run(10_000).await;
}
