//! `migrate status --drift` shows what was changed by hand, and nothing else.

use tenantry_db::migrate::{self, Drift, Expected, Migrations, Tenants};
use tenantry_db::{AdminDb, Config};
use tenantry_testing::TestDatabase;

use crate::migrate::{migrate_tenant, with};
use crate::verify::with_repeatable;

async fn drift(db: &TestDatabase, migrations: &Migrations) -> Drift {
    migrate::drift(&db.reader, &db.admin, migrations, &Tenants::All, |_, _| {}).await.unwrap()
}

fn nothing(drift: &Drift, compared: usize) {
    assert_eq!((drift.compared, drift.drifted), (compared, 0), "{drift:#?}");
    assert_eq!((drift.moved, drift.not_comparable), (0, 0), "{drift:#?}");
}

#[tokio::test]
async fn a_hotfix_in_one_tenant_is_shown_object_by_object() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    for other in ["globex", "initech"] {
        db.tenant(other).await;
    }
    nothing(&drift(&db, &db.migrations).await, 3);
    let superuser = db.superuser().await;
    let s = acme.schema();
    for (change, back, shown) in HOTFIXES {
        let said = |text: &str| text.replace("{s}", &s.to_string());
        superuser.batch_execute(&said(change)).await.unwrap();
        let found = drift(&db, &db.migrations).await;
        assert_eq!(
            (found.compared, found.drifted, found.groups.len()),
            (3, 1, 1),
            "{change}: {found:#?}"
        );
        let group = &found.groups[0];
        assert_eq!(group.tenants[0].subdomain.as_deref(), Some("acme"));
        assert!(
            group.difference.iter().any(|line| line.starts_with(shown)),
            "{change}: {group:#?}"
        );
        superuser.batch_execute(&said(back)).await.unwrap();
        nothing(&drift(&db, &db.migrations).await, 3);
    }
}

