//! Files outside a transaction: resumed where they stopped, nothing run twice, and no index that is
//! there and of no use.

use tenantry_db::migrate::{Event, RolloutOptions, RunState, Stop};
use tokio_postgres::Client;

use super::failure;
use super::fleet::Fleet;
use crate::texts;

const FILE: &str = "tenant/0101_index.up.sql";

/// Of a tenant's index on `item.note`: its oid, and whether it is of use.
async fn index(fleet: &Fleet, n: usize) -> Vec<String> {
    let query = format!(
        "SELECT concat_ws(' ', c.oid, i.indisvalid) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
         WHERE c.relname = 'item_note_idx' AND c.relnamespace = '{}'::regnamespace",
        fleet.schema(n)
    );
    texts(&fleet.superuser, &query).await
}

async fn is_valid(fleet: &Fleet, n: usize) -> bool {
    matches!(index(fleet, n).await.as_slice(), [one] if one.ends_with(" t"))
}

/// A concurrent build interrupted by its own failure leaves what any interruption leaves.
async fn leave_invalid(fleet: &Fleet, n: usize) {
    fleet.sql(n, "INSERT INTO item VALUES (1, 'twice'), (2, 'twice')").await;
    let build = format!(
        "CREATE UNIQUE INDEX CONCURRENTLY item_note_idx ON {}.item (note)",
        fleet.schema(n)
    );
    fleet.superuser.batch_execute(&build).await.unwrap_err();
    fleet.sql(n, "DELETE FROM item WHERE note = 'twice'").await;
    assert!(!is_valid(fleet, n).await && index(fleet, n).await.len() == 1);
}

async fn progress(fleet: &Fleet) -> Vec<String> {
    let query = "SELECT concat_ws(' ', version, direction, statements_begun, statements_done)
                 FROM public.migration_progress";
    texts(&fleet.superuser, query).await
}

/// Whoever keeps this makes concurrent builds wait, and no others.
async fn old_snapshot(fleet: &Fleet) -> Client {
    let client = fleet.db.superuser().await;
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM {}.item", fleet.schema(1));
    client.batch_execute(&begin).await.unwrap();
    client
}

#[tokio::test]
async fn a_cancelled_build_is_dropped_and_built_again() {
    let fleet = Fleet::new(2).await;
    let text = "-- no-transaction\n-- tenantry: index=concurrently\n\
                CREATE INDEX CONCURRENTLY IF NOT EXISTS item_note_idx ON item (note);";
    fleet.write(&[(FILE, text)]);
    let reader = old_snapshot(&fleet).await;
    let mut run = fleet.start(RolloutOptions { parallel: 1, ..fleet.options() }).await;
    assert!(fleet.until_blocked().await.contains("CONCURRENTLY"));
    run.stop.send_replace(Stop::Cancel);
    let report = run.end().await.unwrap();
    assert_eq!((report.state, report.left), (RunState::Interrupted, 2));
    assert_eq!(progress(&fleet).await, ["101 up 0 0"], "it was answered, so nothing is in doubt");
    assert!(!is_valid(&fleet, 1).await && index(&fleet, 1).await.len() == 1);
    reader.batch_execute("COMMIT").await.unwrap();
    fleet.to_head().await;
    assert!(is_valid(&fleet, 1).await && is_valid(&fleet, 2).await);
    assert!(progress(&fleet).await.is_empty());
    assert_eq!(fleet.at(101).await, [1, 2]);
}

#[tokio::test]
async fn a_leftover_is_no_index_also_where_the_build_is_plain() {
    let fleet = Fleet::new(2).await;
    let text =
        "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS item_note_idx ON item (note);";
    fleet.write(&[(FILE, text)]);
    leave_invalid(&fleet, 1).await;
    fleet.to_head().await;
    assert!(is_valid(&fleet, 1).await && is_valid(&fleet, 2).await);
}

/// Three statements, the second of which fails where two items have one note.
const THREE: &str = "-- no-transaction\n-- tenantry: index=concurrently\n\
                     INSERT INTO item VALUES (101, 'first');\n\
                     CREATE UNIQUE INDEX CONCURRENTLY item_note_idx ON item (note);\n\
                     INSERT INTO item VALUES (103, 'third');";

