//! Every endpoint with every sort of credential: who gets in is a table, and a new route without a
//! line in it does not go unnoticed.

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::{Claims, Role, Scope};
use tenantry_testing::TestDatabase;
use uuid::Uuid;

use crate::service::{Service, answer};

/// What a caller is refused with; none where it gets in (and may then be told that the id is
/// unknown or the body wrong).
type Refusal = Option<(u16, &'static str)>;

const IN: Refusal = None;
const MISSING: Refusal = Some((401, "missing_token"));
const SCOPE: Refusal = Some((403, "insufficient_scope"));
const TENANT: Refusal = Some((403, "tenant_required"));
const HIDDEN: Refusal = Some((404, "tenant_not_found"));

/// Nobody, then the tenant's owner, member, viewer and one without a role, then another tenant's
/// owner, then the platform with read, write, and neither.
type Row = (Method, &'static str, [Refusal; 9]);

const NOBODY_ELSE: [Refusal; 9] = [MISSING, IN, IN, IN, SCOPE, IN, TENANT, TENANT, TENANT];
const WRITERS: [Refusal; 9] = [MISSING, IN, IN, SCOPE, SCOPE, IN, TENANT, TENANT, TENANT];
const READ: [Refusal; 9] = [MISSING, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, IN, SCOPE, SCOPE];
const WRITE: [Refusal; 9] = [MISSING, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, SCOPE, IN, SCOPE];
const VISIBLE: [Refusal; 9] = [MISSING, IN, SCOPE, SCOPE, SCOPE, HIDDEN, IN, SCOPE, SCOPE];

fn rows() -> Vec<Row> {
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    vec![
        (get.clone(), "/api/tenants", READ),
        (post.clone(), "/api/tenants", WRITE),
        (get.clone(), "/api/tenants/{id}", VISIBLE),
        (get.clone(), "/api/tenants/{id}/schema", VISIBLE),
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
        (get.clone(), "/health/live", [IN; 9]),
        (get.clone(), "/health/ready", [IN; 9]),
        (get, "/metrics", [IN; 9]),
    ]
}

#[tokio::test]
async fn who_gets_in_where() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await.id, db.tenant("globex").await.id);
    let service = Service::on(&db).await;
    let no_role = Claims {
        sub: "u".to_owned(),
        tenant_id: Some(acme),
        role: None,
        scope: [].into_iter().collect(),
    };
    let callers = [
        None,
        Some(service.token(acme, Role::Owner)),
        Some(service.token(acme, Role::Member)),
        Some(service.token(acme, Role::Viewer)),
        Some(service.issue(&no_role)),
        Some(service.token(globex, Role::Owner)),
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
                None => assert!(matches!(found.status.as_u16(), 200 | 404 | 422), "{shown}"),
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
