//! `kill -9` in the middle of a sign-up.

use std::process::{Child, Stdio};
use std::time::Duration;

use tenantry_testing::TestDatabase;

use crate::program::{installation, run, tenantry, with_migration};

async fn count(client: &tokio_postgres::Client, query: &str) -> i64 {
    client.query_typed_one(query, &[]).await.unwrap().get(0)
}

async fn until_equal(client: &tokio_postgres::Client, query: &str, wanted: i64) {
    for _ in 0..500 {
        if count(client, query).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("`{query}` did not become {wanted} within 10 s");
}

fn start(dir: &std::path::Path, arguments: &[&str]) -> Child {
    tenantry(dir).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_killed_sign_up_leaves_nothing_and_can_be_repeated_at_once() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let (holder, observer) = (db.superuser().await, db.superuser().await);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let left = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant\\_%')
                     + (SELECT count(*) FROM public.tenants)
                     + (SELECT count(*) FROM public.migrations WHERE schema_name <> 'public')
                     + (SELECT count(*) FROM pg_default_acl WHERE defaclnamespace <> 0)
                     + (SELECT count(*) FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid
                         WHERE m.roleid = 'shared_tenant'::regrole
                           AND NOT EXISTS (SELECT FROM pg_shdepend WHERE refobjid = r.oid))";
    holder
        .batch_execute(
            "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                 AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$;
             CREATE TRIGGER wait AFTER INSERT ON public.audit_log EXECUTE FUNCTION public.wait()",
        )
        .await
        .unwrap();
    // At its first statement, in the middle, and at its last. A SHARE lock lets readers through.
    for hold in [
        "LOCK TABLE public.tenants IN SHARE MODE",
        "LOCK TABLE public.migrations IN SHARE MODE",
        "SELECT pg_advisory_xact_lock(7)",
    ] {
        holder.batch_execute(&format!("BEGIN; {hold}")).await.unwrap();
        let mut child =
            start(dir.path(), &["tenant", "create", "--name", "A", "--subdomain", "acme"]);
        until_equal(&observer, waiting, 1).await;
        child.kill().unwrap();
        child.wait().unwrap();
        holder.batch_execute("ROLLBACK").await.unwrap();
        // The server notices the death when the statement ends; the next sign-up may come before.
        let again = run(dir.path(), &["tenant", "create", "--name", "A", "--subdomain", "acme"]);
        assert_eq!(again.code, 0, "{}", again.stderr);
        assert_eq!(count(&observer, "SELECT count(*) FROM public.tenants").await, 1);
        let id: String = observer
            .query_typed_one("SELECT id::text FROM public.tenants", &[])
            .await
            .unwrap()
            .get(0);
        tenantry_db::lifecycle::delete_tenant_schema(&db.admin, id.parse().unwrap(), &db.actor())
            .await
            .unwrap();
        assert_eq!(count(&observer, left).await, 0, "killed at `{hold}`");
    }
}

/// Invariant 6: killing the runner needs no repair, and an immediate second run neither applies twice
/// nor fails.
#[tokio::test]
async fn a_killed_migration_is_applied_once_by_the_next_run() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let dir = installation(&db);
    with_migration(dir.path(), "CREATE TABLE note ();");
    let (holder, observer) = (db.superuser().await, db.superuser().await);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    holder.batch_execute("BEGIN; LOCK TABLE public.migrations IN SHARE MODE").await.unwrap();
    let mut child = start(dir.path(), &["migrate", "run"]);
    until_equal(&observer, waiting, 1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    // The server still holds the tenant's row for the dead runner, which it will notice.
    let busy = run(dir.path(), &["migrate", "run"]);
    assert_eq!(busy.code, 5, "{}", busy.stderr);
    holder.batch_execute("ROLLBACK").await.unwrap();
    until_equal(&observer, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()", 0).await;
    let applied = "SELECT count(*) FROM public.migrations WHERE version = 5";
    let before = count(&observer, applied).await;
    let again = run(dir.path(), &["migrate", "run"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(again.stdout, if before == 0 { "1 applied\n" } else { "nothing to do\n" });
    assert_eq!(count(&observer, applied).await, 1);
    assert_eq!(
        count(&observer, "SELECT count(*) FROM public.tenants WHERE schema_version = 5").await,
        1
    );
    assert_eq!(count(&observer, "SELECT count(*) FROM pg_class WHERE relname = 'note'").await, 1);
}
