//! Every endpoint with every sort of credential: who gets in is a table, and a new route without a
//! line in it does not go unnoticed.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::{Claims, Role, Scope};
use tenantry_db::TenantId;
use tenantry_db::lifecycle::suspend_tenant;
use tenantry_testing::TestDatabase;
use uuid::Uuid;

use crate::service::{SECRET, Service, answer};

/// What a caller is refused with; none where it gets in (and may then be told that the id is
/// unknown, the body wrong, or a confirmation missing).
type Refusal = Option<(u16, &'static str)>;

const IN: Refusal = None;
const MISSING: Refusal = Some((401, "missing_token"));
const INVALID: Refusal = Some((401, "invalid_token"));
const SCOPE: Refusal = Some((403, "insufficient_scope"));
const TENANT: Refusal = Some((403, "tenant_required"));
const SHUT_OUT: Refusal = Some((403, "tenant_suspended"));
const HIDDEN: Refusal = Some((404, "tenant_not_found"));
const GONE: Refusal = Some((410, "tenant_deleted"));

/// Nobody, an expired and a forged token; then the tenant's owner, member, viewer and one without a
/// role; the owners of another tenant, of a suspended and of a deleted one; then the platform with
/// read, write, and neither.
type Refusals = [Refusal; 13];

type Row = (Method, &'static str, Refusals);

#[rustfmt::skip]
const NOBODY_ELSE: Refusals =
    [MISSING, INVALID, INVALID, IN, IN, IN, SCOPE, IN, SHUT_OUT, GONE, TENANT, TENANT, TENANT];
#[rustfmt::skip]
const WRITERS: Refusals =
    [MISSING, INVALID, INVALID, IN, IN, SCOPE, SCOPE, IN, SHUT_OUT, GONE, TENANT, TENANT, TENANT];
#[rustfmt::skip]
const READ: Refusals =
    [MISSING, INVALID, INVALID, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, IN, SCOPE, SCOPE];
#[rustfmt::skip]
const WRITE: Refusals =
    [MISSING, INVALID, INVALID, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, IN, SCOPE];
#[rustfmt::skip]
const DELETE: Refusals =
    [MISSING, INVALID, INVALID, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, IN];
/// The last of the platform's tokens has this scope as well.
const AUDIT: Refusals = DELETE;
#[rustfmt::skip]
const VISIBLE: Refusals =
    [MISSING, INVALID, INVALID, IN, SCOPE, SCOPE, SCOPE, HIDDEN, HIDDEN, HIDDEN, IN, SCOPE, SCOPE];

fn rows() -> Vec<Row> {
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    vec![
        (get.clone(), "/api/tenants", READ),
        (post.clone(), "/api/tenants", WRITE),
        (get.clone(), "/api/tenants/{id}", VISIBLE),
        (patch.clone(), "/api/tenants/{id}", WRITE),
        (get.clone(), "/api/tenants/{id}/schema", VISIBLE),
        (get.clone(), "/api/tenants/{id}/export", VISIBLE),
        (post.clone(), "/api/tenants/{id}/suspend", WRITE),
        (post.clone(), "/api/tenants/{id}/resume", WRITE),
        (delete.clone(), "/api/tenants/{id}", DELETE),
        (post.clone(), "/api/tenants/{id}/restore", WRITE),
        (post.clone(), "/api/tenants/{id}/purge", DELETE),
        (get.clone(), "/api/audit", AUDIT),
        (get.clone(), "/api/tenants/{id}/certificate", READ),
        (get.clone(), "/api/users", NOBODY_ELSE),
        (post.clone(), "/api/users", WRITERS),
        (get.clone(), "/api/users/{id}", NOBODY_ELSE),
        (patch.clone(), "/api/users/{id}", WRITERS),
        (delete.clone(), "/api/users/{id}", WRITERS),
        (get.clone(), "/api/content", NOBODY_ELSE),
        (post, "/api/content", WRITERS),
        (get.clone(), "/api/content/{id}", NOBODY_ELSE),
        (patch, "/api/content/{id}", WRITERS),
        (delete, "/api/content/{id}", WRITERS),
        (get.clone(), "/api/countries", NOBODY_ELSE),
        (get.clone(), "/api/timezones", NOBODY_ELSE),
        (get.clone(), "/api/platform-metadata", NOBODY_ELSE),
        (get.clone(), "/health/live", [IN; 13]),
        (get.clone(), "/health/ready", [IN; 13]),
        (get, "/metrics", [IN; 13]),
    ]
}

/// The token of an owner, from anybody's key and of any age.
fn signed(tenant: TenantId, secret: &str, expires_at_s: i64) -> String {
    let claims = json!({
        "sub": "u", "tenant_id": tenant, "role": "owner",
        "iss": "tenantry", "aud": "tenantry-api", "exp": expires_at_s,
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

#[tokio::test]
async fn who_gets_in_where() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await.id, db.tenant("globex").await.id);
    let (suspended, deleted) = (db.tenant("suspended").await.id, db.tenant("deleted").await.id);
    suspend_tenant(&db.admin, suspended, &db.actor()).await.unwrap();
    let delete = format!(
        "UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now()
         WHERE id = '{deleted}'"
    );
    db.superuser().await.batch_execute(&delete).await.unwrap();
    let service = Service::on(&db).await;
    let owner = |tenant| service.token(tenant, Role::Owner);
    let no_role = Claims {
        sub: "u".to_owned(),
        tenant_id: Some(acme),
        role: None,
        scope: [].into_iter().collect(),
    };
    let callers = [
        None,
        Some(signed(acme, SECRET, 1)),
        Some(signed(acme, &SECRET.replace('0', "1"), 4_000_000_000)),
        Some(owner(acme)),
        Some(service.token(acme, Role::Member)),
        Some(service.token(acme, Role::Viewer)),
        Some(service.issue(&no_role)),
        Some(owner(globex)),
        Some(owner(suspended)),
        Some(owner(deleted)),
        Some(service.platform(&[Scope::TenantsRead])),
        Some(service.platform(&[Scope::TenantsWrite])),
        Some(service.platform(&[Scope::TenantsDelete, Scope::AuditRead])),
    ];
    for (method, path, expected) in rows() {
        let id = if path.contains("tenants") { acme.to_string() } else { Uuid::nil().to_string() };
        let url = path.replace("{id}", &id);
        for (caller, expected) in expected.into_iter().enumerate() {
            let mut request = service.request(method.clone(), &url);
            if let Some(token) = &callers[caller] {
                request = request.bearer_auth(token);
            }
            if matches!(method, Method::POST | Method::PATCH) {
                request = request.json(&json!({"unknown": 1}));
            }
            let found = answer(request).await;
            let shown = format!("{method} {path}, caller {caller}: {found:?}");
            match expected {
                Some(refusal) => assert_eq!(found.problem(), refusal, "{shown}"),
                None => assert!(matches!(found.status.as_u16(), 200 | 404 | 409 | 422), "{shown}"),
            }
            if expected.is_none() && found.status == 404 {
                assert_eq!(found.problem(), (404, "not_found"), "{shown}");
            }
        }
    }
}

#[test]
fn every_route_is_in_the_table() {
    let source = include_str!("../../src/routes/mod.rs");
    let listed = rows();
    let mut count = 0;
    for line in source.split(".route(").skip(1) {
        let path = line.split('"').nth(1).unwrap();
        let handlers = line.split_once(path).unwrap().1;
        let methods =
            [("get(", "GET"), ("post(", "POST"), ("patch(", "PATCH"), ("delete(", "DELETE")];
        for (_, method) in methods.into_iter().filter(|(call, _)| handlers.contains(call)) {
            count += 1;
            let known = listed.iter().any(|(m, p, _)| m.as_str() == method && *p == path);
            assert!(known, "{method} {path} has no line in the table");
        }
    }
    assert_eq!(count, listed.len());
}
