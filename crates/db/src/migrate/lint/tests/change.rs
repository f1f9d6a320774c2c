//! The rules about changing what exists.

use super::{SetKind, check_tenant, in_set, lint_files, told};

#[test]
fn what_is_lost() {
    check_tenant(&[
        ("DROP TABLE notes;", &["drop-table"]),
        ("DROP TABLE notes CASCADE;", &["drop-cascade?", "drop-table"]),
        ("ALTER TABLE notes DROP COLUMN body;", &["drop-column"]),
        ("ALTER TABLE notes DROP body CASCADE;", &["drop-cascade?", "drop-column"]),
        ("ALTER TABLE notes RENAME TO papers;", &["rename-table"]),
        ("ALTER VIEW v RENAME TO w;", &["rename-table"]),
        ("ALTER TABLE notes RENAME body TO text;", &["rename-column"]),
        ("TRUNCATE notes;", &["truncate"]),
        ("DELETE FROM notes;", &["delete-all"]),
        ("DELETE FROM notes WHERE TRUE;", &["delete-all"]),
        ("WITH gone AS (DELETE FROM notes RETURNING 1) SELECT 1 FROM gone;", &["delete-all"]),
        ("UPDATE notes SET body = '';", &["update-all?"]),
        ("DO $$ BEGIN DELETE FROM notes; END $$;", &["delete-all", "do-block?"]),
        ("DELETE FROM notes WHERE body = '';", &[]),
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM notes; END $$;",
            &[],
        ),
        (
            "CREATE TABLE own AS SELECT 1 AS a; UPDATE own SET a = 2; DELETE FROM own; ALTER TABLE own DROP a; DROP TABLE own;",
            &[],
        ),
        (
            "CREATE TABLE IF NOT EXISTS notes (id int); ALTER TABLE notes DROP body;",
            &["drop-column"],
        ),
        ("DROP TABLE notes; CREATE TABLE notes AS SELECT 1;", &["drop-table"]),
        ("ALTER TABLE notes ADD extra text, DROP COLUMN extra;", &[]),
        ("ALTER TABLE notes ALTER body DROP DEFAULT, DROP CONSTRAINT x;", &[]),
        ("DROP VIEW v;", &[]),
    ]);
}

/// The findings in a down file, for this up file.
fn down(up: &str, down: &str) -> Vec<String> {
    let base = [("1_base.up.sql", super::TABLES), ("1_base.down.sql", "SELECT 1")];
    let files = [&base[..], &[("2_x.up.sql", up), ("2_x.down.sql", down)]].concat();
    told(&lint_files(&[], &files), "2_x.down.sql")
}

#[test]
fn a_down_file_takes_back_what_its_up_file_made() {
    let table = "CREATE TABLE own AS SELECT 1;";
    assert_eq!(down(table, "DROP TABLE own;"), [""; 0]);
    assert_eq!(down(table, "DROP TABLE notes;"), ["drop-table?"]);
    let column = "ALTER TABLE notes ADD extra text;";
    assert_eq!(down(column, "ALTER TABLE notes DROP COLUMN extra;"), [""; 0]);
    assert_eq!(down(column, "ALTER TABLE notes DROP COLUMN body;"), ["drop-column?"]);
    let again =
        "ALTER TABLE notes ADD IF NOT EXISTS body text; CREATE TABLE IF NOT EXISTS notes (id int);";
    assert_eq!(down(again, "ALTER TABLE notes DROP body;"), ["drop-column?"]);
    assert_eq!(down(again, "DROP TABLE notes;"), ["drop-table?"]);
    assert_eq!(down(table, "DELETE FROM notes;"), ["delete-all?"]);
    assert_eq!(down(table, "SET ROLE x;"), ["role-switch"]);
}

