//! Exporting and importing: what comes back is what went, and nothing else does.

mod damage;
mod memory;
mod schemas;
mod snapshot;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tenantry_db::lifecycle::{
    Archive, Export, ExportOptions, ImportAs, Imported, Manifest, import_tenant, suspend_tenant,
};
use tenantry_db::migrate::{Migrations, fingerprint};
use tenantry_db::models::tenants::{Status, Tenant};
use tenantry_db::{Error, SchemaName, TenantId};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use crate::texts;

/// Exports a tenant into a file of a directory of its own.
pub(super) struct Exported {
    pub(super) path: PathBuf,
    pub(super) manifest: Manifest,
    _dir: tempfile::TempDir,
}

pub(super) async fn export(db: &TestDatabase, tenant: TenantId, omit_secrets: bool) -> Exported {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive.zip");
    let options = ExportOptions { omit_secrets };
    let export = Export::open(&db.admin, &db.config, tenant, options, &db.actor()).await.unwrap();
    let (manifest, _) = export.write(File::create(&path).unwrap(), |_| {}).await.unwrap();
    Exported { path, manifest, _dir: dir }
}

pub(super) async fn import_with(
    db: &TestDatabase,
    migrations: &Migrations,
    path: &Path,
    subdomain: &str,
) -> Result<Imported, Error> {
    let archive = Archive::open(path, false).await?;
    let wanted = ImportAs { subdomain: Some(subdomain), ..ImportAs::default() };
    import_tenant(&db.admin, &db.config, migrations, archive, wanted, &db.actor(), |_| {}).await
}

pub(super) async fn import(
    db: &TestDatabase,
    path: &Path,
    subdomain: &str,
) -> Result<Imported, Error> {
    import_with(db, &db.migrations, path, subdomain).await
}

/// Every row of every table, with the tenant's own id written as `OWN`, sorted.
pub(super) async fn rows(client: &Client, schema: SchemaName) -> Vec<String> {
    let tables = format!(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
         AND relnamespace = '{schema}'::regnamespace ORDER BY 1"
    );
    let mut all = Vec::new();
    for table in texts(client, &tables).await {
        let read = format!(
            "SELECT '{table} ' || replace(to_jsonb(t)::text, {schema}.this_tenant()::text, 'OWN')
             FROM {schema}.\"{table}\" t ORDER BY 1"
        );
        all.extend(texts(client, &read).await);
    }
    all
}

/// Rows in all nine tables, with what CSV might lose.
pub(super) async fn fill(db: &TestDatabase, tenant: &Tenant) {
    let fill = format!(
        "SET search_path TO {}, public;
         INSERT INTO users (email, name, role, avatar_url, password_hash) VALUES
             ('a@b.co', E'say \"hi\"\\n\\\\.\\nnext, line', 'owner', '', 'hash'),
             ('b@b.co', 'NULL', 'member', NULL, NULL), ('c@b.co', E'\\u00e4\\u4e2d\\U0001F600 \\t\\r', '\\N', '\\.', '');
         INSERT INTO social_accounts (platform, handle, external_id, credentials, connected_by)
             SELECT 'x', 'h', 'e' || n, decode('00ff0a22', 'hex'), (SELECT id FROM users ORDER BY email LIMIT 1)
             FROM generate_series(1, 2) n;
         INSERT INTO workflows (name, definition) VALUES ('w', '{{\"a\": [1, null, \"\\\"\"]}}');
         INSERT INTO teams (name, description, lead_id, member_ids)
             SELECT 't', '', id, ARRAY[id, gen_random_uuid()] FROM users WHERE email = 'b@b.co';
         INSERT INTO content (title, body, tags, author_id, created_at)
             SELECT 'c' || n, repeat(E'x\\n', n), ARRAY['', 'a,b', 'NULL', '\"'], (SELECT id FROM users WHERE email = 'a@b.co'),
                    'infinity'
             FROM generate_series(1, 50) n;
         INSERT INTO publish_jobs (content_id, social_account_id, workflow_id)
             SELECT c.id, s.id, w.id FROM content c, social_accounts s, workflows w;
         INSERT INTO analytics (social_account_id, metric, value, period_start, period_end)
             SELECT id, 'm', 9223372036854775807, '0044-03-15 12:00:00.123456 BC', now() FROM social_accounts;
         -- Each answers the one that comes later in any order of ids.
         INSERT INTO comments (id, content_id, body, parent_id)
             SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, (SELECT id FROM content LIMIT 1), 'b',
                    CASE WHEN n < 20 THEN ('00000000-0000-4000-8000-' || lpad((n + 1)::text, 12, '0'))::uuid END
             FROM generate_series(1, 20) n;
         INSERT INTO notifications (user_id, kind, title) SELECT id, 'k', 't' FROM users",
        tenant.schema()
    );
    db.superuser().await.batch_execute(&fill).await.unwrap();
}

