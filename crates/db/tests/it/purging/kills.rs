//! Failures and kills at every step: the purge goes on from there, and nothing is dropped that the
//! ledger does not know of.

use tenantry_db::Error;
use tenantry_db::lifecycle::{ErasureError, restore_tenant};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use super::{assert_gone, purge};
use crate::deletion::delete;
use crate::texts;

/// Each with what arms and what disarms it.
fn hooks() -> Vec<(String, String)> {
    let row = |table: &str, event: &str, condition: &str| {
        (
            format!(
                "CREATE TRIGGER hook AFTER {event} ON public.{table} FOR EACH ROW {condition} EXECUTE FUNCTION public.hook()"
            ),
            format!("DROP TRIGGER hook ON public.{table}"),
        )
    };
    // At the COMMIT of the transaction that does it.
    let commit = |table: &str, event: &str, condition: &str| {
        (
            format!(
                "CREATE CONSTRAINT TRIGGER hook AFTER {event} ON public.{table} DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW {condition} EXECUTE FUNCTION public.hook()"
            ),
            format!("DROP TRIGGER hook ON public.{table}"),
        )
    };
    let ddl = |event: &str, tag: &str| {
        (
            format!(
                "CREATE EVENT TRIGGER hook ON {event} WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.ddl_hook()"
            ),
            "DROP EVENT TRIGGER hook".to_owned(),
        )
    };
    let mut hooks = vec![
        row("tenants", "UPDATE", "WHEN (NEW.status = 'purging')"),
        commit("tenants", "UPDATE", "WHEN (NEW.status = 'purging')"),
        row("purges", "INSERT", ""),
        ddl("ddl_command_end", "ALTER SCHEMA"),
        ddl("sql_drop", "DROP TABLE"),
        ddl("sql_drop", "DROP ROUTINE"),
        ddl("ddl_command_start", "DROP SCHEMA"),
        ddl("sql_drop", "DROP SCHEMA"),
        row("migrations", "DELETE", ""),
        row("certificates", "INSERT", ""),
        commit("certificates", "INSERT", ""),
        row("tenants", "UPDATE", "WHEN (NEW.status = 'purged')"),
        commit("tenants", "UPDATE", "WHEN (NEW.status = 'purged')"),
    ];
    for step in ["recorded", "frozen", "emptied", "role_dropped", "finished"] {
        let condition = format!("WHEN (NEW.step = '{step}')");
        hooks.push(row("purges", "UPDATE", &condition));
        hooks.push(commit("purges", "UPDATE", &condition));
    }
    hooks
}

/// What a hook does to the backend that meets it.
const WAYS: [(&str, &str); 2] = [
    ("fails", "RAISE 'injected'"),
    ("is killed", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1)"),
];

async fn set_up(superuser: &Client, body: &str) {
    superuser
        .batch_execute(&format!(
            "CREATE OR REPLACE FUNCTION public.hook() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN {body}; RETURN NULL; END $$;
             CREATE OR REPLACE FUNCTION public.ddl_hook() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN {body}; END $$;
             GRANT EXECUTE ON FUNCTION public.hook(), public.ddl_hook() TO PUBLIC"
        ))
        .await
        .unwrap();
}

#[tokio::test]
async fn wherever_it_stops_it_goes_on_from_there() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    for (way, body) in WAYS {
        set_up(&superuser, body).await;
        for (n, (arm, disarm)) in hooks().into_iter().enumerate() {
            let tenant = db.tenant(&format!("t{n}")).await;
            let (schema, id) = (tenant.schema(), tenant.id);
            superuser
                .batch_execute(&format!(
                    "SELECT lo_from_bytea({0}, 'x'); ALTER LARGE OBJECT {0} OWNER TO {schema}",
                    5000 + n
                ))
                .await
                .unwrap();
            delete(&db, &tenant).await;
            superuser.batch_execute(&arm).await.unwrap();
            let stopped = purge(&db, &tenant).await;
            assert!(stopped.is_err(), "it {way} at `{arm}`: not met");
            superuser.batch_execute(&disarm).await.unwrap();
            let known = db.ledger().entries().unwrap().iter().any(|e| e.tenant_id == id);
            let whole = format!(
                "SELECT (count(*) = 9)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname LIKE '{schema}%' AND relkind = 'r'"
            );
            let whole = texts(&superuser, &whole).await == ["true"];
            assert!(known || whole, "it {way} at `{arm}`: dropped before the ledger knew");
            let status = format!("SELECT status FROM public.tenants WHERE id = '{id}'");
            let status = texts(&superuser, &status).await.remove(0);
            assert!(status == "purging" || status == "deleted" && !known, "{arm}: {status}");
            let report = purge(&db, &tenant).await.unwrap_or_else(|e| panic!("{arm}: {e:?}"));
            assert!(report.finished_at.is_some());
            let certificates =
                format!("SELECT count(*)::text FROM public.certificates WHERE tenant_id = '{id}'");
            assert_eq!(texts(&superuser, &certificates).await, ["1"], "it {way} at `{arm}`");
            let entries = db.ledger().entries().unwrap();
            assert_eq!(entries.iter().filter(|e| e.tenant_id == id).count(), 1, "{arm}");
        }
    }
    let purged =
        "SELECT id::text FROM public.tenants WHERE status = 'purged' ORDER BY created_at LIMIT 1";
    assert_eq!(texts(&superuser, purged).await.len(), 1);
    let left = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tenant\\_%'
                UNION ALL SELECT 'large object' FROM pg_largeobject_metadata
                UNION ALL SELECT id::text FROM public.tenants WHERE status <> 'purged'";
    assert_eq!(texts(&superuser, left).await, Vec::<String>::new());
    super::dump(&db);
}

