//! Drills: what a good backup gives, what a damaged one, and what is left behind.

use tenantry_backup::{Drilled, Error};
use tenantry_db::doctor::Outcome;
use tenantry_stack::{Server, ServerUser, files};

use crate::world::World;

async fn drill(world: &World) -> Drilled {
    world.engine.drill(&world.config, |_| {}).await.unwrap()
}

fn detail<'a>(drilled: &'a Drilled, name: &str) -> &'a str {
    &drilled.checks.iter().find(|it| it.name == name).unwrap().detail
}

fn assert_wiped(world: &World) {
    assert!(!world.path("backup/scratch").exists(), "nothing is left");
}

#[tokio::test]
async fn a_good_backup_is_shown_to_be_one_and_nothing_is_left() {
    let mut world = World::new().await;
    let canary = world.db.tenant("canary").await;
    world.db.tenant("other").await;
    let row = format!(
        "INSERT INTO {}.teams (name) SELECT 'team ' || n FROM generate_series(1, 500) n",
        canary.schema()
    );
    world.db.superuser().await.batch_execute(&row).await.unwrap();
    let made = world.back_up().await;
    let drilled = drill(&world).await;
    assert!(drilled.ok, "{}", drilled.problems());
    assert_eq!(drilled.backup.as_deref(), Some(&*made.label));
    assert!(detail(&drilled, "canary").contains("same 500 rows"), "{drilled:?}");
    assert!(detail(&drilled, "tenants").starts_with("2 tenants"), "{drilled:?}");
    assert!(detail(&drilled, "pages").contains("are sound"), "{drilled:?}");
    assert!(drilled.loss_window_s.is_some() && drilled.restore_s.unwrap() <= drilled.took_s);
    assert_wiped(&world);
    let found = world.examine().await;
    let check = found.report.checks.iter().find(|it| it.name == "drill").unwrap();
    assert_eq!(check.outcome, Outcome::Ok, "{check:?}");
    assert!((found.report.numbers["drill_ok"] - 1.0).abs() < f64::EPSILON);
    assert!(found.report.numbers.contains_key("drill_loss_window_seconds"));

    // With the server away it is as good, and nothing is compared.
    world.stack.stop_server(Server::Primary).await.unwrap();
    let drilled = drill(&world).await;
    assert!(drilled.ok, "{}", drilled.problems());
    assert!(detail(&drilled, "canary").contains("not compared"), "{drilled:?}");
    assert_wiped(&world);
    world.stop().await;
}

#[tokio::test]
async fn a_damaged_backup_fails_loudly_and_a_new_one_heals() {
    let world = World::new().await;
    world.db.tenant("canary").await;
    let made = world.back_up().await;
    crate::damage::flip(&world, &made.label);
    let drilled = drill(&world).await;
    assert!(!drilled.ok);
    assert!(drilled.problems().contains("restore: "), "{}", drilled.problems());
    assert_wiped(&world);
    let drill_check = async || {
        let found = world.examine().await;
        found.report.checks.into_iter().find(|it| it.name == "drill").unwrap()
    };
    assert_eq!(drill_check().await.outcome, Outcome::Failed);
    world.back_up().await;
    let healed = drill(&world).await;
    assert!(healed.ok, "{}", healed.problems());
    assert_eq!(drill_check().await.outcome, Outcome::Ok);
    world.stop().await;
}

#[tokio::test]
async fn a_copy_that_differs_is_seen() {
    let world = World::new().await;
    let canary = world.db.tenant("canary").await;
    world.back_up().await;
    // A segment that has rows is lost, and the backup goes on behind it: a drill must not say that all is well.
    let row = format!("INSERT INTO {}.teams (name) VALUES ('x')", canary.schema());
    world.db.superuser().await.batch_execute(&row).await.unwrap();
    let lost = world.segment().await;
    world.segment().await;
    std::fs::remove_file(world.archived(&lost)).unwrap();
    let drilled = drill(&world).await;
    assert!(!drilled.ok, "{drilled:?}");
    assert_wiped(&world);
    world.stop().await;
}

/// A table that does not reach the log is empty on the copy: a tenant who would lose it is told of.
#[tokio::test]
async fn rows_that_differ_from_the_servers_fail_the_drill() {
    let world = World::new().await;
    let canary = world.db.tenant("canary").await;
    let schema = canary.schema();
    let table = format!(
        "SET ROLE shared_owner; CREATE UNLOGGED TABLE {schema}.drafts AS SELECT 1 AS n; RESET ROLE;
         INSERT INTO {schema}.teams (name) VALUES ('kept')"
    );
    world.db.superuser().await.batch_execute(&table).await.unwrap();
    world.back_up().await;
    let drilled = drill(&world).await;
    assert!(!drilled.ok, "{drilled:?}");
    let expected = format!("canary: `{}` differs from the server in drafts", canary.id);
    assert_eq!(drilled.problems(), expected);
    assert_wiped(&world);
    let found = world.examine().await;
    let check = found.report.checks.iter().find(|it| it.name == "drill").unwrap();
    assert_eq!(check.outcome, Outcome::Failed, "{check:?}");
    // Without it, the same backup is good.
    let dropped = format!("DROP TABLE {schema}.drafts");
    world.db.superuser().await.batch_execute(&dropped).await.unwrap();
    let healed = drill(&world).await;
    assert!(healed.ok, "{}", healed.problems());
    world.stop().await;
}

#[tokio::test]
async fn one_at_a_time_and_what_a_killed_one_left_is_wiped() {
    let world = World::backed_up().await;
    let (one, two) = tokio::join!(
        world.engine.drill(&world.config, |_| {}),
        world.engine.drill(&world.config, |_| {})
    );
    let (held, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(held.unwrap().ok);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Place(tenantry_stack::Error::Locked { .. })), "{refused:?}");
    assert_eq!(refused.kind(), tenantry_db::ErrorKind::Busy);
    // As after a kill: the mark, a data directory, and more.
    let owner = ServerUser::owner_of(&world.path("data/primary")).unwrap();
    let place = world.path("backup/scratch");
    files::ensure_directory(&place, 0o711, None).unwrap();
    files::write_private(&place.join(".tenantry-layout"), "1\n", None).unwrap();
    files::ensure_directory(&place.join("primary"), 0o700, Some(&owner)).unwrap();
    files::write_private(&place.join("primary/PG_VERSION"), "9", Some(&owner)).unwrap();
    assert!(drill(&world).await.ok);
    assert_wiped(&world);
    // Dropped in the middle.
    let (seen, first) = tokio::sync::oneshot::channel();
    let mut seen = Some(seen);
    tokio::select! {
        drilled = world.engine.drill(&world.config, |_| { let _ = seen.take().map(|it| it.send(())); }) => panic!("too quick: {drilled:?}"),
        _ = first => {}
    }
    let last = drill(&world).await;
    assert!(last.ok, "{}", last.problems());
    assert_wiped(&world);
    world.stop().await;
}