/// A change by hand, what undoes it, and how the line that shows it begins.
const HOTFIXES: &[(&str, &str, &str)] = &[
    (
        "ALTER TABLE {s}.users ADD COLUMN nick text",
        "ALTER TABLE {s}.users DROP COLUMN nick",
        "+ column users.nick: #13, text",
    ),
    (
        "CREATE INDEX by_hand ON {s}.users (name)",
        "DROP INDEX {s}.by_hand",
        "+ index users.by_hand: ",
    ),
    (
        "GRANT SELECT ON {s}.users TO shared_reader",
        "REVOKE SELECT ON {s}.users FROM shared_reader",
        "+ right on relation users: shared_reader=r/",
    ),
    (
        "GRANT SELECT (email) ON {s}.users TO shared_tenant",
        "REVOKE SELECT (email) ON {s}.users FROM shared_tenant",
        "+ right on column users.email: shared_tenant=r/",
    ),
    (
        "REVOKE DELETE ON {s}.users FROM {s}",
        "GRANT DELETE ON {s}.users TO {s}",
        "- right on relation users: {schema}=arwd/",
    ),
    (
        "ALTER FUNCTION {s}.this_tenant() VOLATILE",
        "ALTER FUNCTION {s}.this_tenant() IMMUTABLE",
        "+ function this_tenant(): owner",
    ),
    (
        "CREATE TRIGGER by_hand BEFORE UPDATE ON {s}.users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DROP TRIGGER by_hand ON {s}.users",
        "+ trigger on users: CREATE TRIGGER by_hand",
    ),
    (
        "ALTER TABLE {s}.comments DISABLE TRIGGER ALL",
        "ALTER TABLE {s}.comments ENABLE TRIGGER ALL",
        "+ trigger on comments: of constraint",
    ),
    (
        "ALTER TABLE {s}.users ADD CONSTRAINT hand CHECK (name <> '') NOT VALID",
        "ALTER TABLE {s}.users DROP CONSTRAINT hand",
        "+ constraint users.hand: CHECK (((name)::text <> ''::text)) NOT VALID",
    ),
    (
        "ALTER TABLE {s}.users ALTER COLUMN name SET DEFAULT 'x'",
        "ALTER TABLE {s}.users ALTER COLUMN name DROP DEFAULT",
        "+ column users.name: ",
    ),
    (
        "ALTER TABLE {s}.content ALTER COLUMN body SET STORAGE external",
        "ALTER TABLE {s}.content ALTER COLUMN body SET STORAGE extended",
        "+ column content.body: #5, text, not null, default ''::text, storage e",
    ),
    (
        "ALTER TABLE {s}.content ALTER COLUMN body SET COMPRESSION pglz",
        "ALTER TABLE {s}.content ALTER COLUMN body SET COMPRESSION default",
        "+ column content.body: #5, text, not null, default ''::text, compression p",
    ),
    (
        "ALTER TABLE {s}.content ALTER COLUMN body SET STATISTICS 500",
        "ALTER TABLE {s}.content ALTER COLUMN body SET STATISTICS -1",
        "+ column content.body: #5, text, not null, default ''::text, statistics 500",
    ),
    (
        "ALTER TABLE {s}.users REPLICA IDENTITY FULL",
        "ALTER TABLE {s}.users REPLICA IDENTITY DEFAULT",
        "+ relation users: ",
    ),
    (
        "ALTER TABLE {s}.users SET (fillfactor = 50)",
        "ALTER TABLE {s}.users RESET (fillfactor)",
        "+ relation users: ",
    ),
    (
        "ALTER TABLE {s}.content SET (toast.autovacuum_enabled = off)",
        "ALTER TABLE {s}.content RESET (toast.autovacuum_enabled)",
        "+ relation content: ",
    ),
    (
        "ALTER TABLE {s}.users OWNER TO postgres",
        "ALTER TABLE {s}.users OWNER TO shared_owner",
        "- relation users: kind r, owner shared_owner",
    ),
    (
        "ALTER TABLE {s}.users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {s}.users TO {s} USING (true)",
        "DROP POLICY p ON {s}.users; ALTER TABLE {s}.users DISABLE ROW LEVEL SECURITY",
        "+ policy users.p: command *, permissive, to {schema}, using true",
    ),
    (
        "CREATE RULE r AS ON DELETE TO {s}.users DO INSTEAD NOTHING",
        "DROP RULE r ON {s}.users",
        "+ rule users.r: ",
    ),
    (
        "COMMENT ON COLUMN {s}.users.name IS 'x'",
        "COMMENT ON COLUMN {s}.users.name IS NULL",
        "+ comment on table column",
    ),
    (
        "COMMENT ON SCHEMA {s} IS 'x'",
        "COMMENT ON SCHEMA {s} IS NULL",
        "+ comment on schema {schema}: x",
    ),
    (
        "COMMENT ON CONSTRAINT users_email_check ON {s}.users IS 'x'",
        "COMMENT ON CONSTRAINT users_email_check ON {s}.users IS NULL",
        "+ comment on table constraint",
    ),
    (
        "CREATE STATISTICS {s}.st ON name, role FROM {s}.users",
        "DROP STATISTICS {s}.st",
        "+ statistics st: owner postgres, CREATE STATISTICS",
    ),
    (
        "CREATE TYPE {s}.mood AS ENUM ('a', 'b')",
        "DROP TYPE {s}.mood",
        "+ type mood: kind e, owner postgres, labels 'a' 'b'",
    ),
    (
        "CREATE DOMAIN {s}.d AS int NOT NULL DEFAULT 1 CONSTRAINT small CHECK (value < 5)",
        "DROP DOMAIN {s}.d",
        "+ constraint d.small: CHECK ((VALUE < 5))",
    ),
    (
        "CREATE TYPE {s}.r AS RANGE (subtype = int)",
        "DROP TYPE {s}.r",
        "+ type r: kind r, owner postgres, range of integer",
    ),
    ("CREATE TYPE {s}.pair AS (a int, b text)", "DROP TYPE {s}.pair", "+ column pair.b: #2, text"),
    ("CREATE COLLATION {s}.c FROM \"C\"", "DROP COLLATION {s}.c", "+ collation {schema}.c"),
    (
        "CREATE OPERATOR {s}.=== (leftarg = int, rightarg = int, function = int4eq)",
        "DROP OPERATOR {s}.=== (int, int)",
        "+ operator {schema}.===",
    ),
    (
        "ALTER SEQUENCE {s}.content_number_seq INCREMENT 7",
        "ALTER SEQUENCE {s}.content_number_seq INCREMENT 1",
        "+ sequence content_number_seq: bigint from 1 by 7",
    ),
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE shared_owner IN SCHEMA {s} GRANT TRUNCATE ON TABLES TO {s}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE shared_owner IN SCHEMA {s} REVOKE TRUNCATE ON TABLES FROM {s}",
        "+ right on new r of shared_owner: {schema}=arwdD/",
    ),
    ("CREATE VIEW {s}.v AS SELECT name FROM {s}.users", "DROP VIEW {s}.v", "+ view v: "),
    (
        "CREATE AGGREGATE {s}.total (int) (sfunc = int4pl, stype = int)",
        "DROP AGGREGATE {s}.total (int)",
        "+ function total(integer): owner postgres, aggregate",
    ),
    (
        "CREATE TABLE {s}.child () INHERITS ({s}.teams)",
        "DROP TABLE {s}.child",
        "+ relation child: kind r",
    ),
];

