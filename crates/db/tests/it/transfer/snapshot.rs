//! An export is one moment, whatever others do meanwhile, and lets go when it ends.

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use tenantry_db::lifecycle::{Authority, ErasureError};
use tenantry_db::lifecycle::{
    Deletion, Export, ExportOptions, TransferError, begin_purge, continue_purge, delete_tenant,
};
use tenantry_db::models::tenants::Status;
use tenantry_db::{AdminDb, Config, Error};
use tenantry_testing::TestDatabase;

use super::{export, fill};
use crate::texts;

/// Takes nothing until it is let.
struct Gate {
    let_go: mpsc::Receiver<()>,
    taken: bool,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.taken {
            self.taken = true;
            // A dropped sender is a client that went away.
            self.let_go.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const OPTIONS: ExportOptions = ExportOptions { omit_secrets: false };

#[tokio::test]
async fn an_export_is_one_moment_while_others_write() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let schema = acme.schema();
    let writer = db.superuser().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // Each transaction adds one of both, in the order in which they are not exported.
    let add = format!(
        "BEGIN; INSERT INTO {schema}.users (email, name, role) VALUES (gen_random_uuid()::text || '@b.co', 'n', 'r');
         INSERT INTO {schema}.content (title) VALUES ('t');
         INSERT INTO {schema}.workflows (name) VALUES ('w'); COMMIT"
    );
    let writing = tokio::spawn(async move {
        let mut stopped = stopped;
        while stopped.try_recv().is_err() {
            writer.batch_execute(&add).await.unwrap();
        }
    });
    let mut last = 0;
    let mut grown = 0;
    for _ in 0..25 {
        let exported = export(&db, acme.id, false).await;
        let count = |name: &str| {
            exported.manifest.tables.iter().find(|table| table.name == name).unwrap().rows
        };
        let found = [count("content"), count("users"), count("workflows")];
        assert_eq!(found, [found[0]; 3], "of one moment");
        grown += u32::from(found[0] > last);
        last = found[0];
    }
    stop.send(()).unwrap();
    writing.await.unwrap();
    assert!(grown > 5, "nobody wrote meanwhile");
}

#[tokio::test]
async fn a_migration_waits_for_an_export_no_longer_than_it_may_and_it_sees_one_form() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    fill(&db, &acme).await;
    let (let_go, gate) = mpsc::channel();
    let opened = Export::open(&db.admin, &db.config, acme.id, OPTIONS, &db.actor()).await.unwrap();
    let change =
        format!("SET lock_timeout = '100ms'; ALTER TABLE {}.users ADD COLUMN x int", acme.schema());
    let changer = db.superuser().await;
    assert_eq!(crate::refusal(&changer, &change).await.code(), "55P03");
    let writing = tokio::spawn(opened.write(Gate { let_go: gate, taken: false }, |_| {}));
    assert_eq!(crate::refusal(&changer, &change).await.code(), "55P03");
    let_go.send(()).unwrap();
    writing.await.unwrap().unwrap();
    changer.batch_execute(&change).await.unwrap();
    // Whoever changes it has it for themselves: the export does not wait for ever either.
    changer.batch_execute(&format!("BEGIN; LOCK TABLE {}.users", acme.schema())).await.unwrap();
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "migrations.lock_timeout", "100ms");
    let admin = AdminDb::new(&Config::from_layers(layers).unwrap()).unwrap();
    let busy = Export::open(&admin, &db.config, acme.id, OPTIONS, &db.actor()).await;
    let busy = busy.map(drop).unwrap_err();
    assert!(matches!(busy, Error::Busy(_)), "{busy}");
}

/// As many sessions as hold a snapshot for an export.
async fn sessions(db: &TestDatabase) -> Vec<String> {
    let query = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database()
                 AND usename = 'shared_admin' AND state <> 'idle'";
    texts(&db.superuser().await, query).await
}

