//! `migrate verify` finds what is wrong with files, and leaves nothing.

use tenantry_db::migrate::{self, Migrations, SetKind, Verification, VerifyCheck, VerifyStep};
use tenantry_db::{AdminDb, Config, ErrorKind};
use tenantry_testing::TestDatabase;

use crate::migrate::{files, limit, with};
use crate::texts;

const BOTH: [SetKind; 2] = [SetKind::Public, SetKind::Tenant];

async fn verify(db: &TestDatabase, migrations: &Migrations, sets: &[SetKind]) -> Verification {
    migrate::verify(&db.admin, migrations, sets, |_| {}).await.unwrap()
}

/// What is wrong with a tenant set that has these files behind the built-in one.
async fn problems(db: &TestDatabase, more: &[(&str, &str)]) -> Vec<String> {
    let found = verify(db, &with(more), &[SetKind::Tenant]).await;
    assert_eq!(found.not_verified, Vec::<String>::new());
    let told = all_told(&found);
    assert_eq!(found.passed, told.is_empty());
    told
}

fn all_told(found: &Verification) -> Vec<String> {
    found.checks.iter().flat_map(told).collect()
}

fn told(check: &VerifyCheck) -> Vec<String> {
    let rows = if check.seeded { "seeded" } else { "empty" };
    check.problems.iter().map(|problem| format!("{rows} {:?}: {problem}", check.step)).collect()
}

/// Whether a problem of that beginning holds that text.
fn has(problems: &[String], begin: &str, holds: &str) -> bool {
    problems.iter().any(|problem| problem.starts_with(begin) && problem.contains(holds))
}

/// Everything that a scratch could leave behind.
const TRACES: &str = "
    SELECT 'schema ' || nspname || ' ' || oid FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast_temp)'
    UNION ALL SELECT 'relation ' || oid::regclass FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'tenant ' || id FROM public.tenants
    UNION ALL SELECT 'entry ' || schema_name || version FROM public.migrations
    UNION ALL SELECT 'lock ' || locktype FROM pg_locks
               WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY 1";

#[tokio::test]
async fn the_built_in_files_hold_empty_and_with_rows_and_nothing_is_left() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let superuser = db.superuser().await;
    let before = texts(&superuser, TRACES).await;
    let found = verify(&db, &db.migrations, &BOTH).await;
    assert!(found.passed, "{found:#?}");
    assert_eq!(found.not_verified, Vec::<String>::new());
    // A note would say that a table has no rows.
    assert!(found.checks.iter().all(|check| check.notes.is_empty()), "{found:#?}");
    let ups = found.checks.iter().filter(|check| check.step == VerifyStep::UpDownUp).count();
    let files = db.migrations.public.migrations().len() + db.migrations.tenant.migrations().len();
    assert_eq!(ups, 2 * files);
    assert!(found.checks.iter().any(|check| check.step == VerifyStep::Fresh));
    assert_eq!(texts(&superuser, TRACES).await, before);
}

