//! Taking back what is not as usual: a database older than the program, files that lie elsewhere.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_backup::{Destination, When};
use tenantry_db::init::init;
use tenantry_db::lifecycle::get_certificate;
use tenantry_db::migrate::migrate_public;
use tenantry_db::{AdminDb, ReaderDb};
use tenantry_stack::{Scratch, Server, ServerUser};
use tokio_postgres::{Client, NoTls};

use crate::world::{World, until};

async fn moment(client: &Client) -> Timestamp {
    client.query_typed_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0)
}

/// As before the program was upgraded: without its newest tables, and without a function that `init` makes.
async fn downgrade(client: &Client) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../db/migrations/public");
    const NEWEST: [&str; 4] = [
        "0013_keep_replaced_schemas",
        "0012_remember_backup_reports",
        "0011_keep_a_heartbeat",
        "0010_certify_erasures",
    ];
    for name in NEWEST {
        let down = std::fs::read_to_string(files.join(format!("{name}.down.sql"))).unwrap();
        client.batch_execute(&format!("SET ROLE shared_owner; {down}; RESET ROLE")).await.unwrap();
    }
    let forget = "DELETE FROM public.migrations WHERE schema_name = 'public' AND version >= 10";
    client.batch_execute(forget).await.unwrap();
    let drop = "SELECT format('DROP FUNCTION %s', oid::regprocedure) FROM pg_proc
                WHERE proname = 'drop_tenant_large_objects'";
    let drop: String = client.query_typed_one(drop, &[]).await.unwrap().get(0);
    client.batch_execute(&drop).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_older_than_the_program_is_brought_up_to_date_before_it_is_served() {
    let mut world = World::new().await;
    let gone = world.db.tenant("gone").await;
    let client = world.db.superuser().await;
    downgrade(&client).await;
    // The report can't be stored in such a database; the backup is made all the same.
    world.engine.create_stanza().await.unwrap();
    let made = world.engine.back_up(tenantry_backup::BackupKind::Full, |_| {}).await.unwrap();
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    let before = moment(&client).await;
    // The upgrade, and an erasure after it.
    init(&world.config).await.unwrap();
    let migrations = &world.db.migrations;
    let applied = migrate_public(&world.db.admin, &migrations.public, None, |_| {}).await.unwrap();
    assert_eq!(applied.len(), 4);
    world.db.purge(&gone).await;
    world.segment().await;
    drop(client);

    world.stack.stop_server(Server::Primary).await.unwrap();
    let restored = world.restore(When::At(before), Destination::InPlace).await.unwrap();
    assert_eq!((&*restored.backup, restored.erased_again), (&*made.label, 1));
    let notes = restored.notes.join("\n");
    assert!(notes.contains("4 public migrations were applied again"), "{notes}");
    world.stack.start_primary().await.unwrap();
    let admin = AdminDb::new(&world.config).unwrap();
    let head = migrate_public(&admin, &migrations.public, None, |_| {}).await.unwrap();
    assert!(head.is_empty(), "it is at head");
    let again = init(&world.config).await.unwrap();
    assert_eq!(again.changed, Vec::<String>::new());
    let reader = ReaderDb::new(&world.config).unwrap();
    get_certificate(&reader, gone.id).await.unwrap();
    world.engine.report(&admin).await.unwrap();
    world.stop().await;
}

async fn names(world: &World, directory: &Path) -> (Vec<String>, String) {
    let owner = ServerUser::owner_of(directory).unwrap();
    let place = tenantry_stack::canonical(&world.path("")).unwrap().join("looking");
    let mut scratch = Scratch::open(&place, &owner).await.unwrap();
    let settings =
        [("max_connections", "400".into()), ("max_prepared_transactions", "1000".into())];
    scratch.start(directory, &settings, Duration::from_secs(60)).await.unwrap();
    let (client, connection) =
        scratch.config("postgres", world.db.name()).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let found = names_in(&client).await;
    let place = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'elsewhere'";
    let place = client.query_typed_one(place, &[]).await.unwrap().get(0);
    drop(client);
    scratch.stop().await.unwrap();
    scratch.wipe().await.unwrap();
    (found, place)
}

async fn names_in(client: &Client) -> Vec<String> {
    let rows = client.query_typed("SELECT name FROM public.far ORDER BY 1", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_tablespace_comes_back_beside_its_server_and_the_old_one_stays_as_it_is() {
    let mut world = World::new().await;
    let owner = ServerUser::owner_of(&world.path("data/primary")).unwrap();
    let root = tenantry_stack::canonical(&world.path("")).unwrap();
    let far = root.join("far");
    tenantry_stack::files::ensure_directory(&far, 0o700, Some(&owner)).unwrap();
    let client = world.db.superuser().await;
    let create = format!("CREATE TABLESPACE elsewhere LOCATION '{}'", far.display());
    client.batch_execute(&create).await.unwrap();
    let table = "CREATE TABLE public.far (name text) TABLESPACE elsewhere";
    client.batch_execute(table).await.unwrap();
    world.back_up().await;
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    client.batch_execute("INSERT INTO public.far VALUES ('A')").await.unwrap();
    let between = moment(&client).await;
    client.batch_execute("INSERT INTO public.far VALUES ('B')").await.unwrap();
    world.segment().await;

    let when = When::At(between);
    let beside = world.restore(when, Destination::Beside(world.path("beside"))).await.unwrap();
    let (found, place) = names(&world, &beside.data_dir).await;
    assert_eq!(found, ["A"]);
    assert!(place.starts_with(&format!("{}/beside.tablespaces-", root.display())), "{place}");
    assert_eq!(names_in(&client).await, ["A", "B"], "the server's own is left alone");
    assert!(world.owners("beside").iter().all(|(_, uid)| *uid == owner.uid));
    let drilled = world.engine.drill(&world.config, |_| {}).await.unwrap();
    assert!(drilled.ok, "{}", drilled.problems());

    drop(client);
    world.stack.stop_server(Server::Primary).await.unwrap();
    let restored = world.restore(when, Destination::InPlace).await.unwrap();
    let (found, place) = names(&world, &restored.data_dir).await;
    assert_eq!(found, ["A"]);
    assert!(place.contains("/data/primary.tablespaces-"), "{place}");
    // What was set aside has its own files still.
    let (found, place) = names(&world, &restored.kept.unwrap()).await;
    assert_eq!((found, Path::new(&place)), (vec!["A".to_owned(), "B".to_owned()], far.as_path()));
    world.stack.start_primary().await.unwrap();
    assert_eq!(names_in(&world.db.superuser().await).await, ["A"]);
    world.stop().await;
}
