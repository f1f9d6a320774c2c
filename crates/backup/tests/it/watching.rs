//! What goes wrong on the server's side, and that it clears by itself.

use std::time::Duration;

use tenantry_backup::{BackupKind, Engine, Error, keep};
use tenantry_db::doctor::Outcome;
use tenantry_db::models::backups::{BackupCheck, find_report};
use tokio::sync::Notify;

use crate::world::{World, until};

async fn archiver(world: &World) -> BackupCheck {
    let found = world.examine().await;
    found.report.checks.into_iter().find(|it| it.name == "archiver").unwrap()
}

pub(crate) async fn set(world: &World, command: Option<&str>) {
    let client = world.db.superuser().await;
    let set = match command {
        Some(command) => format!("ALTER SYSTEM SET archive_command = '{command}'"),
        None => "ALTER SYSTEM RESET archive_command".to_owned(),
    };
    client.batch_execute(&set).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test]
async fn an_archive_that_is_away_is_an_alarm_and_mends_itself() {
    let world = World::backed_up().await;
    let client = world.db.superuser().await;
    let (place, aside) = (world.path("repository"), world.path("aside"));
    std::fs::rename(&place, &aside).unwrap();
    client.batch_execute("SELECT txid_current(); SELECT pg_switch_wal()").await.unwrap();
    until(&client, "SELECT last_failed_time > last_archived_time FROM pg_stat_archiver").await;
    std::fs::rename(&aside, &place).unwrap();
    let found = archiver(&world).await;
    assert_ne!(found.outcome, Outcome::Ok, "{found:?}");
    // A switch wakes the archiver, which otherwise tries again within a minute.
    client.batch_execute("SELECT txid_current(); SELECT pg_switch_wal()").await.unwrap();
    until(&client, "SELECT last_failed_time < last_archived_time FROM pg_stat_archiver").await;
    world.segment().await;
    assert_eq!(archiver(&world).await.outcome, Outcome::Ok);
    assert!(world.examine().await.is_continuous, "nothing was lost meanwhile");
    world.stop().await;
}

#[tokio::test]
async fn an_archive_command_that_lies_is_seen() {
    let world = World::backed_up().await;
    // It drops the segment and says that all is well, as a queue limit would.
    set(&world, Some("true # pgbackrest")).await;
    world.segment().await;
    let found = archiver(&world).await;
    assert_eq!(found.outcome, Outcome::Failed);
    assert!(found.detail.contains("believes"), "{}", found.detail);
    set(&world, Some("something else")).await;
    let error = world.engine.back_up(BackupKind::Full, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::NotArchiving { .. }), "{error:?}");
    set(&world, None).await;
    world.segment().await;
    let found = world.examine().await;
    assert!(!found.is_continuous, "a segment is lost for good: {found:#?}");
    world.back_up().await;
    world.segment().await;
    assert!(world.examine().await.is_continuous);
    assert_eq!(archiver(&world).await.outcome, Outcome::Ok);
    world.stop().await;
}

#[tokio::test]
async fn the_service_makes_the_first_one_and_ends_when_told_to() {
    let world = World::new().await;
    let stop = Notify::new();
    let kept = async {
        let client = world.db.superuser().await;
        let told =
            "SELECT max((report->'numbers'->>'count')::float8) = 1 FROM public.backup_report";
        until(&client, told).await;
        stop.notify_one();
    };
    let keeping = keep(world.engine.clone(), world.installation(), stop.notified());
    tokio::join!(keeping, kept);
    assert!(find_report(&world.db.reader).await.unwrap().is_some());
    assert_eq!(world.examine().await.backups.len(), 1);
    world.stop().await;
}

/// A backup that can't be made, again and again, keeps nobody from looking at those that are there.
#[tokio::test]
async fn what_else_is_due_is_done_where_no_backup_can_be_made() {
    let world = World::backed_up().await;
    set(&world, Some("something else")).await;
    let soon = Duration::from_millis(1);
    let mut settings = world.engine.settings().clone();
    settings.full_every = soon;
    (settings.verify_every, settings.drill_every) = (Some(soon), Some(soon));
    let engine = Engine::open(settings).await.unwrap();
    let stop = Notify::new();
    let looked = async {
        let client = world.db.superuser().await;
        let told = "SELECT max((report->'numbers'->>'drill_ok')::float8) IS NOT NULL FROM public.backup_report";
        until(&client, told).await;
        stop.notify_one();
    };
    tokio::join!(keep(engine.clone(), world.installation(), stop.notified()), looked);
    assert!(engine.last_verified().unwrap().ok);
    assert_eq!(world.examine().await.backups.len(), 1, "none could be made");
    world.stop().await;
}
