//! `/api/tenants`.

use serde_json::{Value, json};
use tenantry_api::auth::{Role, Scope};
use tenantry_db::TenantId;
use tenantry_testing::TestDatabase;

use crate::service::{Service, until};

#[tokio::test]
async fn a_new_tenant_is_served_at_once() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite, Scope::TenantsRead]);
    let new = json!({"name": "Acme", "subdomain": "acme", "tier": "pro", "settings": {"a": [1]}});
    let created = service.post(&platform, "/api/tenants", &new).await;
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/api/tenants/{}", created.id());
    assert_eq!(created.headers["location"], path.as_str());
    for (field, value) in [
        ("name", json!("Acme")),
        ("subdomain", json!("acme")),
        ("tier", json!("pro")),
        ("status", json!("active")),
        ("settings", json!({"a": [1]})),
        ("schema_version", json!(2)),
        ("legal_hold", json!(false)),
    ] {
        assert_eq!(created.body[field], value, "{field}");
    }
    assert!(created.body["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(service.get(&platform, &path).await.body, created.body);
    let id: TenantId = created.id().parse().unwrap();
    let owner = service.token(id, Role::Owner);
    assert_eq!(service.get(&owner, "/api/users").await.status, 200);
    assert_eq!(service.get(&owner, &path).await.body, created.body);
    let superuser = db.superuser().await;
    let row = superuser
        .query_typed_one("SELECT actor FROM public.audit_log WHERE action = 'tenant.created'", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "token:operator:test");
}

#[tokio::test]
async fn a_taken_subdomain_is_a_conflict() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite]);
    let new = json!({"name": "Acme", "subdomain": "acme"});
    let posts = (0..4).map(|_| service.post(&platform, "/api/tenants", &new));
    let answers = futures_util::future::join_all(posts).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.problem(), (409, "subdomain_taken"));
        assert!(!refused.body.to_string().contains("acme"), "{refused:?}");
    }
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite]);
    let post = async |body: Value| service.post(&platform, "/api/tenants", &body).await;
    assert_eq!(post(json!({})).await.bad_fields(), ["name", "subdomain"]);
    let all =
        json!({"name": " ", "subdomain": "WWW", "tier": "gold", "settings": [], "id": 1, "x": 2});
    let found = post(all).await;
    assert_eq!(found.bad_fields(), ["name", "subdomain", "tier", "settings", "id", "x"]);
    for (field, bad) in [
        ("name", json!(1)),
        ("name", json!("x".repeat(256))),
        ("name", json!("a\nb")),
        ("name", json!("a\0b")),
        ("subdomain", json!("www")),
        ("subdomain", json!("-a")),
        ("subdomain", json!("123")),
        ("subdomain", json!("x".repeat(64))),
        ("subdomain", json!(null)),
        ("tier", json!(null)),
        ("settings", json!({"a": "\0"})),
        ("settings", json!({"a\0": 1})),
        ("settings", json!({"a": "x".repeat(70_000)})),
    ] {
        let mut body = json!({"name": "Acme", "subdomain": "acme"});
        body[field] = bad.clone();
        assert_eq!(post(body).await.bad_fields(), [field], "{bad}");
    }
    assert_eq!(
        db.superuser().await.query_typed("SELECT id FROM public.tenants", &[]).await.unwrap().len(),
        0
    );
}

