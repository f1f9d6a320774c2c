//! Servers and neighbours that make it hard: whoever is held up does not hold up others, and what is
//! lost on the way is made up for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tenantry_db::TenantDb;
use tenantry_db::migrate::{Event, RolloutOptions, RunState};
use tenantry_stack::Server;
use tenantry_testing::{Servers, TestDatabase, temp_dir};

use super::fleet::{Fleet, is_done, is_retry};
use crate::texts;

const WIDE: (&str, &str) = ("tenant/0101_wide.up.sql", "ALTER TABLE item ADD COLUMN wide text;");

/// Queries without end; how many got their answer.
async fn query(tenant: TenantDb, answered: Arc<AtomicUsize>) {
    loop {
        tenant.query("SELECT id FROM item", &[]).await.unwrap();
        answered.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_is_held_up_by_a_reader_holds_up_nobody() {
    let mut fleet = Fleet::new(8).await;
    fleet.limit("migrations.lock_timeout", "100ms");
    fleet.limit("migrations.retries", 100);
    let busy = fleet.create(&fleet.migrations(), "busy").await;
    fleet.write(&[WIDE]);
    let service = fleet.db.installation();
    let entry = service.directory().find(busy.id).await.unwrap().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let application = tokio::spawn(query(service.tenant_db(entry).unwrap(), Arc::clone(&answered)));
    let reader = fleet.db.superuser().await;
    let read = format!("BEGIN; SELECT FROM {}.item", busy.schema());
    reader.batch_execute(&read).await.unwrap();

    let mut run = fleet.start(fleet.options()).await;
    run.until(8, is_done).await;
    assert!(!run.done().contains(&"busy".to_owned()), "the others are there before it");
    // Between the tries the application gets through, though the reader is still there.
    for tries in 1..=3 {
        run.until(tries, is_retry).await;
        let before = answered.load(Ordering::SeqCst);
        let through = async {
            while answered.load(Ordering::SeqCst) < before + 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::fleet::PATIENCE, through).await.expect("the application waits");
    }
    let blocked = run.events().into_iter().find_map(|event| match event {
        Event::Retrying { subdomain, blocked_by, .. } => Some((subdomain, blocked_by)),
        _ => None,
    });
    let (subdomain, blocked_by) = blocked.unwrap();
    assert_eq!(subdomain.as_deref(), Some("busy"));
    let pid: i32 = reader.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_eq!(blocked_by.first().map(|blocker| blocker.pid), Some(pid), "{blocked_by:?}");
    reader.batch_execute("COMMIT").await.unwrap();
    let report = run.end().await.unwrap();
    assert_eq!((report.state, report.tenants.done), (RunState::Complete, 9));
    assert_eq!(run.done().last().map(String::as_str), Some("busy"));
    assert!(!application.is_finished(), "no query failed");
    application.abort();
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let fleet = Fleet::new(1).await;
    fleet.write(&[(
        "tenant/0101_two.up.sql",
        "-- tenantry: lock_timeout=1min\nALTER TABLE item ADD COLUMN wide text;\nLOCK TABLE public.countries;",
    )]);
    let other = fleet.db.superuser().await;
    other
        .batch_execute("SET deadlock_timeout = '1h'; BEGIN; LOCK TABLE public.countries")
        .await
        .unwrap();
    let mut run = fleet.start(fleet.options()).await;
    fleet.until_blocked().await;
    // Whoever asks is the one that waits longest; the migration notices, and gives way.
    other.batch_execute(&format!("LOCK TABLE {}.item", fleet.schema(1))).await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run.end().await.unwrap().tenants.done, 1);
    assert!(run.events().iter().any(
        |event| matches!(event, Event::Retrying { reason, .. } if reason.contains("deadlock"))
    ));
}

#[tokio::test]
async fn a_lost_connection_is_made_up_for() {
    let fleet = Fleet::new(6).await;
    fleet.write(&[(
        "tenant/0101_slow.up.sql",
        "CREATE TABLE label (); SELECT pg_sleep(CASE WHEN to_regclass('hurry') IS NULL THEN 600 ELSE 0 END);",
    )]);
    let mut run = fleet.start(fleet.options()).await;
    let sleeping = "SELECT 'yes' FROM pg_stat_activity WHERE wait_event = 'PgSleep'
                    AND datname = current_database() HAVING count(*) = 4";
    fleet.until(sleeping).await;
    for n in 1..=6 {
        fleet.sql(n, "CREATE TABLE hurry ()").await;
    }
    let end = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
               WHERE wait_event = 'PgSleep' AND datname = current_database()";
    assert_eq!(texts(&fleet.superuser, end).await.len(), 4);
    let report = run.end().await.unwrap();
    assert_eq!((report.state, report.tenants.done), (RunState::Complete, 6), "{report:?}");
    assert_eq!(run.events().iter().filter(|event| is_retry(event)).count(), 4);
    fleet.assert_whole("label", 101).await;
}

#[tokio::test]
async fn a_run_goes_on_when_the_primary_restarts_and_when_it_crashes() {
    let dir = temp_dir().unwrap();
    let (mut stack, servers) = Servers::start(dir.path(), 2).await.unwrap();
    let mut fleet = Fleet::on(TestDatabase::on(servers).await, 60).await;
    fleet.write(&[("tenant/0101_label.up.sql", "CREATE TABLE label (); SELECT pg_sleep(0.05);")]);
    let mut run = fleet.start(fleet.options()).await;
    run.until(10, is_done).await;
    stack.stop_server(Server::Primary).await.unwrap();
    run.until(1, is_retry).await;
    stack.start_primary().await.unwrap();
    run.until(30, is_done).await;
    // Without a good-bye; what was not written yet is lost, and those tenants are where they were.
    stack.kill_server(Server::Primary).await.unwrap();
    let retries = run.events().iter().filter(|event| is_retry(event)).count();
    run.until(retries + 1, is_retry).await;
    stack.start_primary().await.unwrap();
    let report = run.end().await.unwrap();
    assert_eq!((report.state, report.tenants.done), (RunState::Complete, 60), "{report:?}");
    fleet.superuser = fleet.db.superuser().await;
    assert_eq!(fleet.at(101).await.len(), 60);
    fleet.assert_whole("label", 101).await;
    let runs = fleet.runs().await;
    assert_eq!(runs, ["up complete 60 60 0 0 true"]);
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_out_of_locks_or_connections_is_given_less_to_do() {
    let dir = temp_dir().unwrap();
    let small = |options: &mut tenantry_stack::StackOptions| {
        options.max_connections = 20;
        options.settings = vec![("max_locks_per_transaction".to_owned(), "10".to_owned())];
    };
    let (mut stack, servers) = Servers::start_with(dir.path(), 2, small).await.unwrap();
    let fleet = Fleet::on(TestDatabase::on(servers).await, 4).await;
    // So much as one transaction gets, and two at once do not.
    let tables: String = (0..450).map(|n| format!("CREATE TABLE label_{n} ();\n")).collect();
    let text = format!("{tables}SELECT pg_sleep(0.2);\nCREATE TABLE label ();");
    fleet.write(&[("tenant/0101_many.up.sql", &text)]);
    let mut run = fleet.start(RolloutOptions { parallel: 4, ..fleet.options() }).await;
    let report = run.end().await.unwrap();
    assert_eq!((report.state, report.tenants.done), (RunState::Complete, 4), "{report:?}");
    assert_eq!(slowed(run.events()), Some(1), "{:?}", run.events());
    let out_of_memory = |event: &Event| matches!(event, Event::Retrying { reason, .. } if reason.contains("shared memory"));
    assert!(run.events().iter().any(out_of_memory), "{:?}", run.events());
    fleet.assert_whole("label", 101).await;

    // Somebody else has all connections but a few.
    fleet.write(&[LABEL_2]);
    let mut hogs = Vec::new();
    let free = "SELECT (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                        - count(*))::text FROM pg_stat_activity WHERE backend_type = 'client backend'";
    while texts(&fleet.superuser, free).await[0].parse::<i32>().unwrap() > 3 {
        hogs.push(fleet.db.admin_client().await);
    }
    let mut run = fleet.start(RolloutOptions { parallel: 4, ..fleet.options() }).await;
    let report = run.end().await.unwrap();
    assert_eq!((report.state, report.tenants.done), (RunState::Complete, 4), "{report:?}");
    assert!(slowed(run.events()).is_some(), "{:?}", run.events());
    assert_eq!(fleet.at(102).await.len(), 4);
    stack.stop().await.unwrap();
}

const LABEL_2: (&str, &str) = ("tenant/0102_wide.up.sql", "ALTER TABLE item ADD COLUMN wide text;");

/// How many at once it came down to.
fn slowed(events: Vec<Event>) -> Option<usize> {
    let slowed = |event| match event {
        Event::SlowedDown { parallel } => Some(parallel),
        _ => None,
    };
    events.into_iter().filter_map(slowed).min()
}