#[tokio::test]
async fn an_import_equals_its_source_row_for_row() {
    let db = TestDatabase::new().await;
    let (acme, fresh) = (db.tenant("acme").await, db.tenant("fresh").await);
    fill(&db, &acme).await;
    let superuser = db.superuser().await;
    let before = rows(&superuser, acme.schema()).await;
    assert!(before.len() > 180, "{}", before.len());
    let exported = export(&db, acme.id, false).await;
    assert_eq!(exported.manifest.rows() as usize, before.len());
    let imported = import(&db, &exported.path, "copy").await.unwrap();
    let copy = imported.tenant;
    assert_ne!(copy.id, acme.id);
    assert_eq!((imported.source, imported.rows), (acme.id, before.len() as u64));
    assert_eq!((copy.name.as_str(), copy.status), ("acme", Status::Active));
    assert_eq!(rows(&superuser, copy.schema()).await, before);
    assert_eq!(rows(&superuser, acme.schema()).await, before, "the source is as it was");
    let ids = format!("SELECT DISTINCT tenant_id::text FROM {}.comments", copy.schema());
    assert_eq!(texts(&superuser, &ids).await, [copy.id.to_string()]);
    // Every constraint, index, default, right and comment of a tenant that was never anybody else.
    let shape = fingerprint(&db.reader, copy.schema()).await.unwrap();
    let expected = fingerprint(&db.reader, fresh.schema()).await.unwrap();
    assert_eq!(expected.difference(&shape), Vec::<String>::new());
    // Counting goes on where it was, and what a user does works as before.
    let client = db.lane_direct(copy.lane).await;
    client
        .batch_execute(&format!("SET ROLE {0}; SET search_path TO {0}, public", copy.schema()))
        .await
        .unwrap();
    let next = texts(
        &client,
        "INSERT INTO content (title) VALUES ('next') RETURNING number || ' ' || tenant_id",
    );
    assert_eq!(next.await, [format!("51 {}", copy.id)]);
    let orphan =
        "INSERT INTO notifications (user_id, kind, title) VALUES (gen_random_uuid(), 'k', 't')";
    assert_eq!(crate::refusal(&client, orphan).await.code(), "23503");
    let audit =
        "SELECT action || coalesce(' ' || (details->>'source_tenant_id'), '') FROM public.audit_log
                 WHERE action <> 'tenant.created' ORDER BY id";
    assert_eq!(
        texts(&superuser, audit).await,
        ["tenant.exported".to_owned(), format!("tenant.imported {}", acme.id)]
    );
}

