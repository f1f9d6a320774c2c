//! Servers that are away, slow or busy: an honest answer, soon.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::{Role, Scope};
use tenantry_testing::{TestDatabase, free_port};

use crate::service::{Service, answer, until_blocked};

fn closed(url: &str) -> String {
    format!("postgresql://{url}127.0.0.1:{}/nothing", free_port().unwrap())
}

#[tokio::test]
async fn without_pgbouncer_tenants_are_told_to_come_back() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::with(&db, &[("database.url", &closed(""))]).await;
    let token = service.token(tenant, Role::Owner);
    let user = json!({"email": "a@b.co", "name": "A", "role": "editor"});
    for found in
        [service.get(&token, "/api/users").await, service.post(&token, "/api/users", &user).await]
    {
        assert_eq!(found.problem(), (503, "database_unavailable"));
        assert_eq!(found.headers["retry-after"], "5");
        let text = found.body.to_string();
        assert!(!text.contains("127.0.0.1") && !text.contains("connect"), "{text}");
    }
    // Nothing is sent for what is wrong anyway.
    assert_eq!(service.post(&token, "/api/users", &json!({})).await.bad_fields().len(), 3);
    assert_eq!(service.get(&token, "/api/users?limit=0").await.bad_fields(), ["limit"]);
    // The platform's own answers do not take that way.
    let platform = service.platform(&[Scope::TenantsRead]);
    assert_eq!(service.get(&platform, "/api/tenants").await.page().0.len(), 1);
    assert_eq!(answer(service.request(Method::GET, "/health/live")).await.status, 200);
    let ready = answer(service.request(Method::GET, "/health/ready")).await;
    assert_eq!(ready.problem(), (503, "database_unavailable"));
    assert_eq!(ready.body["errors"][0]["field"], "pgbouncer");
    assert_eq!(ready.body["errors"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_the_database_nobody_is_let_in() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::with(&db, &[("database.direct_url", &closed("a:b@"))]).await;
    let token = service.token(tenant, Role::Owner);
    let found = service.get(&token, "/api/users").await;
    assert_eq!(found.problem(), (503, "database_unavailable"));
    let new = json!({"name": "G", "subdomain": "globex"});
    let platform = service.platform(&[Scope::TenantsWrite]);
    let found = service.post(&platform, "/api/tenants", &new).await;
    assert_eq!(found.problem(), (503, "database_unavailable"));
    let ready = answer(service.request(Method::GET, "/health/ready")).await;
    assert_eq!(ready.body["errors"][0]["field"], "database");
    assert!(!ready.body.to_string().contains("127.0.0.1"), "{ready:?}");
}

#[tokio::test]
async fn a_busy_tenant_is_told_so_and_others_are_served() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let settings = [("tiers.free.slots", "1"), ("tiers.free.slot_timeout", "50ms")];
    let service = Service::with(&db, &settings).await;
    let token = service.token(acme.id, Role::Owner);
    let superuser = db.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.users", acme.schema());
    superuser.batch_execute(&lock).await.unwrap();
    let waiting = service.request(Method::GET, "/api/users").bearer_auth(&token).send();
    let waiting = tokio::spawn(waiting);
    until_blocked(&db).await;
    let busy = service.get(&token, "/api/content").await;
    assert_eq!(busy.problem(), (429, "tenant_busy"));
    assert_eq!(busy.headers["retry-after"], "1");
    let other = service.token(globex.id, Role::Owner);
    assert_eq!(service.get(&other, "/api/users").await.status, 200);
    superuser.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert_eq!(service.get(&token, "/api/content").await.status, 200);
}

#[tokio::test]
async fn what_takes_too_long_is_ended() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.users", tenant.schema());
    superuser.batch_execute(&lock).await.unwrap();
    for key in ["tiers.free.statement_timeout", "http.request_timeout"] {
        let service = Service::with(&db, &[(key, "200ms")]).await;
        let token = service.token(tenant.id, Role::Owner);
        let found =
            tokio::time::timeout(Duration::from_secs(10), service.get(&token, "/api/users")).await;
        assert_eq!(found.unwrap().problem(), (408, "request_timeout"), "{key}");
    }
}
