//! `migrate status --drift` shows what was changed by hand, and nothing else.

use tenantry_db::migrate::{self, Drift, DriftGroup, Expected, Migrations, Tenants};
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
    let superuser = db.superuser().await;
    for n in 0..3 {
        db.tenant(&format!("right{n}")).await;
    }
    nothing(&drift(&db, &db.migrations).await, 3);
    for (n, (change, _)) in HOTFIXES.iter().enumerate() {
        let schema = db.tenant(&format!("t{n}")).await.schema();
        superuser.batch_execute(&change.replace("{s}", &schema.to_string())).await.unwrap();
    }
    let found = drift(&db, &db.migrations).await;
    let all = HOTFIXES.len();
    assert_eq!((found.expected, found.compared, found.drifted), (Expected::Files, all + 3, all));
    for (n, (change, shown)) in HOTFIXES.iter().enumerate() {
        let name = format!("t{n}");
        let is_it = |group: &&DriftGroup| group.tenants[0].subdomain.as_ref() == Some(&name);
        let Some(group) = found.groups.iter().find(is_it) else { panic!("{change}: not seen") };
        assert_eq!(group.count, 1, "{change}");
        let seen = group.difference.iter().any(|line| line.starts_with(shown));
        assert!(seen, "{change}: {group:#?}");
    }
}

/// A change by hand, and how the line that shows it begins.
const HOTFIXES: &[(&str, &str)] = &[
    ("ALTER TABLE {s}.users ADD COLUMN nick text", "+ column users.nick: text"),
    ("CREATE INDEX by_hand ON {s}.users (name)", "+ index users.by_hand: "),
    ("GRANT SELECT ON {s}.users TO shared_reader", "+ right on relation users: shared_reader=r/"),
    (
        "GRANT SELECT (email) ON {s}.users TO shared_tenant",
        "+ right on column users.email: shared_tenant=r/",
    ),
    ("REVOKE DELETE ON {s}.users FROM {s}", "- right on relation users: {schema}=arwd/"),
    ("ALTER FUNCTION {s}.this_tenant() VOLATILE", "+ function this_tenant(): owner"),
    (
        "CREATE TRIGGER by_hand BEFORE UPDATE ON {s}.users FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "+ trigger on users: CREATE TRIGGER by_hand",
    ),
    ("ALTER TABLE {s}.comments DISABLE TRIGGER ALL", "+ trigger on comments: of constraint"),
    (
        "ALTER TABLE {s}.users ADD CONSTRAINT hand CHECK (name <> '') NOT VALID",
        "+ constraint users.hand: CHECK (((name)::text <> ''::text)) NOT VALID",
    ),
    ("ALTER TABLE {s}.users ALTER COLUMN name SET DEFAULT 'x'", "+ column users.name: "),
    (
        "ALTER TABLE {s}.content ALTER COLUMN body SET STORAGE external",
        "+ column content.body: text, not null, default ''::text, storage e",
    ),
    (
        "ALTER TABLE {s}.content ALTER COLUMN body SET COMPRESSION pglz",
        "+ column content.body: text, not null, default ''::text, compression p",
    ),
    (
        "ALTER TABLE {s}.content ALTER COLUMN body SET STATISTICS 500",
        "+ column content.body: text, not null, default ''::text, statistics 500",
    ),
    ("ALTER TABLE {s}.users REPLICA IDENTITY FULL", "+ relation users: "),
    ("ALTER TABLE {s}.users SET (fillfactor = 50)", "+ relation users: "),
    ("ALTER TABLE {s}.content SET (toast.autovacuum_enabled = off)", "+ relation content: "),
    ("ALTER TABLE {s}.users OWNER TO postgres", "- relation users: kind r, owner shared_owner"),
    (
        "ALTER TABLE {s}.users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {s}.users TO {s} USING (true)",
        "+ policy users.p: command *, permissive, to {schema}, using true",
    ),
    ("CREATE RULE r AS ON DELETE TO {s}.users DO INSTEAD NOTHING", "+ rule users.r: "),
    ("COMMENT ON COLUMN {s}.users.name IS 'x'", "+ comment on table column"),
    ("COMMENT ON SCHEMA {s} IS 'x'", "+ comment on schema {schema}: x"),
    (
        "COMMENT ON CONSTRAINT users_email_check ON {s}.users IS 'x'",
        "+ comment on table constraint",
    ),
    (
        "CREATE STATISTICS {s}.st ON name, role FROM {s}.users",
        "+ statistics st: owner postgres, CREATE STATISTICS",
    ),
    (
        "CREATE TYPE {s}.mood AS ENUM ('a', 'b')",
        "+ type mood: kind e, owner postgres, labels 'a' 'b'",
    ),
    (
        "CREATE DOMAIN {s}.d AS int NOT NULL DEFAULT 1 CONSTRAINT small CHECK (value < 5)",
        "+ constraint d.small: CHECK ((VALUE < 5))",
    ),
    (
        "CREATE TYPE {s}.r AS RANGE (subtype = int)",
        "+ type r: kind r, owner postgres, range of integer",
    ),
    ("CREATE TYPE {s}.pair AS (a int, b text)", "+ column pair.b: text"),
    ("CREATE COLLATION {s}.c FROM \"C\"", "+ collation {schema}.c"),
    (
        "CREATE OPERATOR {s}.=== (leftarg = int, rightarg = int, function = int4eq)",
        "+ operator {schema}.===",
    ),
    (
        "ALTER SEQUENCE {s}.content_number_seq INCREMENT 7",
        "+ sequence content_number_seq: bigint from 1 by 7",
    ),
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE shared_owner IN SCHEMA {s} GRANT TRUNCATE ON TABLES TO {s}",
        "+ right on new r of shared_owner: {schema}=arwdD/",
    ),
    ("CREATE VIEW {s}.v AS SELECT name FROM {s}.users", "+ view v: "),
    (
        "CREATE AGGREGATE {s}.total (int) (sfunc = int4pl, stype = int)",
        "+ function total(integer): owner postgres, aggregate",
    ),
    ("CREATE TABLE {s}.child () INHERITS ({s}.teams)", "+ relation child: kind r"),
];

#[tokio::test]
async fn a_tenant_at_an_older_version_is_no_drift_and_one_at_an_unknown_one_has_no_measure() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    db.tenant("globex").await;
    let later = with(&[(
        "tenant/0100_nick.up.sql",
        "-- tenantry: allow=drop-column reason=\"a test\"\nALTER TABLE users DROP COLUMN avatar_url; ALTER TABLE users ADD COLUMN nick text; CREATE TABLE more (id int);",
    )]);
    migrate_tenant(&db, &later, acme.id).await.unwrap();
    nothing(&drift(&db, &later).await, 2);
    // A column that went and came back, as by a way back, stands last.
    let again = "ALTER TABLE {s}.users DROP COLUMN name, ADD COLUMN name varchar(255) NOT NULL";
    db.superuser()
        .await
        .batch_execute(&again.replace("{s}", &acme.schema().to_string()))
        .await
        .unwrap();
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
        ["- column more.id: integer", "+ column more.id: integer, not null"]
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