#[tokio::test]
async fn without_the_ledger_nothing_is_dropped_and_the_tenant_can_be_restored() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    delete(&db, &globex).await;
    purge(&db, &globex).await.unwrap();
    delete(&db, &acme).await;
    let file = db.config.erasure.ledger_dir.clone().unwrap().join("erasures.jsonl");
    let whole = std::fs::read(&file).unwrap();
    // A directory in its place can't be written; damaged; cut; another installation's; gone.
    for (expected, spoil) in [
        ("can't open", Some(None)),
        ("is damaged at line 1", Some(Some("{}\n"))),
        ("lacks entry 1", Some(Some(""))),
        ("lacks entry 1", None),
    ] {
        let _ = std::fs::remove_file(&file);
        match spoil {
            Some(Some(text)) => std::fs::write(&file, text).unwrap(),
            Some(None) => std::fs::create_dir(&file).unwrap(),
            None => {}
        }
        let error = purge(&db, &acme).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let _ = std::fs::remove_dir(&file);
        let now = "SELECT status || (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                          WHERE c.relkind = 'r' AND n.nspname LIKE 'tenant\\_%')
                   FROM public.tenants WHERE subdomain = 'acme'";
        assert_eq!(texts(&superuser, now).await, ["deleted9"], "{expected}");
        restore_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
        delete(&db, &acme).await;
    }
    // What a crash left of an entry is no entry.
    std::fs::write(&file, [&whole[..], b"{\"sequence\":2,\"tenant"].concat()).unwrap();
    assert_eq!(purge(&db, &acme).await.unwrap().ledger_sequence, Some(2));
    assert_gone(&db, &superuser, &acme).await;
}

#[tokio::test]
async fn control_functions_of_an_older_program_are_told_of() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let acme = db.tenant("acme").await;
    delete(&db, &acme).await;
    let older = "DROP FUNCTION shared.drop_tenant_large_objects";
    superuser.batch_execute(older).await.unwrap();
    let error = purge(&db, &acme).await.unwrap_err();
    assert!(matches!(error, Error::Erasure(ErasureError::OldControlFunctions)), "{error:?}");
    tenantry_db::init::init(&db.config).await.unwrap();
    purge(&db, &acme).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
}

/// What the freeze is to prevent, made by hand: a function whose schema will be gone.
#[tokio::test]
async fn a_catalog_row_that_points_to_nothing_keeps_the_tenant_from_being_called_purged() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let acme = db.tenant("acme").await;
    let schema = acme.schema();
    superuser
        .batch_execute(&format!(
            "CREATE FUNCTION public.stray() RETURNS int LANGUAGE sql AS 'SELECT 1';
             UPDATE pg_proc SET pronamespace = '{schema}'::regnamespace WHERE proname = 'stray'"
        ))
        .await
        .unwrap();
    delete(&db, &acme).await;
    let error = purge(&db, &acme).await.unwrap_err();
    let Error::Erasure(ErasureError::Left { left, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(left, &["1 rows in the catalog `pg_proc`"]);
    let status = "SELECT status || subdomain FROM public.tenants";
    assert_eq!(texts(&superuser, status).await, ["purgingacme"]);
    let mend = "UPDATE pg_proc SET pronamespace = 'public'::regnamespace WHERE proname = 'stray'";
    superuser.batch_execute(mend).await.unwrap();
    purge(&db, &acme).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
}
