//! Which tenant a request is for: a verified token decides, and nobody reaches another's rows.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::{Claims, Role, Scope};
use tenantry_db::TenantId;
use tenantry_testing::{Proxy, TestDatabase};

use crate::service::{Answer, Service, answer, direct_url};

async fn named(service: &Service, token: &str, tenants: &[&str]) -> Answer {
    let mut request = service.request(Method::GET, "/api/users").bearer_auth(token);
    for tenant in tenants {
        request = request.header("X-Tenant-ID", *tenant);
    }
    answer(request).await
}

#[tokio::test]
async fn the_token_decides_and_disagreement_is_refused() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await.id, db.tenant("globex").await.id);
    let service = Service::on(&db).await;
    let (own, other) = (acme.to_string(), globex.to_string());
    let token = service.token(acme, Role::Owner);
    assert_eq!(named(&service, &token, &[]).await.status, 200);
    assert_eq!(named(&service, &token, &[&own]).await.status, 200);
    // Even a token with the scope stays in its tenant.
    let both = service.issue(&Claims {
        sub: "u".to_owned(),
        tenant_id: Some(acme),
        role: Some(Role::Owner),
        scope: Scope::ALL.into_iter().collect(),
    });
    for token in [&token, &both] {
        for tenants in [&[other.as_str()][..], &["acme"], &[""], &[&own, &other], &[&other, &own]] {
            let refused = named(&service, token, tenants).await;
            assert_eq!(refused.problem(), (403, "tenant_mismatch"), "{tenants:?}");
        }
    }
}

#[tokio::test]
async fn the_platform_names_a_tenant_and_needs_the_scope() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await.id, db.tenant("globex").await.id);
    let service = Service::on(&db).await;
    let (one, other) = (acme.to_string(), globex.to_string());
    let act = service.platform(&[Scope::TenantsAct]);
    let read = service.platform(&[Scope::TenantsRead]);
    let body = json!({"email": "a@acme.example", "name": "A", "role": "editor"});
    let post = service.request(Method::POST, "/api/users").bearer_auth(&act);
    assert_eq!(answer(post.header("X-Tenant-ID", &one).json(&body)).await.status, 201);
    assert_eq!(named(&service, &act, &[&one]).await.page().0.len(), 1);
    assert_eq!(named(&service, &act, &[&other]).await.page().0.len(), 0);
    assert_eq!(named(&service, &act, &[]).await.problem(), (403, "tenant_required"));
    assert_eq!(named(&service, &act, &[&one, &other]).await.problem(), (403, "tenant_mismatch"));
    assert_eq!(named(&service, &act, &["acme"]).await.problem(), (404, "tenant_not_found"));
    let nobody = TenantId::random().to_string();
    assert_eq!(named(&service, &act, &[&nobody]).await.problem(), (404, "tenant_not_found"));
    assert_eq!(named(&service, &read, &[&one]).await.problem(), (403, "insufficient_scope"));
    assert_eq!(named(&service, &read, &[]).await.problem(), (403, "tenant_required"));
}

/// A request for a tenant's users with the host and further headers.
async fn at(service: &Service, token: &str, host: &str, more: &[(&str, &str)]) -> Answer {
    let mut request = service.request(Method::GET, "/api/users").bearer_auth(token);
    request = request.header("Host", host);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    answer(request).await
}

const MISMATCH: (u16, &str) = (403, "tenant_mismatch");
const REQUIRED: (u16, &str) = (403, "tenant_required");
const UNKNOWN: (u16, &str) = (404, "tenant_not_found");

#[tokio::test]
async fn the_host_names_a_tenant_for_the_platform_and_binds_a_tenants_own_token() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await.id, db.tenant("globex").await.id);
    let service = Service::with(&db, &[("http.base_domain", "example.com")]).await;
    let (one, other) = (acme.to_string(), globex.to_string());
    let own = service.token(acme, Role::Owner);
    let act = service.platform(&[Scope::TenantsAct]);
    let read = service.platform(&[Scope::TenantsRead]);
    let user = json!({"email": "a@acme.example", "name": "A", "role": "editor"});
    assert_eq!(service.post(&own, "/api/users", &user).await.status, 201);
    for (host, rows) in [("acme.example.com", 1), ("GLOBEX.example.com.:80", 0)] {
        assert_eq!(at(&service, &act, host, &[]).await.page().0.len(), rows, "{host}");
    }
    let x_other = [("X-Tenant-ID", other.as_str())];
    let x_one = [("X-Tenant-ID", one.as_str())];
    let x_no_id = [("X-Tenant-ID", "acme")];
    assert_eq!(at(&service, &act, "acme.example.com", &x_one).await.status, 200);
    for (host, more, expected) in [
        ("acme.example.com", &x_other[..], MISMATCH),
        ("acme.example.com", &x_no_id, MISMATCH),
        ("nobody.example.com", &[], UNKNOWN),
        ("nobody.example.com", &x_one, UNKNOWN),
        ("example.com", &[], REQUIRED),
        ("www.example.com", &[], REQUIRED),
        ("a.acme.example.com", &[], REQUIRED),
        ("acme.example.org", &[], REQUIRED),
        ("127.0.0.1", &[], REQUIRED),
        ("[::1]:80", &[], REQUIRED),
    ] {
        assert_eq!(at(&service, &act, host, more).await.problem(), expected, "{host} {more:?}");
    }
    assert_eq!(
        at(&service, &read, "acme.example.com", &[]).await.problem(),
        (403, "insufficient_scope")
    );
    for host in ["acme.example.com", "example.com", "www.example.com", "elsewhere.org"] {
        assert_eq!(at(&service, &own, host, &[]).await.status, 200, "{host}");
    }
    for host in ["globex.example.com", "nobody.example.com"] {
        assert_eq!(at(&service, &own, host, &[]).await.problem(), MISMATCH, "{host}");
    }
}