#[tokio::test]
async fn a_way_back_that_forgets_something_is_found() {
    let db = TestDatabase::new().await;
    let up = "ALTER TABLE users ADD COLUMN nick text; CREATE INDEX by_name ON users (name);";
    let down = "ALTER TABLE users DROP COLUMN nick;";
    let found =
        problems(&db, &[("tenant/0100_nick.up.sql", up), ("tenant/0100_nick.down.sql", down)])
            .await;
    for rows in ["empty", "seeded"] {
        let begin = format!("{rows} UpDownUp: up and down lead elsewhere");
        assert!(has(&found, &begin, "\n+ index users.by_name"), "{found:#?}");
        assert!(has(&found, &format!("{rows} UpDownUp: up again"), "42P07"), "{found:#?}");
        let begin = format!("{rows} Chain: down to before 0100");
        assert!(has(&found, &begin, "+ index users.by_name"), "{found:#?}");
    }
    let down = "DROP INDEX by_name; ALTER TABLE users DROP COLUMN nick, DROP COLUMN avatar_url;";
    let found =
        problems(&db, &[("tenant/0100_nick.up.sql", up), ("tenant/0100_nick.down.sql", down)])
            .await;
    let begin = "empty UpDownUp: up, down and up lead elsewhere than up";
    assert!(has(&found, begin, "- column users.avatar_url"), "{found:#?}");
    let down = "DROP INDEX by_name; ALTER TABLE users DROP COLUMN nick;";
    let right = [("tenant/0100_nick.up.sql", up), ("tenant/0100_nick.down.sql", down)];
    assert_eq!(problems(&db, &right).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_fails_on_rows_is_found() {
    let db = TestDatabase::new().await;
    let up = "ALTER TABLE notifications ADD COLUMN weight int NOT NULL;";
    let down = "ALTER TABLE notifications DROP COLUMN weight;";
    let found =
        problems(&db, &[("tenant/0100_w.up.sql", up), ("tenant/0100_w.down.sql", down)]).await;
    assert!(has(&found, "seeded UpDownUp: up: ", "contains null values"), "{found:#?}");
    assert_eq!(found.len(), 1, "{found:#?}");
    // The way back, too: the column was required, and nobody keeps its values.
    let up = "ALTER TABLE notifications DROP COLUMN kind;";
    let down = "ALTER TABLE notifications ADD COLUMN kind varchar(50) NOT NULL;
                ALTER TABLE notifications ADD CONSTRAINT notifications_kind_check CHECK (kind <> '');";
    let found =
        problems(&db, &[("tenant/0100_k.up.sql", up), ("tenant/0100_k.down.sql", down)]).await;
    assert!(has(&found, "seeded UpDownUp: down: ", "contains null values"), "{found:#?}");
    // That it comes back as the last column is nobody's fault.
    assert!(!found.iter().any(|problem| problem.starts_with("empty")), "{found:#?}");
    let migrations = with(&[("tenant/0100_k.up.sql", up), ("tenant/0100_k.down.sql", down)]);
    let found = verify(&db, &migrations, &[SetKind::Tenant]).await;
    let note = "up and down lead elsewhere, but only in the order of columns";
    assert!(found.checks.iter().any(|check| check.notes.iter().any(|n| n == note)), "{found:#?}");
}

#[tokio::test]
async fn rows_that_do_not_survive_are_found() {
    let db = TestDatabase::new().await;
    let more = [
        ("tenant/0100_x.up.sql", "SELECT 1;"),
        ("tenant/0100_x.down.sql", "DELETE FROM comments;"),
    ];
    let found = problems(&db, &more).await;
    assert!(has(&found, "seeded UpDownUp: up and down: `comments` has 0 rows", ""), "{found:#?}");
    assert!(has(&found, "seeded UpDownUp: up, down and up: `comments` has 0", ""), "{found:#?}");
    assert!(!found.iter().any(|problem| problem.starts_with("empty")), "{found:#?}");
}

#[tokio::test]
async fn what_depends_on_rows_or_on_how_a_tenant_came_is_found() {
    let db = TestDatabase::new().await;
    let up = "DO $$ BEGIN IF EXISTS (SELECT FROM users) THEN CREATE INDEX big ON users (name); END IF; END $$;";
    let more =
        [("tenant/0100_x.up.sql", up), ("tenant/0100_x.down.sql", "DROP INDEX IF EXISTS big;")];
    let found = problems(&db, &more).await;
    let begin = "seeded UpDownUp: the file does something else where there are rows";
    assert!(has(&found, begin, "\n+ index users.big"), "{found:#?}");
    // A sign-up runs all files in one transaction, and yet a setting of one does not reach the next.
    let more = [
        ("tenant/0100_x.sql", "SET LOCAL TimeZone = 'Asia/Tokyo';"),
        (
            "tenant/0101_y.sql",
            "ALTER TABLE users ADD COLUMN seen timestamptz DEFAULT '2000-01-01';",
        ),
    ];
    let found = problems(&db, &more).await;
    assert_eq!(found, Vec::<String>::new());
    // It is left out where a tenant is created.
    let more = [(
        "tenant/0100_x.sql",
        "-- no-transaction\nALTER TABLE a DETACH PARTITION b CONCURRENTLY;",
    )];
    let found = problems(&db, &more).await;
    assert!(has(&found, "empty UpDownUp: a tenant that is created later", "DETACH"), "{found:#?}");
}

#[tokio::test]
async fn what_is_not_looked_at_is_said() {
    let db = TestDatabase::new().await;
    let concurrently =
        "-- no-transaction\nCREATE INDEX CONCURRENTLY by_name ON users (name);\nVACUUM users;";
    let more = [
        ("tenant/0100_a.up.sql", concurrently),
        ("tenant/0100_a.down.sql", "-- no-transaction\nDROP INDEX CONCURRENTLY by_name;"),
        (
            "tenant/0101_b.sql",
            "CREATE TABLE odd (at point NOT NULL CHECK (at[0] > 1e6 AND at[0] < 1e6 + 1));",
        ),
    ];
    let found = verify(&db, &with(&more), &[SetKind::Tenant]).await;
    assert!(found.passed, "{found:#?}");
    let notes: Vec<&String> = found.checks.iter().flat_map(|check| &check.notes).collect();
    for expected in [
        "was tried in a transaction, without `VACUUM users`",
        "0100_a.down.sql` was tried in a transaction, its index builds plain",
        "irreversible: not taken back",
        "not verified with rows: `odd` stays empty",
        "0101_b.sql` is irreversible: nothing below it was reached",
    ] {
        assert!(notes.iter().any(|note| note.contains(expected)), "{expected}: {notes:#?}");
    }
}

#[tokio::test]
async fn a_seed_file_gives_rows_that_nobody_could_guess() {
    let mut db = TestDatabase::new().await;
    let odd = "CREATE TABLE odd (at point NOT NULL CHECK (at[0] > 1e6 AND at[0] < 1e6 + 1));";
    let dir = files(&[
        ("tenant/0100_odd.up.sql", odd),
        ("tenant/0100_odd.down.sql", "DROP TABLE odd;"),
        ("tenant/0101_w.up.sql", "ALTER TABLE odd ADD COLUMN weight int NOT NULL;"),
        ("tenant/0101_w.down.sql", "ALTER TABLE odd DROP COLUMN weight;"),
    ]);
    std::fs::create_dir(dir.path().join("seed")).unwrap();
    let seed = "INSERT INTO odd (at) VALUES ('(1000000.5, 0)');\nINSERT INTO nowhere DEFAULT VALUES;\nnonsense;";
    std::fs::write(dir.path().join("seed/tenant.sql"), seed).unwrap();
    limit(&mut db, "migrations.dir", dir.path().to_str().unwrap());
    let migrations = Migrations::load(&db.config.migrations).unwrap();
    let found = verify(&db, &migrations, &[SetKind::Tenant]).await;
    let wrong = all_told(&found);
    assert!(has(&wrong, "seeded UpDownUp: up: ", "contains null values"), "{wrong:#?}");
    // With a default it goes through, and what fitted no version is told.
    std::fs::write(
        dir.path().join("tenant/0101_w.up.sql"),
        "ALTER TABLE odd ADD COLUMN weight int NOT NULL DEFAULT 0;",
    )
    .unwrap();
    let migrations = Migrations::load(&db.config.migrations).unwrap();
    let found = verify(&db, &migrations, &[SetKind::Tenant]).await;
    assert!(found.passed, "{found:#?}");
    let notes: Vec<&String> = found.checks.iter().flat_map(|check| &check.notes).collect();
    for line in ["line 2: fitted no version", "line 3: fitted no version"] {
        assert!(notes.iter().any(|note| note.contains(line)), "{notes:#?}");
    }
    assert_eq!(notes.len(), 2, "{notes:#?}");
}

#[tokio::test]
async fn repeatable_files_are_applied_twice_and_meet_the_way_back() {
    let db = TestDatabase::new().await;
    let view =
        ("tenant/repeatable/names.sql", "CREATE OR REPLACE VIEW names AS SELECT name FROM users;");
    let again = with_repeatable(&[], &[view]);
    let found = verify(&db, &again, &[SetKind::Tenant]).await;
    assert!(!found.passed);
    let wrong = all_told(&found);
    // The only migration drops the table that the view stands on.
    let begin = "empty Repeatable: after the last migration went down and up: ";
    assert!(has(&wrong, begin, "2BP01"), "{wrong:#?}");
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    let nothing = [("tenant/0100_x.up.sql", "SELECT 1;"), ("tenant/0100_x.down.sql", "SELECT 1;")];
    assert!(verify(&db, &with_repeatable(&nothing, &[view]), &[SetKind::Tenant]).await.passed);
    let once = ("tenant/repeatable/names.sql", "CREATE VIEW names AS SELECT name FROM users;");
    let found = verify(&db, &with_repeatable(&nothing, &[once]), &[SetKind::Tenant]).await;
    let wrong = all_told(&found);
    assert!(has(&wrong, "empty Repeatable: applied twice: ", "42P07"), "{wrong:#?}");
}

pub(crate) fn with_repeatable(more: &[(&str, &str)], repeatable: &[(&str, &str)]) -> Migrations {
    let dir = files(more);
    std::fs::create_dir_all(dir.path().join("tenant/repeatable")).unwrap();
    for (file, text) in repeatable {
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    Migrations::from_dir(dir.path()).unwrap()
}

#[tokio::test]
async fn the_public_set_is_tried_apart_from_the_real_one() {
    let db = TestDatabase::new().await;
    let more = [
        ("public/0100_x.up.sql", "ALTER TABLE public.tenants ADD COLUMN note text NOT NULL;"),
        ("public/0100_x.down.sql", "ALTER TABLE tenants DROP COLUMN note;"),
    ];
    let found = verify(&db, &with(&more), &[SetKind::Public]).await;
    let wrong = all_told(&found);
    assert!(has(&wrong, "seeded UpDownUp: up: ", "contains null values"), "{wrong:#?}");
    assert_eq!(wrong.len(), 1, "{wrong:#?}");
    // An extension can't be taken along, and files may need it.
    let superuser = db.superuser().await;
    superuser.batch_execute("CREATE EXTENSION pg_trgm SCHEMA public").await.unwrap();
    let needs = [(
        "tenant/0100_x.sql",
        "CREATE INDEX by_part ON users USING gin (name public.gin_trgm_ops);",
    )];
    let found = verify(&db, &with(&needs), &BOTH).await;
    assert!(found.passed, "{found:#?}");
    assert!(found.not_verified[0].contains("`pg_trgm`"), "{found:#?}");
    assert!(found.checks.iter().all(|check| check.set == "tenant"));
}

#[tokio::test]
async fn sign_ups_go_on_meanwhile_and_a_dropped_run_leaves_nothing() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let superuser = db.superuser().await;
    let before = texts(&superuser, TRACES).await;
    // Dropped in the middle, as by Ctrl-C.
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::select! {
        ended = migrate::verify(&db.admin, &db.migrations, &BOTH, |check| tell.send(check.step).unwrap()) => {
            panic!("{ended:?}")
        }
        _ = told.recv() => {}
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while texts(&superuser, TRACES).await != before {
        assert!(tokio::time::Instant::now() < deadline, "something is left");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let verifying =
        migrate::verify(&db.admin, &db.migrations, &BOTH, |check| tell.send(check.step).unwrap());
    let others = async {
        told.recv().await.unwrap();
        db.tenant("globex").await;
        let again = migrate::verify(&db.admin, &db.migrations, &BOTH, |_| {}).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Busy);
        // It was under way all the time.
        assert!(told.try_recv().is_ok() || told.recv().await.is_some());
    };
    let (found, ()) = tokio::join!(verifying, others);
    assert!(found.unwrap().passed);
}

#[tokio::test]
async fn a_fresh_installation_without_any_migration_is_enough() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let reset = "DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner";
    superuser.batch_execute(reset).await.unwrap();
    let layers = db.servers().layers(db.name(), "shared");
    let admin = AdminDb::new(&Config::from_layers(layers).unwrap()).unwrap();
    let found = migrate::verify(&admin, &db.migrations, &BOTH, |_| {}).await.unwrap();
    assert!(found.passed && found.not_verified.is_empty(), "{found:#?}");
    assert!(
        texts(&superuser, "SELECT relname::text FROM pg_class WHERE relname = 'tenants'")
            .await
            .is_empty()
    );
}
