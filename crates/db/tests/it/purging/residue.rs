//! What is left of a tenant, wherever it is: it goes with the purge, or the purge says where it is.

use tenantry_db::lifecycle::{ErasureError, find_shared_tables, rewrite_statistics};
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Config, Error};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use super::{Alone, assert_gone, purge};
use crate::deletion::delete;
use crate::texts;

/// What somebody leaves when everything of the tenant is gone already, just before the last look.
/// `{schema}`, `{id}`, `{role}` and `{table}` (the number of one of its tables) are filled in. Each with what
/// the purge names.
const LATE: &[(&str, &str, &str)] = &[
    (
        "UPDATE pg_largeobject_metadata SET lomowner = {role} WHERE oid = 4712",
        "UPDATE pg_largeobject_metadata SET lomowner = 10 WHERE oid = 4712",
        "1 rows in the catalog `pg_largeobject_metadata`",
    ),
    (
        "INSERT INTO pg_default_acl VALUES (5001, {role}, 0, 'r', acldefault('r', 10))",
        "DELETE FROM pg_default_acl WHERE oid = 5001",
        "1 rows in the catalog `pg_default_acl`",
    ),
    (
        "INSERT INTO pg_db_role_setting VALUES (0, {role}, '{a=b}')",
        "DELETE FROM pg_db_role_setting WHERE setrole = {role}",
        "1 rows in the catalog `pg_db_role_setting`",
    ),
    (
        "UPDATE pg_class SET relowner = {role} WHERE relname = 'widgets'",
        "UPDATE pg_class SET relowner = 10 WHERE relname = 'widgets'",
        "1 rows in the catalog `pg_class`",
    ),
    (
        "UPDATE pg_class SET relacl = array_append(relacl, makeaclitem({role}, 10, 'SELECT', false)) WHERE relname = 'widgets'",
        "UPDATE pg_class SET relacl = NULL WHERE relname = 'widgets'",
        "1 rows in the catalog `pg_class`",
    ),
    (
        "UPDATE pg_database SET datacl = array_append(datacl, makeaclitem({role}, 10, 'CONNECT', false)) WHERE datname = current_database()",
        "UPDATE pg_database SET datacl = datacl[:cardinality(datacl) - 1] WHERE datname = current_database()",
        "1 rows in the catalog `pg_database`",
    ),
    (
        "INSERT INTO pg_shdepend VALUES (0, 'pg_database'::regclass, 1, 0, 'pg_authid'::regclass, {role}, 'a')",
        "DELETE FROM pg_shdepend WHERE objid = 1",
        "1 rows in the catalog `pg_shdepend`",
    ),
    (
        "INSERT INTO pg_init_privs VALUES (1, 'pg_class'::regclass, 0, 'i', ARRAY[makeaclitem({role}, 10, 'SELECT', false)])",
        "DELETE FROM pg_init_privs WHERE objoid = 1",
        "1 rows in the catalog `pg_init_privs`",
    ),
    (
        "INSERT INTO pg_description VALUES ({table}, 'pg_class'::regclass, 0, 'of Acme')",
        "DELETE FROM pg_description WHERE objoid = {table}",
        "1 rows in the catalog `pg_description`",
    ),
    (
        "UPDATE pg_statistic SET starelid = {table} WHERE starelid = 'public.widgets'::regclass",
        "UPDATE pg_statistic SET starelid = 'public.widgets'::regclass WHERE starelid = {table}",
        "1 rows in the catalog `pg_statistic`",
    ),
    (
        "UPDATE pg_proc SET pronamespace = {namespace} WHERE proname = 'plant'",
        "UPDATE pg_proc SET pronamespace = 'public'::regnamespace WHERE proname = 'plant'",
        "1 rows in the catalog `pg_proc`",
    ),
    (
        "CREATE SCHEMA {schema}__kept AUTHORIZATION shared_owner",
        "DROP SCHEMA {schema}__kept",
        "1 rows in `pg_namespace`",
    ),
    ("CREATE ROLE {schema}", "DROP ROLE {schema}", "1 rows in `pg_roles`"),
    (
        "INSERT INTO public.idempotency_keys SELECT sha256('x'), sha256('y'), '{id}', 'n', 's', 't', '{}', 0, 0, now()",
        "DELETE FROM public.idempotency_keys",
        "1 rows in the table `public.idempotency_keys`, by `tenant_id`",
    ),
    (
        "INSERT INTO crm.accounts VALUES ('{id}')",
        "DELETE FROM crm.accounts",
        "1 rows in the table `crm.accounts`, by `owner_tenant_id`",
    ),
    (
        "INSERT INTO crm.names VALUES ('acme')",
        "DELETE FROM crm.names",
        "1 rows in the table `crm.names`, by `tenant_subdomain`",
    ),
    (
        "INSERT INTO crm.lists VALUES (ARRAY['{id}']::uuid[])",
        "DELETE FROM crm.lists",
        "1 rows in the table `crm.lists`, by `tenants`",
    ),
];

