//! `migrate verify` and `migrate status --drift`, as a person and as a script meets them.

use tenantry_testing::TestDatabase;

use crate::program::{installation, run, with_migration};

#[tokio::test]
async fn files_are_tried_and_the_exit_code_says_how_it_went() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let good = run(dir.path(), &["migrate", "verify"]);
    assert_eq!(good.code, 0, "{}", good.stderr);
    let last = good.stdout.lines().last().unwrap();
    assert!(last.ends_with("checks passed; nothing was left behind"), "{}", good.stdout);
    with_migration(dir.path(), "ALTER TABLE users ADD COLUMN weight int NOT NULL;");
    let bad = run(dir.path(), &["migrate", "verify", "--set", "tenant"]);
    assert_eq!(bad.code, 1, "{}", bad.stderr);
    assert!(
        bad.stdout.contains("with rows  `sql/tenant/0005_note.up.sql`: up, down, up: FAILED"),
        "{}",
        bad.stdout
    );
    assert!(bad.stdout.contains("contains null values"), "{}", bad.stdout);
    let json = run(dir.path(), &["migrate", "verify", "--set", "tenant", "--output", "json"]);
    assert_eq!((json.code, json.json()["passed"].as_bool()), (1, Some(false)));
}

#[tokio::test]
async fn drift_is_shown_and_is_no_failure_of_the_command() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    db.tenant("globex").await;
    let dir = installation(&db);
    let none = run(dir.path(), &["migrate", "status", "--drift"]);
    assert_eq!(none.code, 0, "{}", none.stderr);
    assert!(none.stdout.contains("drift: none, 2 compared\n"), "{}", none.stdout);
    let index = format!("CREATE INDEX by_hand ON {}.users (name)", acme.schema());
    db.superuser().await.batch_execute(&index).await.unwrap();
    let some = run(dir.path(), &["migrate", "status", "--drift"]);
    assert_eq!(some.code, 0, "{}", some.stderr);
    let expected = "drift: 1 of 2 compared\n  acme, at version 2:\n    + index users.by_hand: ";
    assert!(some.stdout.contains(expected), "{}", some.stdout);
    let json = ["migrate", "status", "--drift", "--output", "json"];
    assert_eq!(run(dir.path(), &json).json()["drift"]["drifted"], 1);
    let one = [&json[..], &["--tenant", "globex"]].concat();
    assert_eq!(run(dir.path(), &one).json()["drift"]["drifted"], 0);
    // Who does not ask for it does not wait for it.
    assert!(run(dir.path(), &["migrate", "status", "--output", "json"]).json()["drift"].is_null());
}
