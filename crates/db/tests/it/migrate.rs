//! Invariant 6, as far as one schema goes: a migration is applied entirely and once, or not at all,
//! and the ledger says so.

mod checksums;
mod fleet;
mod hostile;
mod outside;
mod plan;
mod repeatable;
mod rollback;
mod rollout;
mod trouble;
mod versions;

use std::path::Path;

use tenantry_db::migrate::{
    self, MigrationError, Migrations, Rollout, RolloutOptions, RolloutReport, RunState,
    SchemaFailure, Stop, Tenants,
};
use tenantry_db::{AdminDb, Config, Error, ErrorKind, TenantId};
use tenantry_testing::TestDatabase;

use crate::texts;

/// The built-in files and some more, in a directory.
pub(crate) fn files(more: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    for set in ["public", "tenant"] {
        std::fs::create_dir(dir.path().join(set)).unwrap();
        for file in std::fs::read_dir(root.join(set)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(set).join(file.file_name())).unwrap();
        }
    }
    for (name, text) in more {
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    dir
}

pub(crate) fn with(more: &[(&str, &str)]) -> Migrations {
    Migrations::from_dir(files(more).path()).unwrap()
}

/// Runs a rollout as a person would, with nobody who stops it.
pub(crate) async fn roll(
    db: &TestDatabase,
    migrations: &Migrations,
    options: &RolloutOptions,
) -> Result<RolloutReport, Error> {
    let (_nobody, stop) = tokio::sync::watch::channel(Stop::Go);
    let actor = db.actor();
    let rollout = Rollout { admin: &db.admin, migrations, actor: &actor, options };
    rollout.run(stop, |_| {}).await
}

/// Takes one tenant to the head of its set.
pub(crate) async fn migrate_tenant(
    db: &TestDatabase,
    migrations: &Migrations,
    tenant: TenantId,
) -> Result<RolloutReport, Error> {
    let mut options = RolloutOptions::to_head(&db.config.migrations);
    options.public = false;
    options.tenants = Tenants::Only(vec![tenant]);
    roll(db, migrations, &options).await
}

/// Sets a limit of migrations.
pub(crate) fn limit(db: &mut TestDatabase, key: &str, value: impl Into<toml::Value>) {
    let layers = db.servers().layers(db.name(), "shared").flag("test", key, value);
    db.config = Config::from_layers(layers).unwrap();
    db.admin = AdminDb::new(&db.config).unwrap();
}

/// The only failure of a run.
fn failure(report: &RolloutReport) -> &SchemaFailure {
    let [failure] = report.failures.as_slice() else { panic!("{report:?}") };
    failure
}

#[tokio::test]
async fn both_sets_are_at_head_and_a_second_run_does_nothing() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let ledger = "SELECT replace(schema_name, 'tenant_' || replace(t.id::text, '-', ''), 'tenant') || ' ' || version || ' ' || m.name || ' ' || (duration_ms >= 0)
                  FROM public.migrations m, public.tenants t ORDER BY 1";
    let entries = |set: &migrate::MigrationSet| {
        let kind = set.kind();
        let entry = |m: &migrate::Migration| format!("{kind} {} {} true", m.version, m.name);
        set.migrations().iter().map(entry).collect::<Vec<_>>()
    };
    let mut expected = [entries(&db.migrations.public), entries(&db.migrations.tenant)].concat();
    expected.sort();
    assert_eq!(texts(&superuser, ledger).await, expected);
    assert!(
        migrate::migrate_public(&db.admin, &db.migrations.public, None, |_| {})
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(migrate_tenant(&db, &db.migrations, acme.id).await.unwrap().tenants.total, 0);
    assert_eq!(texts(&superuser, ledger).await, expected);
}