#[tokio::test]
async fn what_is_left_out_is_named_and_nowhere_in_the_archive() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    fill(&db, &acme).await;
    let canary = format!(
        "UPDATE {0}.users SET password_hash = 'canary-of-a-hash';
         UPDATE {0}.social_accounts SET credentials = 'canary-of-credentials'",
        acme.schema()
    );
    let superuser = db.superuser().await;
    superuser.batch_execute(&canary).await.unwrap();
    let whole = export(&db, acme.id, false).await;
    let less = export(&db, acme.id, true).await;
    assert_eq!(less.manifest.omitted, ["users.password_hash", "social_accounts.credentials"]);
    let hex = data_encoding_hex("canary-of-credentials");
    for (exported, found) in [(&whole, true), (&less, false)] {
        let mut zip = zip::ZipArchive::new(File::open(&exported.path).unwrap()).unwrap();
        let mut all = String::new();
        for at in 0..zip.len() {
            zip.by_index(at).unwrap().read_to_string(&mut all).unwrap();
        }
        assert_eq!(all.contains("canary-of-a-hash"), found);
        assert_eq!(all.contains(&hex), found);
        assert_eq!(all.contains("password_hash,"), found);
    }
    let copy = import(&db, &less.path, "less").await.unwrap().tenant;
    let left = format!(
        "SELECT count(*)::text FROM {0}.users WHERE password_hash IS NOT NULL
         UNION ALL SELECT count(*)::text FROM {0}.social_accounts WHERE credentials IS NOT NULL
         UNION ALL SELECT count(*)::text FROM {0}.users",
        copy.schema()
    );
    assert_eq!(texts(&superuser, &left).await, ["0", "0", "3"]);
}

fn data_encoding_hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_import_is_a_sign_up_by_the_same_rules() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let exported = export(&db, acme.id, false).await;
    let wanted = |subdomain, tier| ImportAs { name: None, subdomain, tier };
    for (wanted, said) in [
        (wanted(None, None), "subdomain `acme` is taken"),
        (wanted(Some("www"), None), "not a usable subdomain"),
        (wanted(Some("copy"), Some("gold")), "`gold` is not a tier"),
    ] {
        let archive = Archive::open(&exported.path, false).await.unwrap();
        let (admin, config, migrations) = (&db.admin, &db.config, &db.migrations);
        let refused =
            import_tenant(admin, config, migrations, archive, wanted, &db.actor(), |_| {}).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
    let count = "SELECT count(*)::text FROM public.tenants";
    assert_eq!(texts(&db.superuser().await, count).await, ["1"]);
}

#[tokio::test]
async fn who_is_shut_out_can_be_exported_and_who_is_gone_can_not() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    fill(&db, &acme).await;
    let superuser = db.superuser().await;
    let before = rows(&superuser, acme.schema()).await;
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    assert_eq!(export(&db, acme.id, false).await.manifest.rows() as usize, before.len());
    let set = |what: &str| format!("UPDATE public.tenants SET {what} WHERE id = '{}'", acme.id);
    superuser
        .batch_execute(&set(
            "status = 'deleted', suspended_at = NULL, deleted_at = now(), purge_after = now()",
        ))
        .await
        .unwrap();
    assert_eq!(export(&db, acme.id, false).await.manifest.rows() as usize, before.len());
    let options = ExportOptions { omit_secrets: false };
    superuser.batch_execute(&set("status = 'purging'")).await.unwrap();
    let gone = Export::open(&db.admin, &db.config, acme.id, options, &db.actor()).await;
    let gone = gone.map(drop).unwrap_err();
    assert!(matches!(gone, Error::InvalidState { status: Status::Purging, .. }), "{gone}");
    let ready = db.tenant("ready").await.id;
    superuser
        .batch_execute(&format!(
            "UPDATE public.tenants SET status = 'ready', subdomain = NULL, name = '' WHERE id = '{ready}'"
        ))
        .await
        .unwrap();
    for nobody in [TenantId::random(), ready] {
        let unknown = Export::open(&db.admin, &db.config, nobody, options, &db.actor()).await;
        assert!(matches!(unknown.map(drop).unwrap_err(), Error::TenantNotFound(_)));
    }
}
