//! `PATCH /api/tenants/{id}`.

use reqwest::Method;
use serde_json::{Value, json};
use tenantry_api::auth::{Role, Scope};
use tenantry_db::TenantId;
use tenantry_testing::TestDatabase;

use crate::service::{Service, answer};

#[tokio::test]
async fn what_is_named_changes_and_is_served_at_once() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    db.tenant("globex").await;
    let service = Service::with(&db, &[("http.base_domain", "example.com")]).await;
    let platform = service.platform(&[Scope::TenantsWrite, Scope::TenantsAct]);
    let path = format!("/api/tenants/{}", acme.id);
    let by_host = async |host: &str| {
        let request = service.request(Method::GET, "/api/users").bearer_auth(&platform);
        answer(request.header("Host", host)).await.status.as_u16()
    };
    assert_eq!(by_host("acme.example.com").await, 200);
    assert_eq!(by_host("next.example.com").await, 404);
    let all = json!({"name": "Next", "subdomain": "next", "tier": "pro", "settings": {"a": 1}});
    let changed = service.patch(&platform, &path, &all).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    for (field, value) in all.as_object().unwrap() {
        assert_eq!(&changed.body[field], value);
    }
    assert_eq!(by_host("next.example.com").await, 200);
    assert_eq!(by_host("acme.example.com").await, 404);
    let owner = service.token(acme.id, Role::Owner);
    assert_eq!(service.get(&owner, &path).await.body, changed.body);
    // Settings are replaced as a whole; what is not named stays.
    let changed = service.patch(&platform, &path, &json!({"settings": {"b": 2}})).await;
    assert_eq!(changed.body["settings"], json!({"b": 2}));
    assert_eq!(changed.body["name"], "Next");
    let taken = service.patch(&platform, &path, &json!({"subdomain": "globex"})).await;
    assert_eq!(taken.problem(), (409, "subdomain_taken"));
    assert!(!taken.body.to_string().contains("globex"));
    let nobody = format!("/api/tenants/{}", TenantId::random());
    let nobody = service.patch(&platform, &nobody, &json!({"name": "x"})).await;
    assert_eq!(nobody.problem(), (404, "tenant_not_found"));
    let superuser = db.superuser().await;
    for status in [
        "status = 'deleted', deleted_at = now(), purge_after = now()",
        "status = 'purging'",
        "status = 'purged', purged_at = now(), name = '', subdomain = NULL, settings = '{}'",
    ] {
        let update = format!("UPDATE public.tenants SET {status} WHERE id = '{}'", acme.id);
        superuser.batch_execute(&update).await.unwrap();
        let refused = service.patch(&platform, &path, &json!({"name": "x"})).await;
        assert_eq!(refused.problem(), (409, "invalid_state"));
    }
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let db = TestDatabase::new().await;
    let path = format!("/api/tenants/{}", db.tenant("acme").await.id);
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite, Scope::TenantsRead]);
    let before = service.get(&platform, &path).await.body;
    let patch = async |body: Value| service.patch(&platform, &path, &body).await;
    let all = json!({"name": " ", "subdomain": "WWW", "tier": "gold", "settings": [],
                     "status": "active", "id": 1});
    let expected = ["name", "subdomain", "tier", "settings", "status", "id"];
    assert_eq!(patch(all).await.bad_fields(), expected);
    for (field, bad) in [
        ("name", json!(null)),
        ("name", json!("a\0b")),
        ("subdomain", json!(null)),
        ("subdomain", json!("www")),
        ("subdomain", json!("x".repeat(64))),
        ("tier", json!(null)),
        ("settings", json!(null)),
        ("settings", json!({"a": "x".repeat(70_000)})),
    ] {
        assert_eq!(patch(json!({ field: bad })).await.bad_fields(), [field], "{bad}");
    }
    assert_eq!(patch(json!({})).await.problem(), (422, "invalid_request"));
    assert_eq!(service.get(&platform, &path).await.body, before);
}

#[tokio::test]
async fn if_match_loses_no_update() {
    let db = TestDatabase::new().await;
    let path = format!("/api/tenants/{}", db.tenant("acme").await.id);
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite, Scope::TenantsRead]);
    let patch = async |tag: &str, name: &str| {
        let request = service.request(Method::PATCH, &path).bearer_auth(&platform);
        answer(request.header("If-Match", tag).json(&json!({ "name": name }))).await
    };
    let seen = service.get(&platform, &path).await.headers["etag"].to_str().unwrap().to_owned();
    let changed = patch(&seen, "One").await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(patch(&seen, "Two").await.problem(), (412, "precondition_failed"));
    let now = changed.headers["etag"].to_str().unwrap();
    for foreign in ["\"x\"", "x", "", &format!("W/{now}"), &now.replace('"', "")] {
        assert_eq!(
            patch(foreign, "Two").await.problem(),
            (412, "precondition_failed"),
            "{foreign}"
        );
    }
    assert_eq!(patch(&format!("{now}, {now}"), "Two").await.bad_fields(), ["If-Match"]);
    assert_eq!(service.get(&platform, &path).await.body["name"], "One");
    assert_eq!(patch("*", "Two").await.status, 200);
    assert_eq!(patch(now, "Three").await.problem(), (412, "precondition_failed"));
}