#[tokio::test]
async fn the_reference_data_is_complete() {
    let db = TestDatabase::new().await;
    let counts = texts(
        &db.superuser().await,
        "SELECT 'countries ' || count(*) FROM public.countries
         UNION ALL SELECT 'platforms ' || count(*) FROM public.platform_metadata
         -- Everything that PostgreSQL takes for a time zone, its own file names aside.
         UNION ALL SELECT 'unknown zone ' || z.name FROM pg_timezone_names z LEFT JOIN public.timezones USING (name)
                    WHERE timezones.name IS NULL AND z.name !~ '^posix/' AND z.name NOT IN ('Factory', 'localtime', 'posixrules')
         UNION ALL SELECT 'germany ' || alpha3 || ' ' || numeric_code || ' ' || name FROM public.countries WHERE alpha2 = 'DE'
         UNION ALL SELECT 'country without a zone ' || alpha2 FROM public.countries
                    WHERE NOT EXISTS (SELECT FROM public.timezones WHERE alpha2 = ANY (country_codes)) AND alpha2 NOT IN ('BV', 'HM')
         ORDER BY 1",
    )
    .await;
    assert_eq!(counts, ["countries 249", "germany DEU 276 Germany", "platforms 20"]);
}

#[tokio::test]
async fn a_table_of_a_later_migration_is_the_tenants_without_a_grant() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let later = with(&[
        (
            "tenant/0005_add_labels.up.sql",
            "CREATE TABLE labels (id bigint GENERATED ALWAYS AS IDENTITY, n serial, tenant_id uuid NOT NULL DEFAULT this_tenant());\nCREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1;",
        ),
        ("tenant/0005_add_labels.down.sql", "DROP FUNCTION one(); DROP TABLE labels;"),
    ]);
    let done = migrate_tenant(&db, &later, acme.id).await.unwrap();
    assert_eq!((done.tenants.done, done.left), (1, 0));
    let lane = db.lane_direct(acme.lane).await;
    let schema = acme.schema();
    lane.batch_execute(&format!(
        "BEGIN; SET LOCAL ROLE {schema}; SET LOCAL search_path TO {schema}, public, pg_temp;
         INSERT INTO labels DEFAULT VALUES; UPDATE labels SET n = one(); SELECT nextval('labels_n_seq'); DELETE FROM labels; COMMIT"
    ))
    .await
    .unwrap();
    // A tenant of today and one that was brought here are the same.
    let new = tenantry_db::lifecycle::NewTenant::new(
        &db.config,
        "New",
        "new",
        None,
        serde_json::Map::new(),
    )
    .unwrap();
    let fresh =
        tenantry_db::lifecycle::create_tenant(&db.admin, &later, &new, &db.actor()).await.unwrap();
    let (old, new) = (
        migrate::fingerprint(&db.reader, schema).await.unwrap(),
        migrate::fingerprint(&db.reader, fresh.schema()).await.unwrap(),
    );
    assert_eq!(old.difference(&new), Vec::<String>::new());
    assert_eq!(fresh.schema_version, 5);
    // What an old program would do with a schema newer than itself.
    let error = migrate_tenant(&db, &db.migrations, acme.id).await.unwrap_err();
    assert!(
        matches!(error, Error::Migration(MigrationError::FileMissing { version: 5, .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_failing_file_leaves_nothing_and_names_its_line() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let broken = with(&[(
        "tenant/0005_é_less.up.sql".replace('é', "e").as_str(),
        "-- ünïcödé before the error\nCREATE TABLE labels ();\n\nSELECT nonsense;\n",
    )]);
    let report = migrate_tenant(&db, &broken, acme.id).await.unwrap();
    let failed = failure(&report);
    let file = failed.file.as_deref().unwrap();
    assert!(file.ends_with("tenant/0005_e_less.up.sql"), "{file}");
    assert_eq!((failed.line, failed.sqlstate.as_deref()), (Some(4), Some("42703")));
    assert_eq!(failed.statement.as_deref(), Some("SELECT nonsense"));
    assert_eq!((failed.attempts, report.state), (1, RunState::Failed));
    let superuser = db.superuser().await;
    assert_eq!(texts(&superuser, "SELECT schema_version::text FROM public.tenants").await, ["2"]);
    assert!(
        texts(&superuser, "SELECT relname::text FROM pg_class WHERE relname = 'labels'")
            .await
            .is_empty()
    );
    assert!(
        texts(
            &superuser,
            "SELECT name FROM public.migrations WHERE version = 5 AND schema_name <> 'public'"
        )
        .await
        .is_empty()
    );
    let mended = with(&[("tenant/0005_e_less.up.sql", "CREATE TABLE labels ();")]);
    assert_eq!(migrate_tenant(&db, &mended, acme.id).await.unwrap().tenants.done, 1);
}

#[tokio::test]
async fn an_edited_an_absent_and_a_late_file_are_refused() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let file = "tenant/0002_create_tenant_schema_tables.up.sql";
    let original = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(file),
    )
    .unwrap();
    let run = async |migrations: &Migrations| migrate_tenant(&db, migrations, acme.id).await;
    let edited = with(&[(file, &format!("{original}\nCREATE TABLE more ();"))]);
    let error = run(&edited).await.unwrap_err();
    assert!(matches!(error, Error::Migration(MigrationError::Changed { .. })), "{error}");
    assert_eq!(error.kind(), ErrorKind::Refused);
    // A comment or a line end is no change.
    let touched = with(&[(file, &format!("-- licence\r\n{}", original.replace('\n', "\r\n")))]);
    assert_eq!(run(&touched).await.unwrap().tenants.total, 0);
    let late = with(&[("tenant/0001_late.up.sql", "CREATE TABLE late ();")]);
    let error = run(&late).await.unwrap_err();
    assert!(
        matches!(error, Error::Migration(MigrationError::OutOfOrder { head: 2, .. })),
        "{error}"
    );
}

#[tokio::test]
async fn two_runners_at_once_do_not_wait_inside_the_server() {
    let mut db = TestDatabase::new().await;
    limit(&mut db, "migrations.retries", 0);
    let acme = db.tenant("acme").await;
    let other = db.superuser().await;
    other.batch_execute("BEGIN; SELECT FROM public.tenants FOR UPDATE").await.unwrap();
    let later = with(&[("tenant/0100_x.up.sql", "SELECT 1;")]);
    let report = migrate_tenant(&db, &later, acme.id).await.unwrap();
    assert!(failure(&report).message.contains("another process"), "{report:?}");
    other.batch_execute("ROLLBACK; BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('shared:migrate:public', 0))").await.unwrap();
    let error =
        migrate::migrate_public(&db.admin, &db.migrations.public, None, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
}

#[tokio::test]
async fn a_lock_that_is_held_ends_the_migration_not_the_tenants_work() {
    let mut db = TestDatabase::new().await;
    limit(&mut db, "migrations.lock_timeout", "50ms");
    let acme = db.tenant("acme").await;
    let reader = db.superuser().await;
    reader.batch_execute(&format!("BEGIN; SELECT FROM {}.users", acme.schema())).await.unwrap();
    let later = with(&[("tenant/0005_wide.up.sql", "ALTER TABLE users ADD COLUMN wide text;")]);
    let report = migrate_tenant(&db, &later, acme.id).await.unwrap();
    let failed = failure(&report);
    assert_eq!((failed.sqlstate.as_deref(), failed.attempts), (Some("55P03"), 6));
    let pid: i32 = reader.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_eq!(failed.blocked_by[0].pid, pid, "{failed:?}");
    assert_eq!(failed.blocked_by[0].state.as_deref(), Some("idle in transaction"));
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(migrate_tenant(&db, &later, acme.id).await.unwrap().tenants.done, 1);
}

#[tokio::test]
async fn up_down_up_leads_to_the_same_schema() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let before = migrate::fingerprint(&db.reader, acme.schema()).await.unwrap();
    let superuser = db.superuser().await;
    for migration in db.migrations.tenant.migrations().iter().rev() {
        let down = &migration.down.as_ref().unwrap().text;
        superuser
            .batch_execute(&format!(
                "SET ROLE shared_owner; SET search_path TO {}, public; {down}; RESET ROLE",
                acme.schema()
            ))
            .await
            .unwrap();
    }
    let empty = migrate::fingerprint(&db.reader, acme.schema()).await.unwrap();
    assert!(!empty.lines().iter().any(|line| line.starts_with("relation")), "{empty:?}");
    for migration in db.migrations.tenant.migrations() {
        superuser
            .batch_execute(&format!(
                "SET ROLE shared_owner; SET search_path TO {}, public; {}; RESET ROLE",
                acme.schema(),
                migration.up.text
            ))
            .await
            .unwrap();
    }
    let after = migrate::fingerprint(&db.reader, acme.schema()).await.unwrap();
    assert_eq!(before.difference(&after), Vec::<String>::new());
}

#[tokio::test]
async fn every_foreign_key_stays_in_its_schema_and_has_an_index() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let wrong = format!(
        "SELECT k.conname::text FROM pg_constraint k JOIN pg_class t ON t.oid = k.confrelid
         WHERE k.contype = 'f' AND k.connamespace = '{0}'::regnamespace
           AND (t.relnamespace <> k.connamespace
                OR NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1] AND i.indpred IS NULL))",
        acme.schema()
    );
    assert!(texts(&db.superuser().await, &wrong).await.is_empty());
    let tenant_checks = format!(
        "SELECT count(*)::text FROM pg_constraint WHERE connamespace = '{}'::regnamespace AND conname LIKE '%\\_tenant\\_id\\_check'",
        acme.schema()
    );
    assert_eq!(texts(&db.superuser().await, &tenant_checks).await, ["9"]);
}