#[tokio::test]
async fn the_list_can_be_paged_and_filtered() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsRead]);
    let mut created = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        created.push(db.tenant(name).await.id.to_string());
    }
    let superuser = db.superuser().await;
    superuser
        .batch_execute("UPDATE public.tenants SET created_at = '2026-01-01T00:00:00Z'")
        .await
        .unwrap();
    created.sort();
    let (mut seen, mut path) = (Vec::new(), "/api/tenants?limit=2".to_owned());
    loop {
        let found = service.get(&platform, &path).await;
        let (ids, next) = found.page();
        seen.extend(ids.iter().map(|id| (*id).to_owned()));
        let Some(next) = next else { break };
        assert_eq!(ids.len(), 2);
        path = format!("/api/tenants?limit=2&cursor={next}");
    }
    assert_eq!(seen, created);
    let suspend = format!(
        "UPDATE public.tenants SET status = 'suspended', suspended_at = now() WHERE id = '{}'",
        created[0]
    );
    superuser.batch_execute(&suspend).await.unwrap();
    let suspended = service.get(&platform, "/api/tenants?status=suspended&tier=free").await;
    assert_eq!(suspended.page(), (vec![created[0].as_str()], None));
    assert_eq!(service.get(&platform, "/api/tenants?tier=pro").await.page().0.len(), 0);
    for (text, found) in [("C", 1), ("%25", 0), ("_", 0), ("'", 0)] {
        let path = format!("/api/tenants?q={text}");
        assert_eq!(service.get(&platform, &path).await.page().0.len(), found, "{text}");
    }
    let bad = "/api/tenants?status=ready&limit=201&cursor=x&order=name&tier=&q=";
    let bad = service.get(&platform, bad).await;
    assert_eq!(bad.bad_fields(), ["limit", "cursor", "status", "tier", "q", "order"]);
}

#[tokio::test]
async fn the_schema_is_described() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let service = Service::on(&db).await;
    let path = format!("/api/tenants/{}/schema", tenant.id);
    let platform = service.platform(&[Scope::TenantsRead]);
    let found = service.get(&platform, &path).await;
    assert_eq!(found.status, 200, "{found:?}");
    assert_eq!(found.body["schema"], tenant.schema().to_string());
    assert_eq!(
        (&found.body["head_version"], &found.body["pending_versions"]),
        (&json!(2), &json!([]))
    );
    let tables = found.body["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 9);
    let users = tables.iter().find(|table| table["name"] == "users").unwrap();
    assert_eq!(
        users["columns"][2],
        json!({"name": "email", "type": "character varying(255)", "nullable": false})
    );
    assert!(users["bytes"].as_i64().unwrap() > 0 && users["rows_estimate"].is_null());
    let owner = service.token(tenant.id, Role::Owner);
    assert_eq!(service.get(&owner, &path).await.body, found.body);
    let nobody = format!("/api/tenants/{}/schema", TenantId::random());
    assert_eq!(service.get(&platform, &nobody).await.problem(), (404, "tenant_not_found"));
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "UPDATE public.tenants SET status = 'purged', purged_at = now(), name = '',
             subdomain = NULL, settings = '{}'",
        )
        .await
        .unwrap();
    assert_eq!(service.get(&platform, &path).await.problem(), (410, "tenant_deleted"));
}

#[tokio::test]
async fn a_tenant_is_suspended_and_resumed() {
    let db = TestDatabase::new().await;
    let id = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite]);
    let owner = service.token(id, Role::Owner);
    let post = async |step: &str| {
        service.post(&platform, &format!("/api/tenants/{id}/{step}"), &json!({})).await
    };
    assert_eq!(service.get(&owner, "/api/users").await.status, 200);
    for step in ["suspend", "suspend", "suspend?now=true"] {
        let done = post(step).await;
        assert_eq!((done.status.as_u16(), &done.body["status"]), (200, &json!("suspended")));
        let refused = service.get(&owner, "/api/users").await;
        assert_eq!(refused.problem(), (403, "tenant_suspended"));
    }
    assert_eq!(post("suspend?now=1&x=").await.bad_fields(), ["now", "x"]);
    for _ in 0..2 {
        assert_eq!(post("resume").await.body["status"], "active");
        until(async || service.get(&owner, "/api/users").await.status == 200).await;
    }
    let nobody = format!("/api/tenants/{}/suspend", TenantId::random());
    let nobody = service.post(&platform, &nobody, &json!({})).await;
    assert_eq!(nobody.problem(), (404, "tenant_not_found"));
    db.superuser()
        .await
        .batch_execute(
            "UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now()",
        )
        .await
        .unwrap();
    for step in ["suspend", "resume"] {
        assert_eq!(post(step).await.problem(), (409, "invalid_state"));
    }
}