async fn prepare(superuser: &Client) {
    superuser
        .batch_execute(
            "CREATE TABLE public.widgets (a int); INSERT INTO public.widgets SELECT 1; ANALYZE public.widgets;
             CREATE SCHEMA crm; GRANT USAGE ON SCHEMA crm TO shared_admin;
             CREATE TABLE crm.accounts (owner_tenant_id text); CREATE TABLE crm.names (tenant_subdomain varchar(9));
             CREATE TABLE crm.lists (tenants uuid[]);
             GRANT SELECT ON ALL TABLES IN SCHEMA crm TO shared_admin;
             SELECT lo_from_bytea(4712, 'x');
             CREATE FUNCTION public.plant() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN EXECUTE (SELECT statement FROM public.late); RETURN NULL; END $$;
             CREATE TABLE public.late (statement text); INSERT INTO public.late VALUES (NULL);
             GRANT EXECUTE ON FUNCTION public.late() TO PUBLIC;
             CREATE TRIGGER late AFTER UPDATE ON public.tenants FOR EACH ROW
                 WHEN (NEW.status = 'purged') EXECUTE FUNCTION public.late()",
        )
        .await
        .unwrap();
}

/// The tenant's numbers, before they are gone.
async fn filled(superuser: &Client, tenant: &Tenant, texts_in: [&str; 2]) -> [String; 2] {
    let schema = tenant.schema().to_string();
    let query = format!(
        "SELECT '{schema}'::regrole::oid::text UNION ALL SELECT '{schema}.users'::regclass::oid::text
         UNION ALL SELECT '{schema}'::regnamespace::oid::text"
    );
    let numbers = texts(superuser, &query).await;
    texts_in.map(|text| {
        text.replace("{schema}", &schema)
            .replace("{id}", &tenant.id.to_string())
            .replace("{role}", &numbers[0])
            .replace("{table}", &numbers[1])
            .replace("{namespace}", &numbers[2])
    })
}

