//! Deleting so that it can be undone, undoing it, and the hold.

use std::sync::Arc;
use std::time::Duration;

use tenantry_db::lifecycle::{
    self, Authority, Deletion, ErasureError, delete_tenant, hold_tenant, purge_tenant,
    restore_tenant, resume_tenant, suspend_tenant,
};
use tenantry_db::models::tenants::{Status, Tenant};
use tenantry_db::{Error, ErrorKind, TenantDb, TenantId};
use tenantry_testing::TestDatabase;
use tokio_postgres::types::Type;

use crate::texts;

pub(crate) async fn delete(db: &TestDatabase, tenant: &Tenant) -> Tenant {
    try_delete(db, tenant.id, tenant.subdomain.as_deref(), None).await.unwrap()
}

pub(crate) async fn try_delete(
    db: &TestDatabase,
    tenant: TenantId,
    confirm: Option<&str>,
    retention: Option<Duration>,
) -> Result<Tenant, Error> {
    let how = Deletion { confirm, retention };
    delete_tenant(&db.admin, &db.config, tenant, how, &db.actor()).await
}

async fn opened(db: &TestDatabase, tenant: TenantId) -> TenantDb {
    let installation = db.installation();
    let entry = installation.directory().find(tenant).await.unwrap().unwrap();
    installation.tenant_db(Arc::clone(&entry)).unwrap()
}

fn days(tenant: &Tenant) -> i64 {
    let span = tenant.purge_after.unwrap().duration_since(tenant.deleted_at.unwrap());
    span.as_hours() / 24
}

const ADD: &str = "INSERT INTO users (email, name, role) VALUES ($1, 'A', 'member')";

#[tokio::test]
async fn nothing_that_was_bound_commits_after_the_answer() {
    let mut db = TestDatabase::new().await;
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "lanes.settle_timeout", "200ms");
    db.config = tenantry_db::Config::from_layers(layers).unwrap();
    db.admin = tenantry_db::AdminDb::new(&db.config).unwrap();
    let acme = db.tenant("acme").await;
    let tenant = opened(&db, acme.id).await;
    let mut bound = tenant.begin().await.unwrap();
    bound.execute(ADD, &[(&"a@b.co", Type::TEXT)]).await.unwrap();
    let deleted = delete(&db, &acme).await;
    assert_eq!((deleted.status, days(&deleted)), (Status::Deleted, 30));
    let refused = bound.commit().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    // What was cached elsewhere is refused by the database.
    let refused = tenant.query("SELECT 1", &[]).await.unwrap_err();
    assert!(
        matches!(refused, Error::TenantNotServed { status: Status::Deleted, .. }),
        "{refused:?}"
    );
    let lane = db.lane_direct(acme.lane).await;
    let bind = format!("SET ROLE {}", acme.schema());
    assert_eq!(crate::refusal(&lane, &bind).await.code(), "42501");
    restore_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    let users = tenant.query("SELECT email FROM users", &[]).await.unwrap();
    assert!(users.is_empty(), "what did not commit is not there");
}

#[tokio::test]
async fn delete_restore_and_delete_again() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let tenant = opened(&db, acme.id).await;
    tenant.execute(ADD, &[(&"a@b.co", Type::TEXT)]).await.unwrap();
    let deleted = delete(&db, &acme).await;
    // The same answer, and no second record.
    let again = delete(&db, &acme).await;
    assert_eq!((again.deleted_at, again.purge_after), (deleted.deleted_at, deleted.purge_after));
    let taken = db.create("acme").await.unwrap_err();
    assert!(matches!(taken, Error::SubdomainTaken(_)), "{taken}");
    for _ in 0..2 {
        let restored = restore_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
        assert_eq!(
            (restored.status, restored.deleted_at, restored.purge_after),
            (Status::Active, None, None)
        );
    }
    assert_eq!(tenant.query("SELECT email FROM users", &[]).await.unwrap().len(), 1);
    // Another retention counts from the deletion.
    delete(&db, &acme).await;
    let week = Some(Duration::from_secs(7 * 86_400));
    assert_eq!(days(&try_delete(&db, acme.id, Some("acme"), week).await.unwrap()), 7);
    let actions = "SELECT action FROM public.audit_log ORDER BY id";
    assert_eq!(
        texts(&db.superuser().await, actions).await,
        ["tenant.created", "tenant.deleted", "tenant.restored", "tenant.deleted", "tenant.deleted"]
    );
}

#[tokio::test]
async fn one_that_was_suspended_is_suspended_again() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    delete(&db, &acme).await;
    let restored = restore_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    assert_eq!(restored.status, Status::Suspended);
    let lane = db.lane_direct(acme.lane).await;
    let bind = format!("SET ROLE {}", acme.schema());
    assert_eq!(crate::refusal(&lane, &bind).await.code(), "42501");
    resume_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    lane.batch_execute(&bind).await.unwrap();
}

#[tokio::test]
async fn the_retention_is_the_requests_the_tiers_or_the_common_one() {
    let mut db = TestDatabase::new().await;
    let layers = db
        .servers()
        .layers(db.name(), "shared")
        .flag("test", "tenants.retention", "10days")
        .flag("test", "tiers.pro.retention", "0s");
    db.config = tenantry_db::Config::from_layers(layers).unwrap();
    for (name, tier, retention, expected) in [
        ("a", "free", None, 10),
        ("b", "pro", None, 0),
        ("c", "pro", Some(Duration::from_secs(86_400)), 1),
        ("d", "free", Some(Duration::ZERO), 0),
    ] {
        let new =
            lifecycle::NewTenant::new(&db.config, name, name, Some(tier), serde_json::Map::new())
                .unwrap();
        let tenant =
            lifecycle::create_tenant(&db.admin, &db.migrations, &new, &db.actor()).await.unwrap();
        let deleted = try_delete(&db, tenant.id, Some(name), retention).await.unwrap();
        assert_eq!(days(&deleted), expected, "{name}");
    }
}