#[tokio::test]
async fn what_failed_at_its_second_statement_goes_on_there() {
    let fleet = Fleet::new(2).await;
    fleet.write(&[(FILE, THREE)]);
    fleet.sql(2, "INSERT INTO item VALUES (1, 'twice'), (2, 'twice')").await;
    let report = fleet.run(fleet.options()).await.unwrap();
    let failed = failure(&report);
    assert_eq!((failed.subdomain.as_deref(), failed.line), (Some("t2"), Some(4)));
    assert_eq!(failed.sqlstate.as_deref(), Some("23505"));
    assert!(failed.statement.as_deref().unwrap().starts_with("CREATE UNIQUE INDEX"), "{failed:?}");
    assert_eq!((fleet.at(2).await, fleet.at(101).await), (vec![2], vec![1]));
    assert!(progress(&fleet).await[0].ends_with(" 1"), "{:?}", progress(&fleet).await);
    // What ran can't be changed any more.
    fleet.write(&[(FILE, &THREE.replace("'first'", "'zeroth'"))]);
    let behind = RolloutOptions { tenants: fleet.only(&[2]), ..fleet.options() };
    assert!(fleet.run(behind.clone()).await.unwrap_err().to_string().contains("was changed"));
    fleet.write(&[(FILE, THREE)]);
    fleet.sql(2, "DELETE FROM item WHERE id = 2").await;
    fleet.to_head().await;
    let items = format!("SELECT note FROM {}.item ORDER BY id", fleet.schema(2));
    assert_eq!(texts(&fleet.superuser, &items).await, ["twice", "first", "third"]);
    assert!(is_valid(&fleet, 2).await && progress(&fleet).await.is_empty());
}

#[tokio::test]
async fn a_statement_that_failed_may_be_mended_and_one_that_ran_may_not() {
    let fleet = Fleet::new(1).await;
    let broken = THREE.replace("(note)", "(nonsense)");
    fleet.write(&[(FILE, &broken)]);
    let report = fleet.run(fleet.options()).await.unwrap();
    assert_eq!(failure(&report).sqlstate.as_deref(), Some("42703"));
    let changed = THREE.replace("'first'", "'zeroth'");
    fleet.write(&[(FILE, &changed)]);
    let report = fleet.run(fleet.options()).await.unwrap();
    let message = &failure(&report).message;
    assert!(message.contains("was changed after 1 of its statements had run"), "{message}");
    fleet.write(&[(FILE, THREE)]).to_head().await;
    let items = format!("SELECT note FROM {}.item ORDER BY id", fleet.schema(1));
    assert_eq!(texts(&fleet.superuser, &items).await, ["first", "third"]);
    assert!(is_valid(&fleet, 1).await);
}

/// A runner that was killed in the middle of the second statement, whose backend ended then.
async fn killed_at_the_second(fleet: &Fleet, text: &str) {
    fleet.write(&[(FILE, text)]);
    let reader = old_snapshot(fleet).await;
    let run = fleet.start(fleet.options()).await;
    assert!(fleet.until_blocked().await.contains("INDEX CONCURRENTLY"));
    run.kill().await;
    let end = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    assert_eq!(texts(&fleet.superuser, end).await, ["true"]);
    let gone = "SELECT 'yes' WHERE NOT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE '%INDEX CONCURRENTLY%' AND pid <> pg_backend_pid())";
    fleet.until(gone).await;
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(progress(fleet).await, ["101 up 2 1"]);
    fleet.sql(1, "DROP INDEX IF EXISTS item_note_idx").await;
}

#[tokio::test]
async fn a_statement_in_doubt_is_looked_at_and_not_run_twice() {
    for leftover in ["none", "valid", "invalid"] {
        let fleet = Fleet::new(1).await;
        killed_at_the_second(&fleet, THREE).await;
        match leftover {
            "valid" => fleet.sql(1, "CREATE UNIQUE INDEX item_note_idx ON item (note)").await,
            "invalid" => leave_invalid(&fleet, 1).await,
            _ => {}
        }
        let before = index(&fleet, 1).await;
        fleet.to_head().await;
        assert!(is_valid(&fleet, 1).await, "{leftover}");
        assert_eq!(index(&fleet, 1).await == before, leftover == "valid", "{leftover}");
        let items = format!("SELECT note FROM {}.item ORDER BY id", fleet.schema(1));
        assert_eq!(texts(&fleet.superuser, &items).await, ["first", "third"], "{leftover}");
        assert!(progress(&fleet).await.is_empty());
    }
}

#[tokio::test]
async fn a_dropped_index_in_doubt_is_gone_already() {
    let fleet = Fleet::new(1).await;
    let text = THREE.replace(
        "CREATE UNIQUE INDEX CONCURRENTLY item_note_idx ON item (note)",
        "DROP INDEX CONCURRENTLY item_note_idx",
    );
    fleet.sql(1, "CREATE INDEX item_note_idx ON item (note)").await;
    killed_at_the_second(&fleet, &text).await;
    fleet.to_head().await;
    assert_eq!(fleet.at(101).await, [1]);
}

