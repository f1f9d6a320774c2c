//! Files that would leave half of themselves behind: refused when they are read, or failing whole.

use tenantry_db::ErrorKind;
use tenantry_db::migrate::{Migrations, RolloutOptions};

use super::fleet::{Fleet, LABEL};
use super::{failure, files};
use crate::texts;

#[test]
fn what_would_split_a_file_is_refused_when_it_is_read() {
    for text in [
        "CREATE TABLE a ();\nCOMMIT;\nCREATE TABLE b ();",
        "CREATE TABLE a ();\ncommit;",
        "CREATE TABLE a ();\n/* why */ cOmMiT /* not */ and chain;",
        "CREATE TABLE a (); -- harmless COMMIT;\nEND;",
        "SELECT 'a\\';\nROLLBACK; --'",
        "SELECT $a$ $b$ $a$;\nABORT; SELECT $b$ $b$",
        "CREATE TABLE a ();\nBEGIN; CREATE TABLE b ();",
        "CREATE TABLE a ();\nSTART /* a */ TRANSACTION;",
        "CREATE TABLE a ();\nSAVEPOINT a;",
        "CREATE TABLE a ();\nROLLBACK TO a;",
        "CREATE TABLE a ();\nPREPARE TRANSACTION 'a';",
        "-- no-transaction\nCOMMIT;",
        // What looks like a function's body, and is none.
        "SELECT FROM begin atomic;\nCOMMIT;",
        "CREATE FUNCTION f(begin atomic) RETURNS int LANGUAGE sql AS 'SELECT 1';\nCOMMIT;",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;\nCOMMIT;",
    ] {
        let dir = files(&[("tenant/0101_hostile.up.sql", text)]);
        let error = Migrations::from_dir(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("0101_hostile.up.sql`, line 2"), "{text}: {error}");
        assert!(error.contains("would split the transaction"), "{text}: {error}");
    }
    let dir = files(&[("tenant/0101_hostile.up.sql", "-- why\n-- no-transaction\nSELECT 1;")]);
    let error = Migrations::from_dir(dir.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("line 2: `-- no-transaction` counts in the first line only"), "{error}");
}

#[tokio::test]
async fn what_commits_from_within_is_refused_or_fails_whole() {
    let fleet = Fleet::new(1).await;
    for text in [
        "CREATE TABLE label (); DO $$ BEGIN COMMIT; END $$;",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; END $$; CALL p();",
    ] {
        fleet.write(&[("tenant/0101_hostile.up.sql", text)]);
        let linted = RolloutOptions { lint: true, ..fleet.options() };
        let error = fleet.run(linted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{text}: {error}");
        assert!(error.to_string().contains("in a body"), "{text}: {error}");
        // Without lint, the server refuses it, because the file is one message.
        let report = fleet.run(RolloutOptions { lint: false, ..fleet.options() }).await.unwrap();
        assert_eq!(failure(&report).sqlstate.as_deref(), Some("2D000"), "{text}: {report:?}");
        fleet.assert_whole("label", 101).await;
    }
    // As what no lint sees into.
    fleet
        .superuser
        .batch_execute(
            "CREATE PROCEDURE public.hidden() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
        )
        .await
        .unwrap();
    fleet.write(&[("tenant/0101_hostile.up.sql", "CREATE TABLE label (id int); CALL hidden();")]);
    let report = fleet.run(fleet.options()).await.unwrap();
    assert_eq!(failure(&report).sqlstate.as_deref(), Some("2D000"), "{report:?}");
    fleet.assert_whole("label", 101).await;
    assert!(fleet.at(101).await.is_empty());
}

/// What stands first in the path does not take the ledger's statements to itself.
#[tokio::test]
async fn what_a_schema_holds_does_not_reach_the_ledger() {
    let fleet = Fleet::new(1).await;
    fleet
        .sql(
            1,
            "CREATE TABLE migrations (version bigint); CREATE TABLE tenants (id uuid, schema_version bigint);
             CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql RETURN 'epoch'::timestamptz;
             CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql RETURN 'epoch'::timestamptz",
        )
        .await;
    fleet.write(&[LABEL]).to_head().await;
    fleet.assert_whole("label", 101).await;
    let wrong = "SELECT schema_name::text FROM public.migrations
                 WHERE applied_at < now() - interval '1 hour' AND version = 101";
    assert!(texts(&fleet.superuser, wrong).await.is_empty());
}