#[test]
fn locks_and_scans() {
    check_tenant(&[
        ("ALTER TABLE notes ALTER title TYPE text;", &["changing-column-type"]),
        ("ALTER TABLE notes ALTER title SET DATA TYPE varchar(50);", &["changing-column-type"]),
        ("ALTER TABLE notes ALTER title TYPE varchar(200);", &[]),
        ("ALTER TABLE notes ADD extra text NOT NULL;", &["required-column"]),
        ("ALTER TABLE notes ADD extra text NOT NULL DEFAULT '';", &[]),
        ("ALTER TABLE notes ADD extra uuid DEFAULT gen_random_uuid();", &["rewriting-column?"]),
        ("ALTER TABLE notes ADD extra timestamptz DEFAULT now();", &[]),
        ("ALTER TABLE notes ALTER body SET NOT NULL;", &["set-not-null?"]),
        ("ALTER TABLE notes ADD CONSTRAINT x CHECK (body <> '');", &["constraint-not-valid?"]),
        ("ALTER TABLE notes ADD CONSTRAINT x CHECK (body <> '') NOT VALID;", &[]),
        (
            "ALTER TABLE notes ADD CONSTRAINT x CHECK (body <> '') NOT VALID; ALTER TABLE notes VALIDATE CONSTRAINT x;",
            &["constraint-not-valid?"],
        ),
        (
            "ALTER TABLE notes ADD FOREIGN KEY (author) REFERENCES notes (id);",
            &["constraint-not-valid?"],
        ),
        ("ALTER TABLE notes ADD CONSTRAINT x UNIQUE (body);", &["unique-without-index?"]),
        ("ALTER TABLE notes ADD CONSTRAINT x UNIQUE USING INDEX y;", &[]),
        ("CREATE INDEX x ON notes (body);", &["index-not-concurrent?"]),
        (
            "CREATE TABLE own AS SELECT 1 AS a; CREATE INDEX x ON own (a); ALTER TABLE own ADD CHECK (a > 0), ALTER a TYPE bigint, ALTER a SET NOT NULL;",
            &[],
        ),
        ("LOCK TABLE notes;", &["table-lock?"]),
        ("REFRESH MATERIALIZED VIEW v;", &["table-lock?"]),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v;", &[]),
        ("REINDEX TABLE notes;", &["table-lock?"]),
        ("ALTER TABLE notes SET UNLOGGED;", &["table-lock?"]),
    ]);
}

#[test]
fn not_null_after_a_validated_check_of_an_earlier_file() {
    let steps = [
        ("1_a.sql", super::TABLES),
        ("2_b.sql", "ALTER TABLE notes ADD CONSTRAINT x CHECK (\"body\" IS NOT  NULL) NOT VALID;"),
        ("3_c.sql", "ALTER TABLE notes VALIDATE CONSTRAINT x;"),
        ("4_d.sql", "ALTER TABLE notes ALTER COLUMN body SET NOT NULL, DROP CONSTRAINT x;"),
    ];
    assert_eq!(told(&lint_files(&[], &steps), "4_d.sql"), ["missing-down?"]);
    let unvalidated = [steps[0], steps[1], steps[3]];
    assert_eq!(told(&lint_files(&[], &unvalidated), "4_d.sql"), ["missing-down?", "set-not-null?"]);
}

#[test]
fn what_runs_outside_a_transaction() {
    check_tenant(&[
        ("CREATE INDEX CONCURRENTLY x ON notes (body);", &["not-in-transaction"]),
        ("-- no-transaction\nCREATE INDEX CONCURRENTLY x ON notes (body);", &[]),
        (
            "-- no-transaction\nCREATE INDEX x ON notes (body);",
            &["index-not-concurrent?", "needless-no-transaction?"],
        ),
        ("DROP INDEX CONCURRENTLY x;", &["not-in-transaction"]),
        ("VACUUM notes;", &["not-in-transaction"]),
        ("-- no-transaction\nVACUUM FULL notes;", &["table-lock?"]),
        ("-- no-transaction\nCLUSTER notes;", &["table-lock?"]),
        ("REINDEX INDEX CONCURRENTLY x;", &["not-in-transaction"]),
        ("REINDEX INDEX x;", &["table-lock?"]),
    ]);
    assert_eq!(
        in_set(SetKind::Public, "ALTER SYSTEM SET work_mem = 1;"),
        ["not-in-transaction", "outside-schema"]
    );
}
