//! Invariant 4: a suspension takes effect in the database, in the transaction that records it.

use std::sync::Arc;
use std::time::Duration;

use tenantry_db::lifecycle::{resume_tenant, suspend_tenant, suspend_tenant_now};
use tenantry_db::models::tenants::Status;
use tenantry_db::{Config, Error, Installation, LaneId, TenantDb, TenantId};
use tenantry_testing::TestDatabase;
use tokio_postgres::types::Type;

use crate::texts;

/// A process that has the tenant cached, and never hears of a change.
async fn stale(db: &TestDatabase, id: TenantId) -> (Installation, TenantDb) {
    let installation = db.installation();
    let entry = installation.directory().find(id).await.unwrap().unwrap();
    let tenant = installation.tenant_db(Arc::clone(&entry)).unwrap();
    tenant.query("SELECT 1", &[]).await.unwrap();
    (installation, tenant)
}

fn is_suspended(error: &Error) -> bool {
    matches!(error, Error::TenantNotServed { status: Status::Suspended, .. })
}

#[tokio::test]
async fn a_process_with_a_stale_cache_is_refused_by_the_database() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let (installation, tenant) = stale(&db, acme.id).await;
    let (_other, begun) = stale(&db, acme.id).await;
    let mut tx = begun.begin().await.unwrap();
    let row = suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    assert_eq!(row.status, Status::Suspended);
    // The cached handle still says «active»; PostgreSQL says no, and the directory then says why.
    let single = tenant.query("SELECT 1", &[]).await.unwrap_err();
    assert!(is_suspended(&single), "{single}");
    assert!(is_suspended(&tx.query("SELECT 1", &[]).await.unwrap_err()));
    let known = installation.directory().find(acme.id).await.unwrap().unwrap();
    assert_eq!(known.status, Status::Suspended, "it was read anew");
    let lane = db.lane_direct(acme.lane).await;
    let bind = format!("SET ROLE {}", acme.schema());
    assert_eq!(crate::refusal(&lane, &bind).await.code(), "42501");

    assert_eq!(
        resume_tenant(&db.admin, acme.id, &db.actor()).await.unwrap().status,
        Status::Active
    );
    tenant.query("SELECT 1", &[]).await.unwrap();
    lane.batch_execute(&bind).await.unwrap();
}

#[tokio::test]
async fn both_steps_can_be_repeated_and_are_recorded_once() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    for _ in 0..2 {
        suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    }
    // Somebody let the lane in again by hand: suspending once more mends it.
    let superuser = db.superuser().await;
    let lane = format!("shared_lane_{}", acme.lane);
    superuser.batch_execute(&format!("GRANT {} TO {lane}", acme.schema())).await.unwrap();
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    let member = format!("SELECT pg_has_role('{lane}', '{}', 'MEMBER')::text", acme.schema());
    assert_eq!(texts(&superuser, &member).await, ["false"]);
    for _ in 0..2 {
        resume_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    }
    let actions = "SELECT action FROM public.audit_log ORDER BY id";
    assert_eq!(
        texts(&superuser, actions).await,
        ["tenant.created", "tenant.suspended", "tenant.resumed"]
    );
    let nobody = suspend_tenant(&db.admin, TenantId::random(), &db.actor()).await.unwrap_err();
    assert!(matches!(nobody, Error::TenantNotFound(_)));
    superuser
        .batch_execute(
            "UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now()",
        )
        .await
        .unwrap();
    for error in [
        suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap_err(),
        resume_tenant(&db.admin, acme.id, &db.actor()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::InvalidState { status: Status::Deleted, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_planted_grant_makes_it_fail_and_nothing_is_changed() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let schema = acme.schema();
    let superuser = db.superuser().await;
    let between = format!("between_{}", db.name());
    // By way of a role in between, which no REVOKE of ours reaches.
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {between}; GRANT {schema} TO {between}; GRANT {between} TO shared_lane_09"
        ))
        .await
        .unwrap();
    let error = suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap_err();
    match &error {
        Error::StillReachable { members, .. } => assert_eq!(members, &["shared_lane_09"]),
        _ => panic!("{error}"),
    }
    let state = "SELECT status FROM public.tenants
                 UNION ALL SELECT action FROM public.audit_log ORDER BY 1";
    assert_eq!(texts(&superuser, state).await, ["active", "tenant.created"]);
    let (_installation, tenant) = stale(&db, acme.id).await;
    tenant.query("SELECT 1", &[]).await.unwrap();
    superuser.batch_execute(&format!("REVOKE {between} FROM shared_lane_09")).await.unwrap();
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    superuser
        .batch_execute(&format!("REVOKE {schema} FROM {between}; DROP ROLE {between}"))
        .await
        .unwrap();
}

