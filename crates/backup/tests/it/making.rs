//! Making backups: what there is afterwards, whose it is, and who else may at the same time.

use std::sync::Mutex;

use tenantry_backup::{BackupKind, Due, Error, Progress, run_if_due};
use tenantry_db::doctor::Outcome;
use tenantry_db::models::backups::find_report;

use crate::watching::set;
use crate::world::World;

#[tokio::test]
async fn the_first_one_is_due_at_once_and_afterwards_none_is() {
    let world = World::new().await;
    let progress = Mutex::new(Vec::new());
    let see = |now| progress.lock().unwrap().push(now);
    let (due, made) = run_if_due(&world.engine, &world.db.admin, see).await.unwrap().unwrap();
    assert_eq!((due, made.kind), (Due::First, BackupKind::Full));
    let progress = progress.into_inner().unwrap();
    assert!(progress.contains(&Progress::Copying { percent: 100.0 }));
    assert!(progress.contains(&Progress::WaitingForLog));
    assert_eq!(run_if_due(&world.engine, &world.db.admin, |_| {}).await.unwrap().map(drop), None);

    let segment = world.segment().await;
    let found = world.examine().await;
    assert_eq!(found.worst(), Outcome::Ok, "{:?}", found.report.checks);
    assert!(found.is_continuous);
    let [window] = &*found.recoverable.windows else { panic!("{:?}", found.recoverable) };
    assert_eq!(window.from, made.stopped_at);
    assert_eq!(window.last_segment.to_string(), segment);
    assert!(found.report.numbers["newest_timestamp_seconds"] > 1e9);

    // Whoever runs elsewhere learns of it from the database.
    let stored = find_report(&world.db.reader).await.unwrap().unwrap();
    assert!(stored.report.checks.iter().any(|it| it.name == "backup_age"));
    assert!(stored.age.as_secs() < 60);

    // The server's own user can go on with all of it: nothing is root's.
    let owner = world.owners("data/primary")[0].1;
    for place in ["backup", "repository"] {
        for (path, uid) in world.owners(place) {
            assert_eq!(uid, owner, "{}", path.display());
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn differences_rest_on_the_full_one_and_lengthen_nothing() {
    let world = World::backed_up().await;
    for kind in [BackupKind::Diff, BackupKind::Incr] {
        let made = world.engine.back_up_now(&world.db.admin, kind, |_| {}).await.unwrap();
        assert_eq!(made.kind, kind);
    }
    let found = world.examine().await;
    assert_eq!(found.backups.len(), 3);
    assert_eq!(found.recoverable.windows.len(), 1);
    assert_eq!(found.recoverable.windows[0].backups.len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn two_at_once_are_one_and_one_that_is_told_so() {
    let world = World::backed_up().await;
    let (engine, admin) = (&world.engine, &world.db.admin);
    let make = || engine.back_up_now(admin, BackupKind::Full, |_| {});
    let (one, two) = tokio::join!(make(), make());
    let (made, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    made.unwrap();
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    // Past our lock, as somebody by hand: pgBackRest has one of its own.
    let (one, two) = tokio::join!(
        engine.back_up(BackupKind::Full, |_| {}),
        engine.back_up(BackupKind::Full, |_| {})
    );
    let refused = if one.is_ok() { two } else { one };
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    make().await.unwrap();
    // Whoever decides keeps the others from deciding, also while pgBackRest itself is at rest: otherwise two
    // could see that one is due, and both make it.
    let lock = std::fs::File::open(world.path("backup/schedule.lock")).unwrap();
    lock.try_lock().unwrap();
    let decided = run_if_due(engine, admin, |_| {}).await;
    assert!(matches!(decided, Err(Error::Busy)), "{decided:?}");
    drop(lock);
    assert!(run_if_due(engine, admin, |_| {}).await.unwrap().is_none());
    world.stop().await;
}

#[tokio::test]
async fn one_that_is_dropped_or_killed_leaves_no_lock() {
    let world = World::backed_up().await;
    let client = world.db.superuser().await;
    let copying =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest%'";
    let none =
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest%'";
    // Dropped: told to end, and gone a moment later. By itself it would wait a minute for its log.
    set(&world, Some("false # pgbackrest")).await;
    let waiting =
        format!("{copying} AND state = 'idle' AND clock_timestamp() - state_change > '1s'");
    tokio::select! {
        made = world.back_up() => panic!("too quick: {}", made.label),
        () = crate::world::until(&client, &waiting) => {}
    }
    crate::world::until(&client, none).await;
    let made = world.engine.repository().await.unwrap().backups;
    assert_eq!(made.len(), 1, "it did not go on by itself");
    set(&world, None).await;
    client.batch_execute("SELECT txid_current(); SELECT pg_switch_wal()").await.unwrap();
    world.back_up().await;
    // Killed.
    tokio::select! {
        _ = world.engine.back_up(BackupKind::Full, |_| {}) => panic!("too quick"),
        () = async {
            crate::world::until(&client, copying).await;
            for pid in world.pgbackrests() {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        } => {}
    }
    crate::world::until(&client, none).await;
    world.back_up().await;
    assert!(world.examine().await.is_continuous);
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be() {
    let mut world = World::backed_up().await;
    world.stack.stop_server(tenantry_stack::Server::Primary).await.unwrap();
    let error = world.engine.back_up(BackupKind::Full, |_| {}).await.unwrap_err();
    assert!(matches!(&error, Error::ServerAway { .. }), "{error:?}");
    assert!(matches!(world.engine.check().await, Err(Error::ServerAway { .. })));
    // What is in the repository can be seen all the same.
    let found = world.examine().await;
    assert_eq!(found.backups.len(), 1);
    let archiver = found.report.checks.iter().find(|it| it.name == "archiver").unwrap();
    assert_eq!(archiver.outcome, Outcome::Failed);
    world.stop().await;
}