#[tokio::test]
async fn whatever_is_left_at_the_end_is_named_and_the_tenant_is_not_called_purged() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    prepare(&superuser).await;
    for (plant, weed, named) in LATE {
        let tenant = db.tenant("acme").await;
        let [plant, weed] = filled(&superuser, &tenant, [plant, weed]).await;
        delete(&db, &tenant).await;
        let arm = format!("UPDATE public.late SET statement = {}", quoted(&plant));
        superuser.batch_execute(&arm).await.unwrap();
        let error = purge(&db, &tenant).await.unwrap_err();
        let Error::Erasure(ErasureError::Left { left, .. }) = &error else {
            panic!("`{plant}`: {error:?}")
        };
        assert_eq!(left.len(), 1, "`{plant}`: {left:?}");
        assert!(left[0].starts_with(named), "`{plant}`: {left:?}");
        let status = format!("SELECT status FROM public.tenants WHERE id = '{}'", tenant.id);
        assert_eq!(texts(&superuser, &status).await, ["purging"]);
        let disarm = "UPDATE public.late SET statement = 'SELECT 1'";
        superuser.batch_execute(disarm).await.unwrap();
        // What was planted in the transaction went with it; what is there for good keeps the purge.
        superuser.batch_execute(&plant).await.unwrap();
        let kept_out = purge(&db, &tenant).await;
        // A name that the purge looks for is dropped again by it, and the rows of our tables.
        if let Err(error) = kept_out {
            // Of a role that another installation made, the purge keeps its hands.
            let foreign = plant.starts_with("CREATE ROLE");
            assert!(foreign || error.to_string().contains(named), "`{plant}`: {error}");
            superuser.batch_execute(&weed).await.unwrap();
            purge(&db, &tenant).await.unwrap();
        } else {
            assert!(
                plant.starts_with("CREATE") || plant.contains("idempotency_keys"),
                "`{plant}` was not seen"
            );
        }
        let certificates = "SELECT count(*)::text FROM public.certificates
                            WHERE tenant_id = (SELECT id FROM public.tenants ORDER BY created_at DESC LIMIT 1)";
        assert_eq!(texts(&superuser, certificates).await, ["1"]);
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn tables_that_are_to_be_kept_are_listed() {
    let mut db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let layers = db.servers().layers(db.name(), "shared").flag(
        "test",
        "erasure.kept_tables",
        vec!["public.invoices"],
    );
    db.config = Config::from_layers(layers).unwrap();
    db.admin = tenantry_db::AdminDb::new(&db.config).unwrap();
    let acme = db.tenant("acme").await;
    let rows = format!(
        "CREATE TABLE public.invoices (tenant_id uuid); INSERT INTO public.invoices VALUES ('{0}');
         GRANT SELECT ON public.invoices TO shared_admin;
         CREATE TABLE public.secret (tenant_id uuid); INSERT INTO public.secret VALUES ('{0}')",
        acme.id
    );
    superuser.batch_execute(&rows).await.unwrap();
    delete(&db, &acme).await;
    purge(&db, &acme).await.unwrap();
    let certificate = tenantry_db::lifecycle::get_certificate(&db.reader, acme.id).await.unwrap();
    let verification = &certificate.document()["verification"];
    let kept = verification["kept"].to_string();
    for table in ["public.audit_log", "public.purges", "public.certificates", "public.invoices"] {
        assert!(kept.contains(table), "{kept}");
    }
    // What may not be read is not passed over.
    assert_eq!(verification["unread"], serde_json::json!(["`public.secret`, by `tenant_id`"]));
    let open = certificate.document()["open"].to_string();
    assert!(open.contains("`public.secret`, by `tenant_id` could not be read"), "{open}");
}

/// What is found by looking is what a purge looks at, so a new table without a rule does not slip by.
#[tokio::test]
async fn the_look_finds_tables_whatever_the_column_is_called() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "CREATE TABLE public.n1 (tenant_id uuid); CREATE TABLE public.n2 (tenant text);
             CREATE TABLE public.n3 (schema_name name); CREATE TABLE public.n4 (source_tenant_id uuid);
             CREATE TABLE public.n5 (tenant_ids uuid[]); CREATE TABLE public.n6 (former_subdomain varchar(9));
             CREATE TABLE public.n7 (\"schema\" text); CREATE TABLE public.n8 (tenants text[]);
             CREATE TABLE public.no1 (schema_version bigint); CREATE TABLE public.no2 (lieutenant text)",
        )
        .await
        .unwrap();
    let found = find_shared_tables(&db.admin).await.unwrap();
    for n in 1..=8 {
        let table = format!("public.n{n}");
        assert!(found.iter().any(|(name, _)| *name == table), "{table}: {found:?}");
    }
    assert!(!found.iter().any(|(name, _)| name.starts_with("public.no")), "{found:?}");
}

/// In one directory of a database lie the files of its tables.
async fn files_hold(superuser: &Client, canary: &str) -> Vec<String> {
    superuser.batch_execute("CHECKPOINT").await.unwrap();
    let query = format!(
        "SELECT c.relname::text FROM pg_class c
         WHERE c.relname IN ('pg_statistic', 'pg_statistic_ext_data')
            OR c.oid IN (SELECT reltoastrelid FROM pg_class WHERE relname IN ('pg_statistic', 'pg_statistic_ext_data'))
         GROUP BY c.relname, c.oid
         HAVING position('{canary}'::bytea IN pg_read_binary_file(pg_relation_filepath(c.oid))) > 0"
    );
    texts(superuser, &query).await
}

#[tokio::test]
async fn a_canary_is_found_nowhere_afterwards() {
    const CANARY: &str = "canary-4f8a91c2";
    let db = Alone::new().await;
    let superuser = db.superuser().await;
    let acme = db.tenant(CANARY).await;
    let schema = acme.schema();
    db.tenant("globex").await;
    superuser
        .batch_execute(&format!(
            "INSERT INTO {schema}.users (email, name, role)
                 SELECT '{CANARY}' || n % 3 || '@' || n, '{CANARY}', 'x' FROM generate_series(1, 300) n;
             INSERT INTO {schema}.teams (name) SELECT repeat('{CANARY}', 9) FROM generate_series(1, 300);
             CREATE STATISTICS {schema}.both (mcv) ON name, role FROM {schema}.users;
             INSERT INTO public.idempotency_keys
                 SELECT sha256('x'), sha256('y'), '{id}', '{CANARY}', '{CANARY}', 'free', '{{}}', 0, 0, now();
             COMMENT ON TABLE {schema}.users IS '{CANARY}';
             SELECT lo_from_bytea(4713, '{CANARY}'); ALTER LARGE OBJECT 4713 OWNER TO {schema};
             SELECT lo_from_bytea(4714, 'of somebody else');
             SELECT lo_put(4714, n * 2048, 'x') FROM generate_series(1, 9) n;
             ANALYZE;
             -- Afterwards: the statistics of what all databases share are a superuser's alone to renew.
             COMMENT ON ROLE {schema} IS '{CANARY}'",
            id = acme.id,
        ))
        .await
        .unwrap();
    assert_eq!(files_hold(&superuser, CANARY).await.len(), 2, "both catalogs hold it before");
    delete(&db, &acme).await;
    purge(&db, &acme).await.unwrap();
    // Both hold it still: the rows are gone, the bytes are not.
    assert_eq!(files_hold(&superuser, CANARY).await.len(), 2);
    rewrite_statistics(&db.admin).await.unwrap();
    assert_eq!(files_hold(&superuser, CANARY).await, Vec::<String>::new());
    let everywhere = format!(
        "DO $do$ DECLARE r regclass; n bigint; found text := ''; BEGIN
             FOR r IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'm') LOOP
                 EXECUTE format('SELECT count(*) FROM %s t WHERE t::text LIKE %L', r, '%{CANARY}%') INTO n;
                 IF n > 0 THEN found := found || ' ' || r; END IF;
             END LOOP;
             SELECT count(*) INTO n FROM pg_stats s WHERE s::text LIKE '%{CANARY}%';
             IF n > 0 THEN found := found || ' pg_stats'; END IF;
             IF found <> '' THEN RAISE 'found in%', found; END IF;
         END $do$"
    );
    superuser.batch_execute(&everywhere).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
}

