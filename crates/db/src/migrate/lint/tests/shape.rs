//! The rules about the shape of tables.

use super::{SetKind, check, check_tenant, lint_files, told};

/// A tenant's table with everything it needs, and these columns and constraints.
fn table(name: &str, more: &str) -> String {
    format!(
        "CREATE TABLE {name} (id uuid PRIMARY KEY, \
         tenant_id uuid DEFAULT this_tenant() CHECK (tenant_id = this_tenant()), {more});"
    )
}

#[test]
fn keys_and_whose_rows_they_are() {
    check_tenant(&[
        (
            "CREATE TABLE own (tenant_id uuid DEFAULT this_tenant() CHECK (tenant_id = this_tenant()));",
            &["no-primary-key?"],
        ),
        (
            "CREATE TABLE own (tenant_id uuid DEFAULT This_Tenant() CHECK ( \"tenant_id\" = this_tenant ( ) )); ALTER TABLE own ADD PRIMARY KEY (tenant_id);",
            &[],
        ),
        ("CREATE TABLE own (id int PRIMARY KEY);", &["tenant-id?"]),
        (
            "CREATE TABLE own (id int PRIMARY KEY, tenant_id uuid DEFAULT this_tenant());",
            &["tenant-id?"],
        ),
        (
            "CREATE TABLE own (id int PRIMARY KEY, tenant_id uuid CHECK (tenant_id = this_tenant()));",
            &["tenant-id?"],
        ),
        (
            "CREATE TABLE own (id int PRIMARY KEY, tenant_id uuid DEFAULT this_tenant() CHECK (tenant_id = this_tenant() OR true));",
            &["tenant-id?"],
        ),
        ("CREATE TABLE own (LIKE notes INCLUDING ALL);", &[]),
    ]);
    check(SetKind::Public, &[("CREATE TABLE own (id int PRIMARY KEY);", &[])]);
}

#[test]
fn foreign_keys() {
    let referring = |more: &str| table("own", more);
    check_tenant(&[
        (&referring("note uuid REFERENCES notes"), &["foreign-key-without-index?"]),
        (&referring("note uuid UNIQUE REFERENCES notes"), &[]),
        (&(referring("note uuid REFERENCES notes") + "CREATE INDEX ON own (note, id)"), &[]),
        (
            &(referring("note uuid REFERENCES notes") + "CREATE INDEX ON own (id, note)"),
            &["foreign-key-without-index?"],
        ),
        (
            &(referring("note uuid REFERENCES notes")
                + "CREATE INDEX ON own (note) WHERE note IS NOT NULL"),
            &[],
        ),
        (
            &(referring("note uuid REFERENCES notes")
                + "CREATE INDEX ON own (note) WHERE id IS NOT NULL"),
            &["foreign-key-without-index?"],
        ),
        (
            &(referring("note uuid REFERENCES notes")
                + "CREATE INDEX x ON own (note); DROP INDEX x;"),
            &["foreign-key-without-index?"],
        ),
        (
            &referring(
                "a uuid, b uuid, UNIQUE (b, a), FOREIGN KEY (a, b) REFERENCES notes (id, author)",
            ),
            &[],
        ),
        (&referring("c text UNIQUE REFERENCES public.countries"), &["foreign-key-outside"]),
        (
            &referring("c uuid UNIQUE REFERENCES tenants (id)"),
            &["foreign-key-outside", "public-table"],
        ),
        (
            "ALTER TABLE notes ADD CONSTRAINT x FOREIGN KEY (author) REFERENCES \"public\".\"tenants\" NOT VALID;",
            &["foreign-key-outside", "qualified-name"],
        ),
    ]);
    // An index of a later file counts.
    let files = [
        ("1_a.sql", referring("note uuid REFERENCES own")),
        (
            "2_b.sql",
            "-- no-transaction\nCREATE INDEX CONCURRENTLY own_note_idx ON own (note)".to_owned(),
        ),
    ];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(told(&lint_files(&[], &files), "1_a.sql"), ["missing-down?"]);
}

#[test]
fn types() {
    check_tenant(&[
        ("CREATE TYPE mood AS ENUM ('good');", &["custom-type"]),
        ("ALTER TYPE mood ADD VALUE 'bad';", &["custom-type", "not-in-transaction"]),
        ("CREATE TYPE pair AS (a int, b int);", &["custom-type"]),
        ("DROP TYPE mood;", &[]),
        ("ALTER TABLE notes ADD extra citext;", &["custom-type?"]),
        ("ALTER TABLE notes ADD extra hstore[];", &["custom-type?"]),
        ("ALTER TABLE notes ADD extra char(3);", &["char-type?"]),
        ("ALTER TABLE notes ADD extra timestamp;", &["timestamp-without-zone?"]),
        (
            "ALTER TABLE notes ADD a double precision, ADD b timestamptz, ADD c numeric(8, 2)[], ADD d character varying (9), ADD e pg_catalog.int4, ADD f tsvector, ADD g interval day, ADD h bit varying(3), ADD i time with time zone;",
            &[],
        ),
        (
            "CREATE DOMAIN email AS text CHECK (VALUE <> ''); ALTER TABLE notes ADD extra email;",
            &[],
        ),
        ("UPDATE notes SET body = '', body = 'x' WHERE id IS NULL;", &["duplicate-assignment"]),
    ]);
}

#[test]
fn names() {
    let long = "a".repeat(64);
    let at_limit = "a".repeat(63);
    let table_of = |name: &str| format!("CREATE TABLE {name} AS SELECT 1;");
    let column = "c".repeat(50);
    check_tenant(&[
        (&table_of(&long), &["name-too-long?"]),
        (&table_of(&at_limit), &[]),
        (&table_of(&"ü".repeat(32)), &["name-too-long?"]),
        (
            &format!("CREATE TABLE own AS SELECT 1 AS {column}; CREATE INDEX ON own ({column});"),
            &[],
        ),
        (
            &format!(
                "CREATE TABLE a_long_name AS SELECT 1 AS {column}; CREATE INDEX ON a_long_name ({column});"
            ),
            &["name-too-long?"],
        ),
        (
            &format!(
                "CREATE TABLE a_long_name AS SELECT 1 AS {column}; CREATE INDEX short ON a_long_name ({column});"
            ),
            &[],
        ),
        (&table("a_long_name", &format!("{column} text UNIQUE")), &["name-too-long?"]),
        (&table("a_long_name", &format!("{column} text CONSTRAINT short UNIQUE")), &[]),
    ]);
}

#[test]
fn a_public_table_with_a_tenant_tables_name() {
    let notes = ("1_a.sql", super::TABLES);
    let tell = |public: &str| told(&lint_files(&[("2_b.sql", public)], &[notes]), "2_b.sql");
    assert_eq!(
        tell("CREATE TABLE notes (id int PRIMARY KEY)"),
        ["missing-down?", "shadowed-table"]
    );
    assert_eq!(tell("CREATE VIEW \"notes\" AS SELECT 1"), ["missing-down?", "shadowed-table"]);
    assert_eq!(tell("CREATE TABLE \"Notes\" (id int PRIMARY KEY)"), ["missing-down?"]);
    assert_eq!(
        tell("CREATE TABLE x (id int PRIMARY KEY); ALTER TABLE x RENAME TO notes"),
        ["missing-down?", "rename-table", "shadowed-table"]
    );
}