#[tokio::test]
async fn a_forwarded_host_counts_only_from_a_configured_proxy() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    db.tenant("globex").await;
    let forwarded = [("X-Forwarded-Host", "acme.example.com")];
    for (proxies, trusted) in [
        ("10.0.0.0/8", false),
        ("127.0.0.0/8,10.0.0.1", true),
        ("::ffff:127.0.0.1", true),
        ("::1", false),
    ] {
        let settings = [("http.base_domain", "example.com"), ("http.trusted_proxies", proxies)];
        let service = Service::with(&db, &settings).await;
        let act = service.platform(&[Scope::TenantsAct]);
        let found = at(&service, &act, "proxy.internal", &forwarded).await;
        if trusted {
            assert_eq!(found.status, 200, "{proxies}");
        } else {
            assert_eq!(found.problem(), REQUIRED, "{proxies}");
        }
        let two = [forwarded[0], ("X-Forwarded-Host", "globex.example.com")];
        let found = at(&service, &act, "proxy.internal", &two).await;
        let expected = if trusted { MISMATCH } else { REQUIRED };
        assert_eq!(found.problem(), expected, "{proxies}");
    }
}

#[tokio::test]
async fn hosts_that_nobody_has_cost_no_query_of_a_tenants_token() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await.id;
    let direct = Proxy::start(db.servers().postgres_port, Duration::ZERO).await.unwrap();
    let url = direct_url(&db, direct.port());
    let settings = [("http.base_domain", "example.com"), ("database.direct_url", url.as_str())];
    let service = Service::with(&db, &settings).await;
    let own = service.token(acme, Role::Owner);
    assert_eq!(service.get(&own, "/api/users").await.status, 200);
    let before = direct.requests();
    for n in 0..100 {
        let host = format!("n{n}.example.com");
        assert_eq!(at(&service, &own, &host, &[]).await.problem(), MISMATCH);
    }
    // The service itself says a word there now and then.
    assert!(direct.requests() - before < 20, "{}", direct.requests() - before);
}

#[tokio::test]
async fn a_tenant_that_is_not_active_is_not_served() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let service = Service::on(&db).await;
    let deleted = "deleted_at = now(), purge_after = now() + interval '30 days'";
    for (name, change, expected) in [
        ("a", "status = 'suspended', suspended_at = now()".to_owned(), (403, "tenant_suspended")),
        ("b", format!("status = 'deleted', {deleted}"), (410, "tenant_deleted")),
        ("c", format!("status = 'purging', {deleted}"), (410, "tenant_deleted")),
        (
            "d",
            "status = 'purged', purged_at = now(), name = '', subdomain = NULL, settings = '{}'"
                .to_owned(),
            (410, "tenant_deleted"),
        ),
        (
            "e",
            "status = 'ready', name = '', subdomain = NULL".to_owned(),
            (404, "tenant_not_found"),
        ),
    ] {
        let id = db.tenant(name).await.id;
        let update = format!("UPDATE public.tenants SET {change} WHERE id = '{id}'");
        superuser.batch_execute(&update).await.unwrap();
        let token = service.token(id, Role::Owner);
        assert_eq!(service.get(&token, "/api/users").await.problem(), expected, "{name}");
        let own = service.get(&token, &format!("/api/tenants/{id}")).await;
        assert_eq!(own.problem(), expected, "{name}");
    }
    let nobody = service.token(TenantId::random(), Role::Owner);
    assert_eq!(service.get(&nobody, "/api/users").await.problem(), (404, "tenant_not_found"));
}

#[tokio::test]
async fn what_another_tenant_owns_is_not_there() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await.id, db.tenant("globex").await.id);
    let service = Service::on(&db).await;
    let (acme_token, globex_token) =
        (service.token(acme, Role::Owner), service.token(globex, Role::Owner));
    let user = json!({"email": "a@acme.example", "name": "A", "role": "editor"});
    let user = service.post(&acme_token, "/api/users", &user).await;
    let piece = json!({"title": "T", "author_id": user.id()});
    let piece = service.post(&acme_token, "/api/content", &piece).await;
    for path in [format!("/api/users/{}", user.id()), format!("/api/content/{}", piece.id())] {
        let field = if path.contains("users") { "name" } else { "title" };
        let change = json!({field: "X"});
        assert_eq!(service.get(&globex_token, &path).await.problem(), (404, "not_found"));
        assert_eq!(
            service.patch(&globex_token, &path, &change).await.problem(),
            (404, "not_found")
        );
        assert_eq!(service.delete(&globex_token, &path).await.problem(), (404, "not_found"));
        assert_eq!(service.get(&acme_token, &path).await.status, 200);
    }
    // Nor can it be referred to.
    let foreign = json!({"title": "T", "author_id": user.id()});
    let refused = service.post(&globex_token, "/api/content", &foreign).await;
    assert_eq!(refused.bad_fields(), ["author_id"]);
    for path in ["/api/users", "/api/content"] {
        assert_eq!(service.get(&globex_token, path).await.page().0.len(), 0);
        assert_eq!(service.get(&acme_token, path).await.page().0.len(), 1);
    }
}
