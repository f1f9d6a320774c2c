//! Many purges, and a large one, on a server with PostgreSQL's default lock table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tenantry_stack::{Server, Stack};
use tenantry_testing::{Servers, TestDatabase, temp_dir};

use super::{assert_gone, purge};
use crate::deletion::delete;
use crate::texts;

/// 100 connections, 64 locks for each: what `initdb` leaves.
async fn default_server() -> (TestDatabase, Stack, tempfile::TempDir) {
    let dir = temp_dir().unwrap();
    let (mut stack, servers) = Servers::start(dir.path(), 4).await.unwrap();
    let db = TestDatabase::on(servers).await;
    let set = "ALTER SYSTEM SET max_connections = 100";
    db.superuser().await.batch_execute(set).await.unwrap();
    stack.stop_server(Server::Primary).await.unwrap();
    stack.start_primary().await.unwrap();
    let shown = texts(&db.superuser().await, "SELECT current_setting('max_connections') || ' ' || current_setting('max_locks_per_transaction')").await;
    assert_eq!(shown, ["100 64"]);
    (db, stack, dir)
}

#[tokio::test]
#[ignore = "takes a minute: part of `script/test --full`"]
async fn a_hundred_purges_in_a_row() {
    let (db, _stack, _dir) = default_server().await;
    let superuser = db.superuser().await;
    let mut took = Vec::new();
    for n in 0..100 {
        let tenant = db.tenant(&format!("t{n}")).await;
        delete(&db, &tenant).await;
        let started = Instant::now();
        purge(&db, &tenant).await.unwrap();
        took.push(started.elapsed());
        if n % 25 == 24 {
            assert_gone(&db, &superuser, &tenant).await;
        }
    }
    took.sort();
    eprintln!("one purge: p50 {:?}, slowest {:?}", took[50], took[99]);
    let left = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tenant\\_%'";
    assert_eq!(texts(&superuser, left).await, Vec::<String>::new());
    assert_eq!(db.ledger().entries().unwrap().len(), 100);
}

#[tokio::test]
#[ignore = "takes a minute: part of `script/test --full`"]
async fn two_thousand_tables_go_while_others_work() {
    const TABLES: usize = 2000;
    let (db, _stack, _dir) = default_server().await;
    let db = Arc::new(db);
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let superuser = db.superuser().await;
    let schema = acme.schema();
    for hundred in 0..TABLES / 100 {
        // Each refers to the one hub and to its predecessor.
        let tables: Vec<String> = (hundred * 100..hundred * 100 + 100)
            .map(|n| {
                format!(
                    "CREATE TABLE {schema}.t{n} (id int PRIMARY KEY, b text, u uuid REFERENCES {schema}.users, p int {});
                     CREATE INDEX ON {schema}.t{n} (b); CREATE INDEX ON {schema}.t{n} (u)",
                    if n == 0 { String::new() } else { format!("REFERENCES {schema}.t{}", n - 1) }
                )
            })
            .collect();
        superuser.batch_execute(&tables.join("; ")).await.unwrap();
    }
    // The trap: in one go it does not fit.
    let at_once = format!("DROP SCHEMA {schema} CASCADE");
    assert_eq!(crate::refusal(&superuser, &at_once).await.code(), "53200");
    // The error comes before the locks are free.
    superuser.batch_execute("").await.unwrap();
    delete(&db, &acme).await;
    let stop = Arc::new(AtomicBool::new(false));
    let worker = {
        let (db, stop) = (Arc::clone(&db), Arc::clone(&stop));
        tokio::spawn(async move {
            let installation = db.installation();
            let entry = installation.directory().find(globex.id).await.unwrap().unwrap();
            let tenant = installation.tenant_db(entry).unwrap();
            let (mut calls, mut slowest) = (0_u32, std::time::Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                tenant.query("SELECT email FROM users", &[]).await.unwrap();
                slowest = slowest.max(started.elapsed());
                calls += 1;
                if calls.is_multiple_of(200) {
                    db.tenant(&format!("new{calls}")).await;
                }
            }
            (calls, slowest)
        })
    };
    let started = Instant::now();
    let report = purge(&db, &acme).await.unwrap();
    eprintln!("{TABLES} tables: {:?}; {}", started.elapsed(), report.steps);
    stop.store(true, Ordering::Relaxed);
    let (calls, slowest) = worker.await.unwrap();
    eprintln!("meanwhile {calls} calls of another tenant, the slowest {slowest:?}");
    assert!(calls > 0);
    assert_gone(&db, &superuser, &acme).await;
}