#[tokio::test]
async fn small_tables_get_a_plain_index_and_large_ones_a_concurrent_one() {
    let mut fleet = Fleet::new(2).await;
    fleet.limit("migrations.plain_index_up_to_mib", 0);
    fleet.sql(2, "INSERT INTO item VALUES (1, 'large')").await;
    let auto = "-- no-transaction\nCREATE INDEX CONCURRENTLY item_note_idx ON item (note);";
    fleet.write(&[(FILE, auto)]);
    let reader = old_snapshot(&fleet).await;
    let mut run = fleet.start(fleet.options()).await;
    run.until(1, super::fleet::is_done).await;
    assert!(fleet.until_blocked().await.starts_with("CREATE INDEX CONCURRENTLY"));
    assert_eq!(run.done(), ["t1"]);
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run.end().await.unwrap().tenants.done, 2);
    assert!(is_valid(&fleet, 1).await && is_valid(&fleet, 2).await);
}

#[tokio::test]
async fn a_file_may_say_how_its_index_is_built() {
    let fleet = Fleet::new(1).await;
    let build = |how: &str| {
        format!(
            "-- no-transaction\n-- tenantry: index={how}\nCREATE INDEX CONCURRENTLY item_note_idx ON item (note);"
        )
    };
    let down = ("tenant/0101_index.down.sql", "DROP INDEX item_note_idx;");
    fleet.write(&[(FILE, &build("concurrently")), down]);
    let reader = old_snapshot(&fleet).await;
    let mut run = fleet.start(fleet.options()).await;
    assert!(fleet.until_blocked().await.starts_with("CREATE INDEX CONCURRENTLY"));
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run.end().await.unwrap().tenants.done, 1);
    fleet.run(fleet.back_to(2)).await.unwrap();

    let mut fleet = fleet;
    fleet.limit("migrations.plain_index_up_to_mib", 0);
    fleet.sql(1, "INSERT INTO item VALUES (1, 'large')").await;
    fleet.write(&[(FILE, &build("plain"))]);
    let reader = old_snapshot(&fleet).await;
    fleet.to_head().await;
    assert!(is_valid(&fleet, 1).await);
    reader.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_concurrent_build_waits_longer_than_a_lock_may_be_waited_for() {
    let mut fleet = Fleet::new(1).await;
    fleet.limit("migrations.lock_timeout", "50ms");
    let text = "-- no-transaction\n-- tenantry: index=concurrently\n\
                CREATE INDEX CONCURRENTLY item_note_idx ON item (note);";
    fleet.write(&[(FILE, text)]);
    let reader = old_snapshot(&fleet).await;
    let mut run = fleet.start(fleet.options()).await;
    fleet.until(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
         AND clock_timestamp() - query_start > interval '300ms'",
    )
    .await;
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run.end().await.unwrap().tenants.done, 1);
    assert!(!run.events().iter().any(|event| matches!(event, Event::Retrying { .. })));
}

#[tokio::test]
async fn the_public_set_and_the_way_back_may_run_outside_a_transaction() {
    let fleet = Fleet::new(2).await;
    fleet.write(&[
        (
            "public/0100_index.up.sql",
            "-- no-transaction\nCREATE INDEX CONCURRENTLY countries_name_idx ON countries (name);\n\
             CREATE TABLE seen (id int);\nGRANT SELECT ON seen TO :\"reader\";",
        ),
        (
            "public/0100_index.down.sql",
            "-- no-transaction\nDROP INDEX CONCURRENTLY countries_name_idx;\nDROP TABLE seen;",
        ),
        (FILE, "-- no-transaction\nCREATE INDEX CONCURRENTLY item_note_idx ON item (note);"),
        ("tenant/0101_index.down.sql", "-- no-transaction\nDROP INDEX CONCURRENTLY item_note_idx;"),
    ]);
    for _ in 0..2 {
        fleet.to_head().await;
        let seen = "SELECT relname::text FROM pg_class WHERE relname IN ('countries_name_idx', 'item_note_idx')";
        assert_eq!(texts(&fleet.superuser, seen).await.len(), 3);
        let all = RolloutOptions { public: true, ..fleet.back_to(99) };
        let report = fleet.run(all).await.unwrap();
        assert_eq!((report.public, report.tenants.done), (1, 2), "{report:?}");
        assert!(texts(&fleet.superuser, seen).await.is_empty());
        assert!(progress(&fleet).await.is_empty());
    }
}
