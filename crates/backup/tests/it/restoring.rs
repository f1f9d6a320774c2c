//! Taking the server back: which rows there are, who stays erased, what is refused.

mod damaged_log;
mod detours;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tenantry_backup::{Destination, Error, Restore, Restored, When, restore};
use tenantry_db::lifecycle::{hold_tenant, suspend_tenant};
use tenantry_db::{AdminDb, ErrorKind};
use tenantry_stack::{Scratch, Server, ServerUser, files};
use tokio_postgres::{Client, NoTls};

use crate::world::{World, until};

/// The server's own time, between two commits.
async fn moment(client: &Client) -> Timestamp {
    client.query_typed_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0)
}

async fn write(client: &Client, row: &str) {
    client.batch_execute(&format!("INSERT INTO public.probe VALUES ('{row}')")).await.unwrap();
}

/// With a table in the tenants' database, a first backup, and rows A and B around a moment.
async fn around() -> (World, Client, Timestamp) {
    around_in(World::new().await).await
}

async fn around_in(world: World) -> (World, Client, Timestamp) {
    let client = world.db.superuser().await;
    client.batch_execute("CREATE TABLE public.probe (name text)").await.unwrap();
    world.back_up().await;
    // A backup's end is known to the second.
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    write(&client, "A").await;
    let between = moment(&client).await;
    write(&client, "B").await;
    (world, client, between)
}

async fn beside(world: &World, when: When, name: &str) -> Result<Restored, Error> {
    world.restore(when, Destination::Beside(world.path(name))).await
}

/// Rows of a query on a restored directory, on a server of our own that nobody else reaches.
async fn rows(world: &World, directory: &Path, query: &str) -> Vec<String> {
    let owner = ServerUser::owner_of(directory).unwrap();
    let place = tenantry_stack::canonical(&world.path("")).unwrap().join("looking");
    let mut scratch = Scratch::open(&place, &owner).await.unwrap();
    scratch
        .start(
            directory,
            &[("max_connections", "400".into()), ("max_prepared_transactions", "1000".into())],
            Duration::from_secs(60),
        )
        .await
        .unwrap();
    let (client, connection) =
        scratch.config("postgres", world.db.name()).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client.query_typed(query, &[]).await.unwrap();
    let rows = rows.iter().map(|row| row.get(0)).collect();
    drop(client);
    scratch.stop().await.unwrap();
    scratch.wipe().await.unwrap();
    rows
}

const PROBE: &str = "SELECT name FROM public.probe ORDER BY name";

#[tokio::test]
async fn a_moment_has_what_was_committed_until_then_in_whatever_zone_it_is_given() {
    let (world, client, between) = around().await;
    let utc: When = between.to_string().parse().unwrap();
    let there = between.to_zoned(TimeZone::fixed(jiff::tz::offset(2)));
    let there: When = there.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string().parse().unwrap();
    assert_eq!(utc, there);
    let restored = beside(&world, there, "restored").await.unwrap();
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A"]);
    assert!(restored.last_commit.unwrap() <= between && restored.stopped_before.unwrap() > between);
    assert_eq!((restored.from_timeline, restored.timeline), (1, 2));
    assert_eq!(restored.lost_decisions.as_deref(), Some(&[][..]));
    assert_eq!(restored.kept, None);
    // The server went on, and is nobody's business.
    write(&client, "C").await;
    // Nothing of it steers a server that is built from this one later, nor belongs to root.
    let auto = std::fs::read_to_string(restored.data_dir.join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("recovery_target") && !auto.contains("restore_command"), "{auto}");
    let owner = world.owners("data/primary")[0].1;
    assert!(world.owners("restored").iter().all(|(_, uid)| *uid == owner));
    assert!(!world.path(".restored.restoring").exists(), "it is wiped");
    let taken = beside(&world, utc, "restored").await.unwrap_err();
    assert!(matches!(taken, Error::TargetTaken { .. }), "{taken:?}");
    assert_eq!(taken.kind(), ErrorKind::Refused);
    world.stop().await;
}

