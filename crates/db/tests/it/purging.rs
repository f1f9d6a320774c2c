//! Purging: what is gone, what stays, and that nobody else is touched.

mod blocked;
mod certificates;
mod due;
mod kills;
mod large;
mod reapplying;
mod residue;

use std::ops::{Deref, DerefMut};
use std::process::Command;

use tenantry_db::lifecycle::{
    Authority, ErasureError, PurgeReport, begin_purge, continue_purge, find_shared_tables,
    purge_tenant, restore_tenant, rewrite_statistics, shared_tables,
};
use tenantry_db::models::tenants::{Status, Tenant, get_tenant};
use tenantry_db::{Error, TenantRef};
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::Client;

use crate::deletion::delete;
use crate::provisioning::traces;
use crate::texts;

/// A database on servers of its own. What writes in any database of a server holds up the rewriting of
/// statistics, and other tests do.
pub(crate) struct Alone {
    db: TestDatabase,
    _stack: tenantry_stack::Stack,
    _dir: tempfile::TempDir,
}

impl Alone {
    pub(crate) async fn new() -> Self {
        let dir = temp_dir().unwrap();
        let (stack, servers) = Servers::start(dir.path(), 2).await.unwrap();
        Self { db: TestDatabase::on(servers).await, _stack: stack, _dir: dir }
    }
}

impl Deref for Alone {
    type Target = TestDatabase;

    fn deref(&self) -> &TestDatabase {
        &self.db
    }
}

impl DerefMut for Alone {
    fn deref_mut(&mut self) -> &mut TestDatabase {
        &mut self.db
    }
}

pub(crate) fn by<'a>(confirm: &'a str) -> Authority<'a> {
    Authority::Confirmed { confirm: Some(confirm), now: true }
}

pub(crate) async fn purge(db: &TestDatabase, tenant: &Tenant) -> Result<PurgeReport, Error> {
    let confirm = tenant.subdomain.as_deref().unwrap();
    let (ledger, actor) = (db.ledger(), db.actor());
    purge_tenant(&db.admin, &ledger, tenant.id, by(confirm), &actor, |_| {}).await
}

/// A tenant that is gone has left nothing, and the database can be dumped.
pub(crate) async fn assert_gone(db: &TestDatabase, superuser: &Client, tenant: &Tenant) {
    let (schema, id) = (tenant.schema().to_string(), tenant.id.to_string());
    let left = traces(superuser).await;
    let named = |trace: &&String| trace.contains(&schema) || trace.contains(&id);
    // Of the row, a tombstone is left.
    assert_eq!(left.iter().filter(named).collect::<Vec<_>>(), [&format!("row {id}")]);
    let row = format!(
        "SELECT concat_ws(' ', status, name = '', subdomain IS NULL, settings) FROM public.tenants WHERE id = '{id}'"
    );
    assert_eq!(texts(superuser, &row).await, ["purged t t {}"]);
    let role = format!("SELECT rolname::text FROM pg_roles WHERE rolname = '{schema}'");
    assert_eq!(texts(superuser, &role).await, Vec::<String>::new());
    let schemas = format!("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '{schema}%'");
    assert_eq!(texts(superuser, &schemas).await, Vec::<String>::new());
    dump(db);
}

