//! Everything starts, serves, stops and starts again; in all the places where it should.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process;

use tenantry_stack::{Durability, Server, Stack, StackOptions, status};

use crate::place::{
    Place, connect, eventually, fill, first_order, is_root, is_running, mode, pooled, start_all,
    value,
};

#[tokio::test]
async fn everything_starts_serves_and_stops() {
    let place = Place::new();
    let mut stack = Stack::open(place.options()).await.unwrap();
    start_all(&mut stack).await;
    fill(&stack).await;

    let mut replica = stack.replica_superuser_config(1);
    replica.dbname("shop");
    eventually("the row on the replica", async || first_order(&replica).await.is_some()).await;
    for database in ["shop", "shop_replica"] {
        assert_eq!(first_order(&pooled(&stack, database)).await.as_deref(), Some("first"));
    }
    let pooled_replica = pooled(&stack, "shop_replica");
    assert_eq!(value(&pooled_replica, "SELECT pg_is_in_recovery()").await.as_deref(), Some("t"));
    assert!(value(&pooled(&stack, "pgbouncer"), "SHOW POOLS").await.is_some());
    assert_eq!(value(&pooled(&stack, "pgbouncer"), "RELOAD").await, None);

    let seen = status(stack.data_dir()).await.unwrap();
    assert_eq!(seen.owner_pid, Some(process::id()));
    for server in [Server::Pooler, Server::Replica(1), Server::Primary] {
        assert!(is_running(&seen, server), "{seen:?}");
    }

    stack.stop().await.unwrap();
    stack.stop().await.unwrap();
    place.expect_no_processes().await;
    drop(stack);
    let seen = status(&place.data_dir()).await.unwrap();
    assert_eq!(seen.owner_pid, None);
    assert!(!is_running(&seen, Server::Primary), "{seen:?}");

    let mut stack = Stack::open(place.options()).await.unwrap();
    start_all(&mut stack).await;
    assert_eq!(first_order(&pooled(&stack, "shop")).await.as_deref(), Some("first"));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn settings_and_url_reach_the_primary_and_strangers_do_not() {
    let place = Place::new();
    let own = ("work_mem".to_owned(), "5MB".to_owned());
    let options = StackOptions {
        settings: vec![own],
        durability: Durability::Durable,
        ..place.without_replica()
    };
    let mut stack = Stack::open(options).await.unwrap();
    stack.start_primary().await.unwrap();
    let by_url = stack.superuser_url().parse().unwrap();
    for (setting, expected) in [
        ("work_mem", "5MB"),
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("max_locks_per_transaction", "64"),
        ("max_prepared_transactions", "0"),
        ("server_encoding", "UTF8"),
    ] {
        let sql = format!("SHOW {setting}");
        assert_eq!(value(&by_url, &sql).await.as_deref(), Some(expected), "{setting}");
    }
    assert_eq!(value(stack.superuser_config().password("wrong"), "SELECT 1").await, None);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn files_are_private_and_belong_to_who_needs_them() {
    let place = Place::new();
    let mut stack = Stack::open(place.options()).await.unwrap();
    start_all(&mut stack).await;
    let data = stack.data_dir().to_owned();
    for file in [
        "pgbouncer/pgbouncer.ini",
        "pgbouncer/userlist.txt",
        "primary/tenantry.conf",
        "primary/pg_hba.conf",
        "replica/tenantry.conf",
        "replica/replicator.pgpass",
        "secrets/superuser",
        "secrets/replicator",
        "logs/primary.log",
    ] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    for directory in ["primary", "replica", "pgbouncer", "run/pg", "secrets", "logs"] {
        assert_eq!(mode(&data.join(directory)), 0o700, "{directory}");
    }
    if is_root() {
        let owner = |name: &str| fs::metadata(data.join(name)).unwrap().uid();
        assert_ne!(owner("primary/tenantry.conf"), 0);
        assert_ne!(owner("pgbouncer/userlist.txt"), 0);
        assert_eq!(owner("secrets/superuser"), 0);
        assert_eq!(owner("run/primary.pid"), 0);
    }
    assert!(!data.join("run/pg/initdb.password").exists());
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_sockets_is_no_obstacle() {
    let place = Place::new();
    let data_dir = place.data_dir().join("it's, \"deep\"").join("x".repeat(100));
    let options = StackOptions { data_dir, ..place.options() };
    let mut stack = Stack::open(options).await.unwrap();
    start_all(&mut stack).await;
    let sockets = value(&stack.superuser_config(), "SHOW unix_socket_directories").await.unwrap();
    assert!(sockets.contains("tenantry-"), "{sockets}");
    stack.stop().await.unwrap();
    fs::remove_dir(sockets.trim_matches('"')).unwrap();
}

#[tokio::test]
async fn dropping_a_stack_shuts_the_servers_down() {
    let place = Place::new();
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    stack.start_primary().await.unwrap();
    let client = connect(&stack.superuser_config()).await;
    drop(stack);
    place.expect_no_processes().await;
    drop(client);
}

#[tokio::test]
async fn an_ordinary_user_can_run_it() {
    const NOBODY: u32 = 65534;
    if !is_root() {
        eprintln!("skipped: all the other tests run as an ordinary user already");
        return;
    }
    let place = Place::new();
    fs::create_dir(place.data_dir()).unwrap();
    std::os::unix::fs::chown(place.data_dir(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = place.command_apart("starting::apart_as_an_ordinary_user");
    match command.uid(NOBODY).gid(NOBODY).current_dir("/").status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => eprintln!("skipped: `nobody` can't run this test's program: {error}"),
    }
    place.expect_no_processes().await;
}

#[tokio::test]
#[ignore = "run by `an_ordinary_user_can_run_it`"]
async fn apart_as_an_ordinary_user() {
    let Some(options) = Place::of_caller() else { return };
    let mut stack = Stack::open(options).await.unwrap();
    start_all(&mut stack).await;
    fill(&stack).await;
    assert_eq!(mode(stack.data_dir()), 0o700);
    assert_eq!(first_order(&pooled(&stack, "shop")).await.as_deref(), Some("first"));
    stack.stop().await.unwrap();
}