#[tokio::test]
async fn status_says_who_is_behind() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let later =
        with(&[("tenant/0005_x.up.sql", "SELECT 1;"), ("public/9006_y.up.sql", "SELECT 1;")]);
    let applied = db.migrations.public.head();
    let status = migrate::fleet_status(&db.reader, &later).await.unwrap();
    assert_eq!(
        (status.public.applied, status.public.head, status.public.pending.len()),
        (applied, 9006, 1)
    );
    assert_eq!(
        (
            status.tenant_head,
            status.tenants_by_version[0].version,
            status.tenants_by_version[0].tenants
        ),
        (5, 2, 1)
    );
    assert_eq!(status.behind.iter().map(|t| t.id).collect::<Vec<_>>(), [acme.id]);
    let error = db.create("x").await.map(|_| ());
    assert!(error.is_ok());
    let new = tenantry_db::lifecycle::NewTenant::new(
        &db.config,
        "New",
        "new",
        None,
        serde_json::Map::new(),
    )
    .unwrap();
    let error = tenantry_db::lifecycle::create_tenant(&db.admin, &later, &new, &db.actor())
        .await
        .unwrap_err();
    let Error::Behind { found, needed, .. } = error else { panic!("{error}") };
    assert_eq!((found, needed), (applied, 9006));
}