/// One catalog row without its schema makes this fail.
pub(crate) fn dump(db: &TestDatabase) {
    let (server, _) = db.servers().superuser_url.rsplit_once('/').unwrap();
    let url = format!("{server}/{}", db.name());
    let output = Command::new("pg_dump").args(["--schema-only", "-d", &url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn everything_of_the_tenant_goes_and_nothing_of_others() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let superuser = db.superuser().await;
    let (schema, other) = (acme.schema(), globex.schema());
    // Whatever a schema can hold, a kept copy of it, and a large object.
    superuser
        .batch_execute(&format!(
            "CREATE SCHEMA {schema}__before_restore AUTHORIZATION shared_owner;
             CREATE TABLE {schema}__before_restore.users (name text);
             SET search_path = {schema};
             CREATE TYPE mood AS ENUM ('a'); CREATE TYPE pair AS (a int, b mood);
             CREATE TYPE span AS RANGE (subtype = int4); CREATE DOMAIN small AS int CHECK (VALUE < 9);
             CREATE TABLE parts (at int, m mood, p pair, s small DEFAULT 1) PARTITION BY RANGE (at);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (at);
             CREATE TABLE parts_1_1 PARTITION OF parts_1 FOR VALUES FROM (0) TO (5);
             CREATE INDEX ON parts (at);
             CREATE TABLE \"Odd \"\"name\"\"; DROP SCHEMA public\" (a serial PRIMARY KEY, b int GENERATED ALWAYS AS IDENTITY);
             CREATE TABLE child () INHERITS (users); CREATE VIEW v AS SELECT name FROM users;
             CREATE VIEW vv AS SELECT name FROM v; CREATE MATERIALIZED VIEW mv AS SELECT name FROM vv;
             CREATE SEQUENCE free; CREATE STATISTICS st ON name, role FROM users;
             CREATE FUNCTION f(int, mood) RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE PROCEDURE p() LANGUAGE sql AS ''; CREATE AGGREGATE agg(int) (SFUNC = step, STYPE = int);
             CREATE AGGREGATE counted(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
             CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION tf();
             CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
             CREATE OPERATOR FAMILY fam USING btree;
             CREATE OPERATOR CLASS cls FOR TYPE int USING btree AS OPERATOR 1 <, FUNCTION 1 btint4cmp(int, int);
             CREATE COLLATION col (provider = libc, locale = 'C');
             CREATE CONVERSION conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
             CREATE TEXT SEARCH CONFIGURATION tsc (COPY = pg_catalog.simple);
             CREATE TEXT SEARCH DICTIONARY tsd (TEMPLATE = pg_catalog.simple);
             CREATE POLICY pol ON users USING (true);
             COMMENT ON TABLE users IS 'of Acme';
             ALTER DEFAULT PRIVILEGES FOR ROLE shared_owner GRANT SELECT ON TABLES TO {schema};
             ALTER ROLE {schema} SET work_mem = '1MB';
             SELECT lo_from_bytea(4711, 'of Acme'); ALTER LARGE OBJECT 4711 OWNER TO {schema};
             GRANT SELECT ON public.countries TO {schema};
             RESET search_path"
        ))
        .await
        .unwrap();
    let globex_before =
        tenantry_db::migrate::fingerprint(&db.reader, other).await.unwrap().to_string();
    delete(&db, &acme).await;
    let report = purge(&db, &acme).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
    let after = tenantry_db::migrate::fingerprint(&db.reader, other).await.unwrap().to_string();
    assert_eq!(after, globex_before);
    assert_eq!(
        texts(&superuser, "SELECT count(*)::text FROM pg_largeobject_metadata").await,
        ["0"]
    );
    assert_eq!(report.existed["copies"], 1);
    assert_eq!(report.existed["large_objects"], 1);
    assert_eq!(report.existed["tables"], 15);
    let steps: Vec<&str> =
        report.steps.as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["frozen", "emptied", "role_dropped", "finished"]);
    let entries = db.ledger().entries().unwrap();
    assert_eq!(entries.iter().map(|e| e.tenant_id).collect::<Vec<_>>(), [acme.id]);
    assert_eq!(report.ledger_sequence, Some(1));
    let tombstone = get_tenant(&db.reader, &TenantRef::Id(acme.id)).await.unwrap();
    assert_eq!(tombstone.status, Status::Purged);
    let audit =
        "SELECT action || details FROM public.audit_log WHERE action LIKE '%purge%' ORDER BY id";
    assert_eq!(
        texts(&superuser, audit).await,
        ["tenant.purge_begun{\"now\": true}", "tenant.purged{}"]
    );
}

#[tokio::test]
async fn every_shared_table_that_names_a_tenant_has_a_rule() {
    let db = TestDatabase::new().await;
    let found = find_shared_tables(&db.admin).await.unwrap();
    let mut found: Vec<String> = found
        .into_iter()
        .map(|(table, column)| format!("{}.{column}", table.trim_start_matches("public.")))
        .collect();
    found.sort();
    let mut ruled: Vec<String> =
        shared_tables().map(|(table, column)| format!("{table}.{column}")).collect();
    ruled.sort();
    assert_eq!(found, ruled, "the list is in `lifecycle/purge/shared.rs`");
}

#[tokio::test]
async fn whoever_gets_the_subdomain_next_sees_nothing_of_the_former_tenant() {
    let db = TestDatabase::new().await;
    let former = db.tenant("acme").await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(&format!(
            "INSERT INTO {}.users (email, name, role) VALUES ('a@b.co', 'A', 'x')",
            former.schema()
        ))
        .await
        .unwrap();
    let installation = db.installation();
    let found = installation.directory().find(former.id).await.unwrap().unwrap();
    let stale = installation.tenant_db(found).unwrap();
    delete(&db, &former).await;
    purge(&db, &former).await.unwrap();
    let next = db.tenant("acme").await;
    assert_ne!(next.id, former.id);
    let found = installation.directory().find(next.id).await.unwrap().unwrap();
    let tenant = installation.tenant_db(found).unwrap();
    assert!(tenant.query("SELECT FROM users", &[]).await.unwrap().is_empty());
    assert!(stale.query("SELECT FROM users", &[]).await.is_err());
    let name = TenantRef::Subdomain("acme".parse().unwrap());
    assert_eq!(get_tenant(&db.reader, &name).await.unwrap().id, next.id);
}

#[tokio::test]
async fn once_begun_it_can_not_be_restored_and_anybody_goes_on() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let not_deleted = begin_purge(&db.admin, &db.ledger(), acme.id, by("acme"), &db.actor()).await;
    assert!(matches!(not_deleted.unwrap_err(), Error::InvalidState { .. }));
    delete(&db, &acme).await;
    let waits = Authority::Confirmed { confirm: Some("acme"), now: false };
    let early = begin_purge(&db.admin, &db.ledger(), acme.id, waits, &db.actor()).await;
    let early = early.unwrap_err();
    assert!(matches!(early, Error::Erasure(ErasureError::NotDue { .. })), "{early}");
    let not_begun = continue_purge(&db.admin, &db.ledger(), acme.id, &db.actor(), |_| {}).await;
    assert!(matches!(not_begun.unwrap_err(), Error::InvalidState { .. }));
    for _ in 0..2 {
        let begun = begin_purge(&db.admin, &db.ledger(), acme.id, by("acme"), &db.actor()).await;
        assert_eq!(begun.unwrap().status, Status::Purging);
    }
    assert_eq!(db.ledger().entries().unwrap().len(), 1);
    let restored = restore_tenant(&db.admin, acme.id, &db.actor()).await.unwrap_err();
    assert!(matches!(restored, Error::InvalidState { status: Status::Purging, .. }));
    let mut said = Vec::new();
    continue_purge(&db.admin, &db.ledger(), acme.id, &db.actor(), |p| said.push(p.to_string()))
        .await
        .unwrap();
    insta::assert_snapshot!(said.join("\n"), @r"
    entered in the erasure ledger
    frozen: nobody can add anything
    9 objects dropped
    10 objects dropped
    schema dropped, with 10 objects
    role dropped, with 0 large objects
    nothing is left
    ");
    assert_gone(&db, &db.superuser().await, &acme).await;
}

/// `pg_statistic` holds values, and dropping a table leaves them in its file.
#[tokio::test]
async fn statistics_are_written_anew_by_the_databases_owner() {
    let db = Alone::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(&format!(
            "INSERT INTO {0}.users (email, name, role)
             SELECT 'secret' || n || '@example.org', 'A', 'x' FROM generate_series(1, 200) n;
             ANALYZE {0}.users; CHECKPOINT",
            acme.schema()
        ))
        .await
        .unwrap();
    // The bytes of the catalog's file, as whoever has the disk sees them.
    let traces = "WITH file AS (
             SELECT pg_relation_filepath(oid) AS path FROM pg_class
              WHERE oid IN ('pg_statistic'::regclass, (SELECT reltoastrelid FROM pg_class WHERE oid = 'pg_statistic'::regclass)))
         SELECT bool_or(position('secret1'::bytea IN pg_read_binary_file(path)) > 0)::text FROM file";
    assert_eq!(texts(&superuser, traces).await, ["true"], "the test would see them");
    delete(&db, &acme).await;
    purge(&db, &acme).await.unwrap();
    superuser.batch_execute("CHECKPOINT").await.unwrap();
    assert_eq!(texts(&superuser, traces).await, ["true"], "dropping is not enough");
    assert_eq!(rewrite_statistics(&db.admin).await.unwrap(), 1);
    superuser.batch_execute("CHECKPOINT").await.unwrap();
    assert_eq!(texts(&superuser, traces).await, ["false"]);
    assert_eq!(rewrite_statistics(&db.admin).await.unwrap(), 0, "nothing more to record");
}