#[tokio::test]
async fn now_is_everything_also_where_nothing_happens() {
    let (world, client, _) = around().await;
    world.segment().await;
    // Idle from here on; a moment behind the last commit is reached all the same.
    let idle = moment(&client).await;
    let restored = beside(&world, When::At(idle), "idle").await.unwrap();
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B"]);
    write(&client, "C").await;
    let restored = beside(&world, When::Now, "now").await.unwrap();
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B", "C"]);
    assert_eq!(restored.stopped_before, None);
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_recovered_is_refused_with_what_can() {
    let (mut world, client, between) = around().await;
    let future = When::At(Timestamp::now() + Duration::from_secs(3600));
    let first = world.engine.repository().await.unwrap().backups[0].stopped_at;
    let early = When::At(first - Duration::from_secs(60));
    for (when, reason) in [(future, "in the future"), (early, "before the first backup")] {
        let error = beside(&world, when, "never").await.unwrap_err();
        assert!(matches!(error, Error::NotRecoverable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(reason) && text.contains("(timeline 1)"), "{text}");
    }
    // A gap.
    let lost = world.segment().await;
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    let inside = moment(&client).await;
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    world.segment().await;
    std::fs::remove_file(world.archived(&lost)).unwrap();
    let error = beside(&world, When::At(inside), "never").await.unwrap_err();
    assert!(error.to_string().contains(&lost), "{error}");
    let inside = beside(&world, When::At(between), "data/primary/copy").await.unwrap_err();
    assert!(matches!(inside, Error::TargetInside { .. }), "{inside:?}");
    // The server runs, so its place is taken.
    let error = world.restore(When::At(between), Destination::InPlace).await.unwrap_err();
    assert!(matches!(error, Error::ServerRuns { .. }), "{error:?}");
    // Behind the last commit of a server that is away, nobody can tell.
    world.stack.stop_server(Server::Primary).await.unwrap();
    assert!(!world.path("never").exists() && !world.path(".never.restoring").exists());
    world.stop().await;
}

#[tokio::test]
async fn a_second_recovery_to_the_timeline_that_was_left_has_the_rows_of_that_one() {
    let (mut world, client, between) = around().await;
    let after_b = moment(&client).await;
    write(&client, "C").await;
    world.segment().await;
    drop(client);
    world.stack.stop_server(Server::Primary).await.unwrap();
    let restored = world.restore(When::At(between), Destination::InPlace).await.unwrap();
    let kept = restored.kept.unwrap();
    assert!(kept.join("PG_VERSION").exists());
    assert_eq!(restored.data_dir, tenantry_stack::canonical(&world.path("data/primary")).unwrap());
    world.stack.start_primary().await.unwrap();
    let client = world.db.superuser().await;
    assert_eq!(probe(&client).await, ["A"]);
    write(&client, "D").await;
    world.segment().await;
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    let found = world.examine().await;
    let timelines: Vec<u32> = found.recoverable.windows.iter().map(|it| it.timeline).collect();
    assert_eq!(timelines, [1, 2], "the new timeline is known where it came from");
    assert!(found.is_continuous);
    // The abandoned one: B is there, and D is not.
    let again = beside(&world, When::At(after_b), "abandoned").await.unwrap();
    assert_eq!(again.from_timeline, 1);
    assert_eq!(rows(&world, &again.data_dir, PROBE).await, ["A", "B"]);
    let newest = beside(&world, When::Now, "newest").await.unwrap();
    assert_eq!(newest.from_timeline, 2);
    assert_eq!(rows(&world, &newest.data_dir, PROBE).await, ["A", "D"]);
    world.stop().await;
}

async fn probe(client: &Client) -> Vec<String> {
    client.query_typed(PROBE, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn whoever_was_erased_or_shut_out_since_is_told_and_stays_so() {
    let (mut world, client, _) = around().await;
    let db = &world.db;
    let (gone, also_gone) = (db.tenant("gone").await, db.tenant("also-gone").await);
    let (shut, left, held) =
        (db.tenant("shut").await, db.tenant("left").await, db.tenant("held").await);
    let before = moment(&client).await;
    db.purge(&gone).await;
    db.purge(&also_gone).await;
    suspend_tenant(&db.admin, shut.id, &db.actor()).await.unwrap();
    hold_tenant(&db.admin, held.id, true, &db.actor()).await.unwrap();
    db.tenant("later").await;
    tenantry_db::audit::anchor_head(
        &db.admin,
        &tenantry_db::audit::Anchor::find(&db.config).unwrap(),
    )
    .await
    .unwrap();
    world.segment().await;
    drop(client);
    world.stack.stop_server(Server::Primary).await.unwrap();
    // Without the ledger nobody in the restored state is named, but the state that is given up knows of them.
    let ledger = world.config.erasure.ledger_dir.as_ref().unwrap().join("erasures.jsonl");
    let aside = ledger.with_extension("aside");
    std::fs::rename(&ledger, &aside).unwrap();
    let refused = world.restore(When::At(before), Destination::InPlace).await.unwrap_err();
    assert!(refused.to_string().contains("lacks entry 2"), "{refused}");
    std::fs::rename(&aside, &ledger).unwrap();

    let restored = world.restore(When::At(before), Destination::InPlace).await.unwrap();
    assert_eq!(restored.erased_again, 2);
    let lost = restored.lost_decisions.clone().unwrap();
    let mut lost: Vec<(Option<&str>, &str)> =
        lost.iter().map(|it| (it.subdomain.as_deref(), it.decision)).collect();
    lost.sort_unstable();
    let expected =
        [(Some("held"), "held"), (Some("later"), "created"), (Some("shut"), "suspended")];
    assert_eq!(lost, expected);
    world.stack.start_primary().await.unwrap();
    let client = world.db.superuser().await;
    let status = "SELECT coalesce(subdomain, '-') || ' ' || status FROM public.tenants ORDER BY 1";
    let found = client.query_typed(status, &[]).await.unwrap();
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, ["- purged", "- purged", "held active", "left active", "shut active"]);
    for tenant in [&gone, &also_gone] {
        let schema =
            format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'", tenant.schema());
        let row = client.query_typed_one(&schema, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
    }
    let entry = "SELECT details->>'erased_again' FROM public.audit_log WHERE action = 'installation.rewound'";
    let row = client.query_typed_one(entry, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "2");
    // The log of who did what can go on, and says itself that something was lost.
    let admin = AdminDb::new(&world.db.config).unwrap();
    let anchor = tenantry_db::audit::Anchor::find(&world.db.config).unwrap();
    tenantry_db::audit::anchor_head(&admin, &anchor).await.unwrap();
    assert!(anchor.heads().unwrap().iter().any(|line| line.restored));
    let _ = left;
    world.stop().await;
}

#[tokio::test]
async fn decided_again_on_demand() {
    let (mut world, client, _) = around().await;
    let db = &world.db;
    let (shut, gone) = (db.tenant("shut").await, db.tenant("gone").await);
    let before = moment(&client).await;
    suspend_tenant(&db.admin, shut.id, &db.actor()).await.unwrap();
    let how = tenantry_db::lifecycle::Deletion { confirm: Some("gone"), retention: None };
    tenantry_db::lifecycle::delete_tenant(&db.admin, &db.config, gone.id, how, &db.actor())
        .await
        .unwrap();
    world.segment().await;
    drop(client);
    world.stack.stop_server(Server::Primary).await.unwrap();
    let actor = world.db.actor();
    let wish = Restore {
        engine: &world.engine,
        config: &world.config,
        actor: &actor,
        when: When::At(before),
        destination: Destination::InPlace,
        decide_again: true,
    };
    let restored = restore(&wish, |_| {}).await.unwrap();
    assert_eq!(restored.decided_again, 2);
    world.stack.start_primary().await.unwrap();
    let client = world.db.superuser().await;
    let status = "SELECT subdomain || ' ' || status FROM public.tenants ORDER BY 1";
    let found = client.query_typed(status, &[]).await.unwrap();
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, ["gone deleted", "shut suspended"]);
    world.stop().await;
}

/// In the middle of erasing again: the server is what it was, and the next one begins anew.
#[tokio::test]
async fn a_restore_that_is_dropped_changes_nothing_and_the_next_one_does_all() {
    let (mut world, client, _) = around().await;
    let db = &world.db;
    let mut tenants = Vec::new();
    for n in 0..3 {
        tenants.push(db.tenant(&format!("t{n}")).await);
    }
    let before = moment(&client).await;
    for tenant in &tenants {
        db.purge(tenant).await;
    }
    world.segment().await;
    drop(client);
    world.stack.stop_server(Server::Primary).await.unwrap();
    let actor = world.db.actor();
    let wish = Restore {
        engine: &world.engine,
        config: &world.config,
        actor: &actor,
        when: When::At(before),
        destination: Destination::InPlace,
        decide_again: false,
    };
    let (reached, at_erasing) = tokio::sync::oneshot::channel();
    let mut reached = Some(reached);
    let said = |step| {
        if step == tenantry_backup::Step::Erasing
            && let Some(reached) = reached.take()
        {
            let _ = reached.send(());
        }
    };
    tokio::select! {
        restored = restore(&wish, said) => panic!("too quick: {restored:?}"),
        () = async {
            at_erasing.await.unwrap();
            // Somewhere among the steps of three purges.
            tokio::time::sleep(Duration::from_millis(60)).await;
        } => {}
    }
    let primary = world.path("data/primary");
    let query = "SELECT count(*)::text FROM public.tenants WHERE status = 'purged'";
    assert_eq!(rows(&world, &primary, query).await, ["3"], "it is what it was");
    // One that was killed leaves more: a server that runs, and its files.
    let owner = ServerUser::owner_of(&primary).unwrap();
    let place = tenantry_stack::canonical(&world.path("data")).unwrap().join(".primary.restoring");
    files::ensure_directory(&place, 0o711, None).unwrap();
    files::write_private(&place.join(".tenantry-layout"), "1\n", None).unwrap();
    files::ensure_directory(&place.join("primary"), 0o700, Some(&owner)).unwrap();
    files::write_private(&place.join("primary/left"), "x", Some(&owner)).unwrap();
    let restored = restore(&wish, |_| {}).await.unwrap();
    assert_eq!(restored.erased_again, 3);
    assert!(!place.exists() && !primary.join("left").exists());
    assert_eq!(rows(&world, &primary, query).await, ["3"]);
    world.stop().await;
}
