//! `kill -9` in the middle of a sign-up.

use std::process::{Child, Stdio};

use tenantry_db::TenantRef;
use tenantry_db::models::tenants::get_tenant;
use tenantry_testing::TestDatabase;

use crate::program::{count, installation, run, tenantry, until_equal};

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
                     + (SELECT count(*) FROM public.tenants WHERE status <> 'purged')
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
        let living = "SELECT count(*) FROM public.tenants WHERE status <> 'purged'";
        assert_eq!(count(&observer, living).await, 1);
        let acme = TenantRef::Subdomain("acme".parse().unwrap());
        db.purge(&get_tenant(&db.reader, &acme).await.unwrap()).await;
        assert_eq!(count(&observer, left).await, 0, "killed at `{hold}`");
    }
}
