//! Whatever fails or is killed while the pool is filled or one of it is taken: a tenant is whole or
//! absent, and what was ready stays ready.

use tenantry_db::lifecycle::{NewTenant, create_tenant, fill_ready_pool};
use tenantry_db::models::idempotency::IdempotentRequest;
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{AdminDb, Config, Error, ErrorKind, Installation};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use crate::provisioning::{traces, until, until_not};
use crate::ready_pool::stocked;
use crate::texts;

const WAITING: &str = "SELECT pid::text FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";
const KILL: &str = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// Makes a step fail: what arms it, and what disarms it.
fn row_step(table: &str, event: &str, when: &str) -> (String, String) {
    let arm = format!(
        "CREATE CONSTRAINT TRIGGER fail AFTER {event} ON public.{table} {when}
         FOR EACH ROW EXECUTE FUNCTION public.fail()"
    );
    (arm, format!("DROP TRIGGER fail ON public.{table}"))
}

fn ddl_step(event: &str, tag: &str) -> (String, String) {
    let arm = format!(
        "CREATE EVENT TRIGGER fail ON {event} WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.fail_ddl()"
    );
    (arm, "DROP EVENT TRIGGER fail".to_owned())
}

/// Lets statements fail, and lets them wait for the lock 7.
async fn arm(superuser: &Client) {
    superuser
        .batch_execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE 'injected'; END $$;
             CREATE FUNCTION public.fail_ddl() RETURNS event_trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE 'injected'; END $$;
             CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                 AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$;",
        )
        .await
        .unwrap();
}

/// Holds up whoever inserts a row, until the superuser rolls back.
async fn make_wait(superuser: &Client, table: &str) {
    let wait = format!(
        "CREATE TRIGGER wait AFTER INSERT ON public.{table} EXECUTE FUNCTION public.wait()"
    );
    superuser.batch_execute(&wait).await.unwrap();
    superuser.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)").await.unwrap();
}

async fn create(db: &TestDatabase, once: bool) -> Result<Tenant, Error> {
    create_by(&db.admin, db, once).await
}

async fn create_by(admin: &AdminDb, db: &TestDatabase, once: bool) -> Result<Tenant, Error> {
    let new = NewTenant::new(&db.config, "Acme", "acme", None, Default::default())?;
    let new = if once { new.once(IdempotentRequest::new("me", "key", b"acme")) } else { new };
    create_tenant(admin, &db.migrations, &new, &db.actor()).await
}

/// The pool's rows, and what a sign-up would leave.
async fn state(superuser: &Client) -> Vec<String> {
    texts(
        superuser,
        "SELECT concat_ws(' ', id, status, name, subdomain, created_at) FROM public.tenants
         UNION ALL SELECT 'audit ' || id FROM public.audit_log
         UNION ALL SELECT 'key ' || tenant_id FROM public.idempotency_keys ORDER BY 1",
    )
    .await
}

#[tokio::test]
async fn a_claim_that_fails_at_any_step_takes_nothing() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    arm(&superuser).await;
    stocked(&db, 1).await;
    let before = state(&superuser).await;
    let at_commit = "DEFERRABLE INITIALLY DEFERRED";
    let steps = [
        (row_step("tenants", "UPDATE", ""), false),
        (row_step("audit_log", "INSERT", ""), false),
        (row_step("tenants", "UPDATE", at_commit), false),
        (row_step("tenants", "UPDATE", ""), true),
        (row_step("audit_log", "INSERT", ""), true),
        (row_step("idempotency_keys", "INSERT", ""), true),
        (row_step("tenants", "UPDATE", at_commit), true),
    ];
    for ((arm, disarm), once) in steps {
        superuser.batch_execute(&arm).await.unwrap();
        let error = create(&db, once).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{arm}: {error}");
        superuser.batch_execute(&disarm).await.unwrap();
        assert_eq!(state(&superuser).await, before, "{arm}");
    }
    let id = create(&db, true).await.unwrap().id;
    assert!(before[0].contains(&id.to_string()), "it was ready all the time");
}