const ADD: &str = "INSERT INTO users (email, name, role) VALUES ($1, 'A', 'member')";

#[tokio::test]
async fn what_was_already_bound_may_commit_but_not_after_suspend_now() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "lanes.settle_timeout", "200ms");
    let config = Config::from_layers(layers).unwrap();
    let admin = tenantry_db::AdminDb::new(&config).unwrap();
    let (_one, tenant) = stale(&db, acme.id).await;
    let count = format!("SELECT count(*)::text FROM {}.users", acme.schema());
    let superuser = db.superuser().await;

    let mut bound = tenant.begin().await.unwrap();
    bound.execute(ADD, &[(&"a@b.co", Type::TEXT)]).await.unwrap();
    suspend_tenant(&admin, acme.id, &db.actor()).await.unwrap();
    bound.execute(ADD, &[(&"b@b.co", Type::TEXT)]).await.unwrap();
    bound.commit().await.unwrap();
    assert_eq!(texts(&superuser, &count).await, ["2"], "PostgreSQL lets a bound one go on");

    resume_tenant(&admin, acme.id, &db.actor()).await.unwrap();
    let mut bound = tenant.begin().await.unwrap();
    bound.execute(ADD, &[(&"c@b.co", Type::TEXT)]).await.unwrap();
    let (row, ended) = suspend_tenant_now(&admin, acme.id, &db.actor()).await.unwrap();
    assert_eq!((row.status, ended), (Status::Suspended, 1));
    let refused = bound.commit().await.unwrap_err();
    assert_eq!(refused.kind(), tenantry_db::ErrorKind::Unavailable, "{refused:?}");
    assert_eq!(texts(&superuser, &count).await, ["2"]);
    // Nobody is left: this does not wait.
    assert_eq!(suspend_tenant_now(&admin, acme.id, &db.actor()).await.unwrap().1, 0);
}

#[tokio::test]
async fn suspend_now_waits_for_what_ends_by_itself() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let (_one, tenant) = stale(&db, acme.id).await;
    let mut bound = tenant.begin().await.unwrap();
    bound.execute(ADD, &[(&"a@b.co", Type::TEXT)]).await.unwrap();
    let actor = db.actor();
    let suspended = suspend_tenant_now(&db.admin, acme.id, &actor);
    let commits = async {
        let observer = db.reader_client().await;
        let status = "SELECT status FROM public.tenants";
        while texts(&observer, status).await != ["suspended"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bound.commit().await
    };
    let (suspended, committed) = tokio::join!(suspended, commits);
    committed.unwrap();
    assert_eq!(suspended.unwrap().1, 0, "nothing had to be ended");
}

#[tokio::test]
async fn a_busy_row_is_told_of_and_nobody_waits_for_ever() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "migrations.lock_timeout", "100ms");
    let admin = tenantry_db::AdminDb::new(&Config::from_layers(layers).unwrap()).unwrap();
    let holder = db.superuser().await;
    holder.batch_execute("BEGIN; SELECT FROM public.tenants FOR UPDATE").await.unwrap();
    let busy = suspend_tenant(&admin, acme.id, &db.actor()).await.unwrap_err();
    assert!(matches!(busy, Error::Busy(_)), "{busy}");
    assert_eq!(acme.lane, LaneId::new(acme.lane.number()).unwrap());
}
