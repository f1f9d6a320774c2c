//! Servers that are away, slow or busy: an honest answer, soon.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::{Role, Scope};
use tenantry_testing::{Proxy, TestDatabase, Wire, free_port};

use crate::service::{Service, answer, blocked, direct_url, until, until_blocked};

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
    // The check takes no tenant's slot: it sees neither too little nor too much.
    assert_eq!(answer(service.request(Method::GET, "/health/ready")).await.status, 200);
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
        let found = found.unwrap();
        assert_eq!(found.problem(), (503, "database_unavailable"), "{key}");
        assert_eq!(found.headers["retry-after"], "5");
    }
}

#[tokio::test]
async fn after_an_outage_it_serves_again_by_itself() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let pooled = Proxy::start(db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
    let direct = Proxy::start(db.servers().postgres_port, Duration::ZERO).await.unwrap();
    let url = format!("postgresql://127.0.0.1:{}/{}", pooled.port(), db.name());
    let settings =
        [("database.url", url.as_str()), ("database.direct_url", &direct_url(&db, direct.port()))];
    let service = Service::with(&db, &settings).await;
    let own = service.token(tenant, Role::Owner);
    let platform = service.platform(&[Scope::TenantsRead]);
    for (proxy, token, path) in
        [(&pooled, &own, "/api/users"), (&direct, &platform, "/api/tenants")]
    {
        assert_eq!(service.get(token, path).await.status, 200);
        proxy.set(Wire::Cut);
        for _ in 0..3 {
            let found = service.get(token, path).await;
            assert_eq!(found.problem(), (503, "database_unavailable"), "{path}");
            assert_eq!(found.headers["retry-after"], "5");
        }
        let ready = async || answer(service.request(Method::GET, "/health/ready")).await.status;
        until(async || ready().await == 503).await;
        proxy.set(Wire::Open);
        assert_eq!(service.get(token, path).await.status, 200, "{path}");
        until(async || ready().await == 200).await;
    }
}

#[tokio::test]
async fn a_lane_without_a_free_connection_is_unavailable_for_a_moment() {
    let db = TestDatabase::new().await;
    let settings = [
        ("lanes.count", "1"),
        ("lanes.pool_size", "2"),
        ("tiers.free.slots", "1"),
        ("tiers.pro.slots", "1"),
        ("tiers.enterprise.slots", "1"),
        ("database.acquire_timeout", "100ms"),
    ];
    let superuser = db.superuser().await;
    let mut tenants = Vec::new();
    for name in ["a", "b", "c"] {
        tenants.push(db.tenant(name).await);
        let schema = tenants.last().unwrap().schema();
        let move_to_0 = format!(
            "UPDATE public.tenants SET lane = 0 WHERE subdomain = '{name}';
             GRANT {schema} TO shared_lane_00"
        );
        superuser.batch_execute(&move_to_0).await.unwrap();
    }
    let service = Service::with(&db, &settings).await;
    let lock =
        |i: usize| format!("LOCK TABLE {}.users IN ACCESS EXCLUSIVE MODE", tenants[i].schema());
    superuser.batch_execute(&format!("BEGIN; {}; {}", lock(0), lock(1))).await.unwrap();
    let get = |i: usize| {
        let token = service.token(tenants[i].id, Role::Owner);
        service.request(Method::GET, "/api/users").bearer_auth(token)
    };
    let held = [tokio::spawn(answer(get(0))), tokio::spawn(answer(get(1)))];
    let watcher = db.superuser().await;
    until(async || blocked(&watcher).await == 2).await;
    let found = answer(get(2)).await;
    assert_eq!(found.problem(), (503, "database_unavailable"));
    assert_eq!(found.headers["retry-after"], "5");
    superuser.batch_execute("ROLLBACK").await.unwrap();
    for held in held {
        assert_eq!(held.await.unwrap().status, 200);
    }
    assert_eq!(answer(get(2)).await.status, 200);
}