#[tokio::test]
async fn a_claim_whose_backend_is_killed_or_that_is_dropped_is_whole_or_absent() {
    let mut db = TestDatabase::new().await;
    let layers = db.servers().layers(db.name(), "shared");
    let layers = layers.flag("test", "migrations.lock_timeout", "500ms");
    db.config = Config::from_layers(layers).unwrap();
    db.admin = AdminDb::new(&db.config).unwrap();
    let (superuser, other) = (db.superuser().await, db.superuser().await);
    arm(&superuser).await;
    stocked(&db, 1).await;
    let before = state(&superuser).await;
    for table in ["audit_log", "idempotency_keys"] {
        make_wait(&superuser, table).await;
        let killed = {
            let create = create(&db, true);
            tokio::pin!(create);
            tokio::select! {
                created = &mut create => panic!("it was to wait: {created:?}"),
                () = until(&other, WAITING) => {}
            }
            texts(&other, KILL).await;
            create.await
        };
        assert_eq!(killed.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(state(&other).await, before, "{table}");
        tokio::select! {
            created = create(&db, true) => panic!("it was to wait: {created:?}"),
            () = until(&other, WAITING) => {}
        }
        // Dropped, but still at work in the server. Who sends it again, to another instance, is not
        // made to wait.
        let again = create_by(&AdminDb::new(&db.config).unwrap(), &db, true).await.unwrap_err();
        assert!(matches!(again, Error::IdempotencyInProgress), "{again}");
        // Others of the same name wait no longer than they must; here, for `lock_timeout`.
        until_not(&other, WAITING).await;
        let drop_wait = format!("ROLLBACK; DROP TRIGGER wait ON public.{table}");
        superuser.batch_execute(&drop_wait).await.unwrap();
        assert_eq!(state(&other).await, before, "{table}");
    }
    assert!(before[0].contains(&create(&db, true).await.unwrap().id.to_string()));
}

#[tokio::test]
async fn filling_that_fails_at_any_step_leaves_nothing() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    arm(&superuser).await;
    let wants = wants_two(&db);
    let steps = [
        row_step("tenants", "INSERT", ""),
        ddl_step("ddl_command_start", "CREATE SCHEMA"),
        ddl_step("ddl_command_end", "ALTER DEFAULT PRIVILEGES"),
        ddl_step("ddl_command_end", "CREATE TABLE"),
        ddl_step("ddl_command_end", "CREATE INDEX"),
        row_step("migrations", "INSERT", ""),
        row_step("tenants", "INSERT", "DEFERRABLE INITIALLY DEFERRED"),
    ];
    for (arm, disarm) in steps {
        superuser.batch_execute(&arm).await.unwrap();
        let error = fill_ready_pool(&wants).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{arm}: {error}");
        superuser.batch_execute(&disarm).await.unwrap();
        assert_eq!(traces(&superuser).await, Vec::<String>::new(), "{arm}");
    }
    // Killed at the second tenant's last statement.
    make_wait(&superuser, "migrations").await;
    let other = db.superuser().await;
    let killed = {
        let fill = fill_ready_pool(&wants);
        tokio::pin!(fill);
        tokio::select! {
            filled = &mut fill => panic!("it was to wait: {filled:?}"),
            () = until(&other, WAITING) => {}
        }
        // Others do not wait for their turn.
        assert_eq!(fill_ready_pool(&wants_two(&db)).await.unwrap(), 0);
        texts(&other, KILL).await;
        fill.await
    };
    assert_eq!(killed.unwrap_err().kind(), ErrorKind::Unavailable);
    superuser.batch_execute("ROLLBACK; DROP TRIGGER wait ON public.migrations").await.unwrap();
    assert_eq!(traces(&superuser).await, Vec::<String>::new());
    assert_eq!(fill_ready_pool(&wants).await.unwrap(), 2);
}

fn wants_two(db: &TestDatabase) -> Installation {
    crate::ready_pool::installation(db, 2, None)
}