/// Where nobody is waited for for long.
async fn impatient() -> Alone {
    let mut db = Alone::new().await;
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "lanes.settle_timeout", "300ms");
    db.config = Config::from_layers(layers).unwrap();
    db.admin = tenantry_db::AdminDb::new(&db.config).unwrap();
    db
}

/// What an older transaction may still see is written to the new files, too.
#[tokio::test]
async fn an_older_transaction_keeps_the_statistics_from_being_called_gone() {
    let db = impatient().await;
    let superuser = db.superuser().await;
    let acme = db.tenant("acme").await;
    superuser
        .batch_execute(&format!(
            "INSERT INTO {0}.users (email, name, role) SELECT 'canary@x' || n, 'canary-91c2', 'x' FROM generate_series(1, 99) n;
             ANALYZE {0}.users",
            acme.schema()
        ))
        .await
        .unwrap();
    let reader = db.reader_client().await;
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM public.tenants")
        .await
        .unwrap();
    delete(&db, &acme).await;
    purge(&db, &acme).await.unwrap();
    let error = rewrite_statistics(&db.admin).await.unwrap_err();
    assert!(
        matches!(&error, Error::Erasure(ErasureError::StatisticsHeld(who)) if who.starts_with("pid ")),
        "{error:?}"
    );
    // As it would have been: the new file has it again.
    superuser.batch_execute("VACUUM FULL pg_statistic").await.unwrap();
    assert_eq!(files_hold(&superuser, "canary-91c2").await, ["pg_statistic"]);
    reader.batch_execute("ROLLBACK").await.unwrap();
    superuser.batch_execute("VACUUM FULL pg_statistic").await.unwrap();
    assert_eq!(files_hold(&superuser, "canary-91c2").await, Vec::<String>::new());
    assert_eq!(rewrite_statistics(&db.admin).await.unwrap(), 1);
    assert_eq!(files_hold(&superuser, "canary-91c2").await, Vec::<String>::new());
}

/// Also one that writes in another database of the server: whoever looks counts it as running.
#[tokio::test]
async fn a_writer_in_another_database_keeps_them_too() {
    let db = impatient().await;
    let superuser = db.superuser().await;
    let elsewhere = TestDatabase::on(db.servers().clone()).await.superuser().await;
    elsewhere.batch_execute("BEGIN; CREATE TABLE public.long (a int)").await.unwrap();
    let acme = db.tenant("acme").await;
    let fill = format!(
        "INSERT INTO {0}.users (email, name, role) SELECT 'x@' || n, 'canary-7d1e', 'x' FROM generate_series(1, 99) n;
         ANALYZE {0}.users",
        acme.schema()
    );
    superuser.batch_execute(&fill).await.unwrap();
    delete(&db, &acme).await;
    purge(&db, &acme).await.unwrap();
    let error = rewrite_statistics(&db.admin).await.unwrap_err();
    assert!(matches!(error, Error::Erasure(ErasureError::StatisticsHeld(_))), "{error:?}");
    superuser.batch_execute("VACUUM FULL pg_statistic").await.unwrap();
    assert_eq!(files_hold(&superuser, "canary-7d1e").await, ["pg_statistic"], "it does keep them");
    elsewhere.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(rewrite_statistics(&db.admin).await.unwrap(), 1);
    assert_eq!(files_hold(&superuser, "canary-7d1e").await, Vec::<String>::new());
}