async fn until_nobody_exports(db: &TestDatabase) {
    for _ in 0..400 {
        if sessions(db).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("an export holds on");
}

/// Much more than the wire and the channels hold, so that the server is still at it.
async fn much(db: &TestDatabase, schema: tenantry_db::SchemaName) {
    let fill = format!(
        "INSERT INTO {schema}.content (title, body)
         SELECT 't', (SELECT string_agg(md5(random()::text || m || n), '') FROM generate_series(1, 300) m)
         FROM generate_series(1, 3000) n"
    );
    db.superuser().await.batch_execute(&fill).await.unwrap();
}

#[tokio::test]
async fn an_export_that_is_dropped_or_not_taken_lets_go_at_once() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    much(&db, acme.schema()).await;
    let opened = Export::open(&db.admin, &db.config, acme.id, OPTIONS, &db.actor()).await.unwrap();
    assert_eq!(sessions(&db).await.len(), 1);
    drop(opened);
    until_nobody_exports(&db).await;

    let (let_go, gate) = mpsc::channel();
    let opened = Export::open(&db.admin, &db.config, acme.id, OPTIONS, &db.actor()).await.unwrap();
    let writing = tokio::spawn(opened.write(Gate { let_go: gate, taken: false }, |_| {}));
    let busy = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database()
                AND wait_event = 'ClientWrite'";
    let superuser = db.superuser().await;
    while texts(&superuser, busy).await != ["1"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    writing.abort();
    until_nobody_exports(&db).await;
    drop(let_go);
    // Told when a session ends: nobody has read on to the last row.
    let read = format!(
        "SELECT coalesce(seq_tup_read, 0)::text FROM pg_stat_user_tables
         WHERE schemaname = '{}' AND relname = 'content'",
        acme.schema()
    );
    let mut seen = 0;
    while seen == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen = texts(&superuser, &read).await[0].parse().unwrap();
    }
    assert!(seen < 3000, "{seen} rows were read for nobody");

    let (let_go, gate) = mpsc::channel::<()>();
    let opened = Export::open(&db.admin, &db.config, acme.id, OPTIONS, &db.actor()).await.unwrap();
    drop(let_go);
    let gone = opened.write(Gate { let_go: gate, taken: false }, |_| {}).await.map(drop);
    let gone = gone.unwrap_err();
    assert!(matches!(gone, Error::Transfer(TransferError::Output(_))), "{gone}");
    until_nobody_exports(&db).await;

    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "export.max_duration", "200ms");
    let config = Config::from_layers(layers).unwrap();
    let (let_go, gate) = mpsc::channel::<()>();
    let opened = Export::open(&db.admin, &config, acme.id, OPTIONS, &db.actor()).await.unwrap();
    let late = opened.write(Gate { let_go: gate, taken: false }, |_| {}).await.map(drop);
    let late = late.unwrap_err();
    assert!(matches!(late, Error::Transfer(TransferError::TimeLimit { .. })), "{late}");
    until_nobody_exports(&db).await;
    drop(let_go);
}

#[tokio::test]
async fn a_purge_goes_before_an_export_and_takes_nothing_from_under_it() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    fill(&db, &acme).await;
    much(&db, acme.schema()).await;
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "lanes.settle_timeout", "200ms");
    let config = Config::from_layers(layers).unwrap();
    let (admin, ledger, actor) = (AdminDb::new(&config).unwrap(), db.ledger(), db.actor());
    let confirm = Some("acme");
    let how = Deletion { confirm, retention: None };
    delete_tenant(&admin, &config, acme.id, how, &actor).await.unwrap();
    let (let_go, gate) = mpsc::channel();
    let opened = Export::open(&db.admin, &config, acme.id, OPTIONS, &actor).await.unwrap();
    let writing = tokio::spawn(opened.write(Gate { let_go: gate, taken: false }, |_| {}));
    let authority = Authority::Confirmed { confirm, now: true };
    begin_purge(&admin, &ledger, acme.id, authority, &actor).await.unwrap();
    let waits = continue_purge(&admin, &ledger, acme.id, &actor, |_| {}).await.map(drop);
    let waits = waits.unwrap_err();
    assert!(
        matches!(&waits, Error::Erasure(ErasureError::Blocked { by, .. }) if by[0].contains("shared_admin")),
        "{waits}"
    );
    let_go.send(()).unwrap();
    let failed = writing.await.unwrap().map(drop).unwrap_err();
    assert!(matches!(failed, Error::InvalidState { status: Status::Purging, .. }), "{failed:?}");
    continue_purge(&admin, &ledger, acme.id, &actor, |_| {}).await.unwrap();
}