#[tokio::test]
async fn without_its_subdomain_nothing_happens() {
    let db = TestDatabase::new().await;
    let (acme, _) = (db.tenant("acme").await, db.tenant("globex").await);
    for confirm in [None, Some(""), Some("globex"), Some("ACME"), Some("acme ")] {
        for error in [try_delete(&db, acme.id, confirm, None).await.unwrap_err(), {
            let superuser = db.superuser().await;
            let set = "UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now() WHERE subdomain = 'acme'";
            superuser.batch_execute(set).await.unwrap();
            let authority = Authority::Confirmed { confirm, now: true };
            let purged =
                purge_tenant(&db.admin, &db.ledger(), acme.id, authority, &db.actor(), |_| {})
                    .await;
            restore_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
            purged.unwrap_err()
        }] {
            assert!(
                matches!(error, Error::Erasure(ErasureError::ConfirmationRequired(_))),
                "{confirm:?}: {error}"
            );
        }
    }
    assert_eq!(db.ledger().entries().unwrap(), []);
}

#[tokio::test]
async fn a_hold_stands_against_purging_until_it_is_lifted() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    for _ in 0..2 {
        assert!(hold_tenant(&db.admin, acme.id, true, &db.actor()).await.unwrap().legal_hold);
    }
    try_delete(&db, acme.id, Some("acme"), Some(Duration::ZERO)).await.unwrap();
    let purge = async || {
        let authority = Authority::Confirmed { confirm: Some("acme"), now: true };
        let (ledger, actor) = (db.ledger(), db.actor());
        purge_tenant(&db.admin, &ledger, acme.id, authority, &actor, |_| {}).await
    };
    let held = purge().await.unwrap_err();
    assert!(matches!(held, Error::LegalHold(_)), "{held}");
    assert_eq!(db.ledger().entries().unwrap(), [], "nothing was announced");
    for _ in 0..2 {
        assert!(!hold_tenant(&db.admin, acme.id, false, &db.actor()).await.unwrap().legal_hold);
    }
    purge().await.unwrap();
}

/// Every step from every status. What is missing here is refused as an invalid state.
#[tokio::test]
async fn every_step_that_does_not_fit_is_refused() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    const STATUSES: [(&str, &str); 6] = [
        ("ready", "subdomain = NULL, name = ''"),
        ("active", "suspended_at = NULL"),
        ("suspended", "suspended_at = now()"),
        ("deleted", "deleted_at = now(), purge_after = now()"),
        ("purging", "deleted_at = now(), purge_after = now()"),
        ("purged", "purged_at = now(), name = '', subdomain = NULL, settings = '{}'"),
    ];
    // In the order of STATUSES: what each leads to.
    const STEPS: [(&str, [Option<&str>; 6]); 7] = [
        ("suspend", [None, Some("suspended"), Some("suspended"), None, None, None]),
        ("resume", [None, Some("active"), Some("active"), None, None, None]),
        ("delete", [None, Some("deleted"), Some("deleted"), Some("deleted"), None, None]),
        ("restore", [None, Some("active"), Some("suspended"), Some("active"), None, None]),
        ("hold", [None, Some("active"), Some("suspended"), Some("deleted"), None, None]),
        ("unhold", [None, Some("active"), Some("suspended"), Some("deleted"), None, None]),
        ("purge", [None, None, None, Some("purged"), Some("purged"), None]),
    ];
    for (n, (status, with)) in STATUSES.into_iter().enumerate() {
        for (step, leads_to) in STEPS {
            let name = format!("{step}-{status}");
            let tenant = db.tenant(&name).await;
            let set = format!(
                "UPDATE public.tenants SET status = '{status}', {with} WHERE id = '{}'",
                tenant.id
            );
            superuser.batch_execute(&set).await.unwrap();
            let (admin, id, actor) = (&db.admin, tenant.id, db.actor());
            let confirm = Some(name.as_str());
            let done = match step {
                "suspend" => suspend_tenant(admin, id, &actor).await.map(|_| ()),
                "resume" => resume_tenant(admin, id, &actor).await.map(|_| ()),
                "delete" => try_delete(&db, id, confirm, None).await.map(|_| ()),
                "restore" => restore_tenant(admin, id, &actor).await.map(|_| ()),
                "hold" => hold_tenant(admin, id, true, &actor).await.map(|_| ()),
                "unhold" => hold_tenant(admin, id, false, &actor).await.map(|_| ()),
                _ => {
                    let authority = Authority::Confirmed { confirm, now: true };
                    let ledger = db.ledger();
                    purge_tenant(admin, &ledger, id, authority, &actor, |_| {}).await.map(|_| ())
                }
            };
            let now = format!("SELECT status FROM public.tenants WHERE id = '{id}'");
            let now = texts(&superuser, &now).await.remove(0);
            match (leads_to[n], done) {
                (Some(expected), Ok(())) => assert_eq!(now, expected, "{name}"),
                // Nobody's yet, so nobody may know of it.
                (None, Err(Error::TenantNotFound(_))) if status == "ready" => {}
                (None, Err(Error::InvalidState { status: found, .. })) => {
                    assert_eq!((found.as_str(), now.as_str()), (status, status), "{name}");
                }
                (expected, done) => panic!("{name}: {expected:?}, {done:?}"),
            }
        }
    }
    let nobody = TenantId::random();
    for error in [
        try_delete(&db, nobody, None, None).await.unwrap_err(),
        restore_tenant(&db.admin, nobody, &db.actor()).await.unwrap_err(),
        hold_tenant(&db.admin, nobody, true, &db.actor()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