#[tokio::test]
async fn a_tenant_whose_schema_is_gone_does_not_get_its_tables_in_public() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(&format!("ALTER SCHEMA {} RENAME TO elsewhere", acme.schema()))
        .await
        .unwrap();
    let later = with(&[("tenant/0005_labels.up.sql", "CREATE TABLE labels ();")]);
    let report = migrate_tenant(&db, &later, acme.id).await.unwrap();
    assert!(failure(&report).message.contains("does not exist"), "{report:?}");
    assert!(
        texts(&superuser, "SELECT relname::text FROM pg_class WHERE relname = 'labels'")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn files_that_do_not_fit_the_ledger_are_seen_also_when_all_are_at_head() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let late = with(&[("tenant/0001_late.up.sql", "CREATE TABLE late ();")]);
    let error = migrate::fleet_status(&db.reader, &late).await.unwrap_err();
    assert!(matches!(error, Error::Migration(MigrationError::OutOfOrder { .. })), "{error}");
    let edited =
        with(&[("tenant/0002_create_tenant_schema_tables.up.sql", "CREATE TABLE other ();")]);
    let error = migrate::fleet_status(&db.reader, &edited).await.unwrap_err();
    assert!(matches!(error, Error::Migration(MigrationError::Changed { .. })), "{error}");
    migrate::fleet_status(&db.reader, &db.migrations).await.unwrap();
}
