//! `kill -9` of whoever takes from the ready pool, and of whoever fills it.

use std::process::Stdio;

use tenantry_db::lifecycle::fill_ready_pool;
use tenantry_db::{Config, Installation};
use tenantry_testing::{TestDatabase, free_port};

use crate::program::{count, installation, run, tenantry, until_equal};

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

async fn make_wait(superuser: &tokio_postgres::Client, table: &str) {
    let wait = format!(
        "CREATE OR REPLACE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$;
         CREATE TRIGGER wait AFTER INSERT ON public.{table} EXECUTE FUNCTION public.wait()"
    );
    superuser.batch_execute(&wait).await.unwrap();
    superuser.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)").await.unwrap();
}

#[tokio::test]
async fn a_sign_up_that_is_killed_while_it_takes_one_leaves_it_ready_or_has_taken_it() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let layers = db.servers().layers(db.name(), "shared").flag("test", "tenants.ready_pool", 1);
    let stocked = Installation::new(Config::from_layers(layers).unwrap()).unwrap();
    assert_eq!(fill_ready_pool(&stocked).await.unwrap(), 1);
    let (holder, observer) = (db.superuser().await, db.superuser().await);
    make_wait(&holder, "audit_log").await;
    let create = ["tenant", "create", "--name", "A", "--subdomain", "acme"];
    let mut child = tenantry(dir.path())
        .args(create)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until_equal(&observer, WAITING, 1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        count(&observer, "SELECT count(*) FROM public.tenants WHERE status = 'ready'").await,
        1
    );
    holder.batch_execute("ROLLBACK").await.unwrap();
    until_equal(&observer, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()", 0).await;
    // All had been sent, so the server may have done it; then the name is taken, and nothing else is.
    let taken =
        count(&observer, "SELECT count(*) FROM public.tenants WHERE status = 'active'").await;
    let again = run(dir.path(), &create);
    assert_eq!(again.code, if taken == 0 { 0 } else { 4 }, "{}", again.stderr);
    assert_eq!(
        count(&observer, "SELECT count(*) FROM public.tenants WHERE subdomain = 'acme'").await,
        1
    );
    assert_eq!(count(&observer, "SELECT count(*) FROM public.tenants").await, 1);
    assert_eq!(count(&observer, "SELECT count(*) FROM public.audit_log").await, 1);
}

#[tokio::test]
async fn a_service_that_is_killed_while_it_fills_the_pool_leaves_nothing_half_made() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let file = dir.path().join("tenantry.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("ready_pool = 0", "ready_pool = 2");
    std::fs::write(&file, format!("{text}\n[auth]\nsecret = \"{}\"\n", "x".repeat(32))).unwrap();
    let serve = || {
        let port = free_port().unwrap().to_string();
        let mut command = tenantry(dir.path());
        let command = command.args(["serve", "--http-port", &port]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let (holder, observer) = (db.superuser().await, db.superuser().await);
    make_wait(&holder, "migrations").await;
    let mut child = serve();
    until_equal(&observer, WAITING, 1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    holder.batch_execute("ROLLBACK; DROP TRIGGER wait ON public.migrations").await.unwrap();
    let halves = "SELECT count(*) FROM pg_namespace n FULL JOIN public.tenants t
                      ON n.nspname = 'tenant_' || replace(t.id::text, '-', '')
                  WHERE (n.nspname LIKE 'tenant\\_%' OR n.nspname IS NULL)
                    AND (n.nspname IS NULL OR t.id IS NULL)";
    assert_eq!(count(&observer, halves).await, 0);
    // The next one fills it, whatever the former left.
    let mut child = serve();
    until_equal(&observer, "SELECT count(*) FROM public.tenants WHERE status = 'ready'", 2).await;
    assert_eq!(count(&observer, halves).await, 0);
    child.kill().unwrap();
    child.wait().unwrap();
}
