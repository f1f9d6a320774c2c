//! A replica that needs log which the primary no longer has, and an archive that does.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use tenantry_db::replicas::{State, watch};
use tenantry_db::{Installation, ServedBy, TenantDb};
use tenantry_stack::{Error, Server};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use crate::world::{World, until};

const MAKE_SLOT: &str = "SELECT pg_create_physical_replication_slot('replica', true)";
const DROP_SLOT: &str = "SELECT pg_drop_replication_slot('replica')";

/// A process that serves, and watches the replica.
fn serve(world: &World) -> (Installation, JoinSet<()>) {
    let (installation, mut jobs) = (world.installation(), JoinSet::new());
    jobs.spawn(watch(installation.clone(), std::future::pending()));
    let directory = installation.directory().clone();
    jobs.spawn(async move { directory.follow().await });
    (installation, jobs)
}

async fn until_so(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited 60 s for {what}");
}

async fn until_is(installation: &Installation, state: State) {
    until_so(state.as_str(), async || installation.replicas().views()[0].state == state).await;
}

async fn add(tenant: &TenantDb, name: &str) {
    let insert = "INSERT INTO teams (name) VALUES ($1)";
    tenant.execute(insert, &[(&name, Type::TEXT)]).await.unwrap();
}

/// How many teams a read shows, once the replica answers it.
async fn on_replica(tenant: &TenantDb) -> i64 {
    for _ in 0..3000 {
        let read = tenant.read();
        let row = read.query_one("SELECT count(*) FROM teams", &[]).await.unwrap();
        if read.served_by() == Some(ServedBy::Replica) {
            return row.get(0);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the replica answered nothing for 60 s")
}

/// Lets the replica, which is away, lose its slot and the log behind it. Yields the segment that it needs first.
async fn lose_the_slot(world: &World, primary: &Client, tenant: &TenantDb) -> String {
    let needed = "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots";
    let needed: String = primary.query_typed_one(needed, &[]).await.unwrap().get(0);
    let gone = format!(
        "SELECT wal_status = 'lost' AND '{needed}' NOT IN (SELECT name FROM pg_ls_waldir()) \
           FROM pg_replication_slots"
    );
    for _ in 0..20 {
        add(tenant, "while it was away").await;
        world.segment().await;
        primary.batch_execute("CHECKPOINT").await.unwrap();
        if primary.query_typed_one(&gone, &[]).await.unwrap().get(0) {
            return needed;
        }
    }
    panic!("the slot kept its log")
}

#[tokio::test]
async fn a_replica_that_lost_its_slot_comes_back_by_the_archive() {
    let mut world = World::with_replica().await;
    world.back_up().await;
    world.stack.start_replica(1).await.unwrap();
    let id = world.db.tenant("acme").await.id;
    let (installation, _jobs) = serve(&world);
    until_is(&installation, State::Healthy).await;
    let entry = installation.directory().find(id).await.unwrap().unwrap();
    let tenant = installation.tenant_db(entry).unwrap();
    assert_eq!(on_replica(&tenant).await, 0);
    let primary = world.db.superuser().await;
    for little in ["max_slot_wal_keep_size = '1MB'", "wal_keep_size = 0"] {
        primary.batch_execute(&format!("ALTER SYSTEM SET {little}")).await.unwrap();
    }
    primary.batch_execute("SELECT pg_reload_conf()").await.unwrap();

    world.stack.stop_server(Server::Replica(1)).await.unwrap();
    until_is(&installation, State::Unhealthy).await;
    let needed = lose_the_slot(&world, &primary, &tenant).await;
    primary.batch_execute(DROP_SLOT).await.unwrap();
    primary.batch_execute(MAKE_SLOT).await.unwrap();
    // A slot alone brings nothing back.
    let error = world.stack.start_replica(1).await.unwrap_err();
    assert!(matches!(error, Error::ReplicaUnusable { .. }), "{error:?}");

    let directory = world.stack.server_dir(Server::Replica(1));
    let command = world.engine.restore_command(&directory).replace('\'', "''");
    let mut conf =
        OpenOptions::new().append(true).open(directory.join("postgresql.auto.conf")).unwrap();
    writeln!(conf, "restore_command = '{command}'").unwrap();
    world.stack.start_replica(1).await.unwrap();
    let log = std::fs::read_to_string(world.stack.log_path(Server::Replica(1))).unwrap();
    assert!(log.contains(&format!("restored log file \"{needed}\" from archive")), "{log}");
    until_is(&installation, State::Healthy).await;
    let count = format!("SELECT count(*) FROM {}.teams", id.schema());
    let written: i64 = primary.query_typed_one(&count, &[]).await.unwrap().get(0);
    assert!(written > 0);
    assert_eq!(on_replica(&tenant).await, written);

    // Somebody drops the slot of a replica that runs. It goes on by the archive alone, which is not enough.
    drop_while_it_runs(&primary).await;
    until_is(&installation, State::Unhealthy).await;
    add(&tenant, "without a slot").await;
    world.segment().await;
    let mut replica = world.stack.replica_superuser_config(1);
    let (replica, connection) = replica.dbname(world.db.name()).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    until(&replica, &format!("SELECT ({count}) = {}", written + 1)).await;
    primary.batch_execute(MAKE_SLOT).await.unwrap();
    until_is(&installation, State::Healthy).await;
    until(&primary, "SELECT active AND wal_status = 'reserved' FROM pg_replication_slots").await;
    world.stop().await;
}

/// It comes back within half a second, so several attempts may be needed.
async fn drop_while_it_runs(primary: &Client) {
    let cut =
        "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE active";
    until_so("the slot to be dropped", async || {
        primary.batch_execute(cut).await.unwrap();
        primary.batch_execute(DROP_SLOT).await.is_ok()
    })
    .await;
}