#[tokio::test]
async fn a_tenant_at_an_older_version_is_no_drift_and_one_at_an_unknown_one_has_no_measure() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    db.tenant("globex").await;
    let later = with(&[(
        "tenant/0100_nick.up.sql",
        "ALTER TABLE users DROP COLUMN avatar_url; ALTER TABLE users ADD COLUMN nick text; CREATE TABLE more (id int);",
    )]);
    migrate_tenant(&db, &later, acme.id).await.unwrap();
    nothing(&drift(&db, &later).await, 2);
    let found = drift(&db, &db.migrations).await;
    assert_eq!((found.compared, found.not_comparable, found.drifted), (1, 1, 0), "{found:#?}");
    // It is compared with its own version.
    let alter = format!("ALTER TABLE {}.more ALTER COLUMN id SET NOT NULL", acme.schema());
    db.superuser().await.batch_execute(&alter).await.unwrap();
    let group = &drift(&db, &later).await.groups[0];
    assert_eq!((group.version, group.count), (100, 1));
    assert_eq!(
        group.difference,
        ["- column more.id: #1, integer", "+ column more.id: #1, integer, not null"]
    );
}

#[tokio::test]
async fn all_that_differ_in_the_same_way_are_shown_together() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    for n in 0..3 {
        let schema = db.tenant(&format!("t{n}")).await.schema();
        let index = format!("CREATE INDEX by_hand ON {schema}.users (name)");
        superuser.batch_execute(&index).await.unwrap();
    }
    let gone = db.tenant("gone").await.schema();
    superuser.batch_execute(&format!("ALTER SCHEMA {gone} RENAME TO elsewhere")).await.unwrap();
    let found = drift(&db, &db.migrations).await;
    let groups: Vec<_> = found.groups.iter().map(|g| (g.count, g.difference.clone())).collect();
    let index = "+ index users.by_hand: CREATE INDEX by_hand ON {schema}.users USING btree (name)";
    let gone = "- schema: it does not exist";
    assert_eq!(groups, [(3, vec![index.to_owned()]), (1, vec![gone.to_owned()])], "{found:#?}");
    assert_eq!(found.drifted, 4);
}

#[tokio::test]
async fn repeatable_files_are_part_of_what_is_expected() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    db.tenant("globex").await;
    let view = |text| with_repeatable(&[], &[("tenant/repeatable/names.sql", text)]);
    let first = view("CREATE OR REPLACE VIEW names AS SELECT name FROM users;");
    // Without them one is behind, and not drifted.
    nothing(&drift(&db, &first).await, 2);
    migrate_tenant(&db, &first, acme.id).await.unwrap();
    nothing(&drift(&db, &first).await, 2);
    // So is one with an older edition.
    let second = view("CREATE OR REPLACE VIEW names AS SELECT name, email FROM users;");
    nothing(&drift(&db, &second).await, 2);
    let by_hand = format!(
        "CREATE OR REPLACE VIEW {0}.names AS SELECT name, role FROM {0}.users",
        acme.schema()
    );
    db.superuser().await.batch_execute(&by_hand).await.unwrap();
    let found = drift(&db, &first).await;
    assert_eq!(found.drifted, 1, "{found:#?}");
    assert!(
        found.groups[0].difference.iter().any(|line| line.starts_with("+ view names: ")),
        "{found:#?}"
    );
}

#[tokio::test]
async fn where_the_files_can_not_be_tried_tenants_are_compared_with_each_other() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let url = format!("postgresql://shared_reader:wrong@127.0.0.1:1/{}", db.name());
    let layers = db.servers().layers(db.name(), "shared").flag("test", "database.direct_url", url);
    let nobody = AdminDb::new(&Config::from_layers(layers).unwrap()).unwrap();
    let look = async || {
        migrate::drift(&db.reader, &nobody, &db.migrations, &Tenants::All, |_, _| {}).await.unwrap()
    };
    // One alone has no majority.
    assert_eq!(look().await.not_comparable, 1);
    for other in ["globex", "initech"] {
        db.tenant(other).await;
    }
    let by_hand = format!("CREATE INDEX by_hand ON {}.users (name)", acme.schema());
    db.superuser().await.batch_execute(&by_hand).await.unwrap();
    let found = look().await;
    assert!(matches!(found.expected, Expected::Majority { .. }));
    assert_eq!((found.compared, found.drifted), (3, 1), "{found:#?}");
    assert_eq!(found.groups[0].tenants[0].id, acme.id);
}
