//! `/api/users`.

use serde_json::{Value, json};
use tenantry_api::auth::Role;
use tenantry_db::models::tenants::Tenant;
use tenantry_testing::TestDatabase;

use crate::service::Service;

async fn started() -> (TestDatabase, Tenant, Service, String) {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let service = Service::on(&db).await;
    let token = service.token(tenant.id, Role::Member);
    (db, tenant, service, token)
}

fn user(email: &str) -> Value {
    json!({"email": email, "name": "Ann", "role": "editor"})
}

#[tokio::test]
async fn a_user_is_created_read_changed_and_deleted() {
    let (db, tenant, service, token) = started().await;
    let new = json!({
        "email": "Ann@Acme.example", "name": "Ann", "role": "editor",
        "avatar_url": "https://acme.example/a.png", "email_verified": true,
    });
    let created = service.post(&token, "/api/users", &new).await;
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/api/users/{}", created.id());
    assert_eq!(created.headers["location"], path.as_str());
    assert_eq!(created.body["email"], "ann@acme.example");
    assert_eq!(created.body["two_factor_enabled"], false);
    assert_eq!(service.get(&token, &path).await.body, created.body);
    // Absent stays, null clears.
    let renamed = service.patch(&token, &path, &json!({"name": "Anna"})).await;
    assert_eq!(renamed.body["name"], "Anna");
    assert_eq!(renamed.body["avatar_url"], "https://acme.example/a.png");
    assert_ne!(renamed.body["updated_at"], created.body["updated_at"]);
    assert_eq!(renamed.body["created_at"], created.body["created_at"]);
    let cleared = service.patch(&token, &path, &json!({"avatar_url": null})).await;
    assert_eq!(
        (&cleared.body["avatar_url"], &cleared.body["name"]),
        (&Value::Null, &json!("Anna"))
    );
    let hash = format!("UPDATE {}.users SET password_hash = 'geheim'", tenant.schema());
    db.superuser().await.batch_execute(&hash).await.unwrap();
    for path in [&path, "/api/users"] {
        let text = service.get(&token, path).await.body.to_string();
        assert!(!text.contains("geheim") && !text.contains("password"), "{text}");
    }
    let deleted = service.delete(&token, &path).await;
    assert_eq!((deleted.status.as_u16(), deleted.body), (204, json!("")));
    assert_eq!(service.delete(&token, &path).await.problem(), (404, "not_found"));
    assert_eq!(service.get(&token, &path).await.problem(), (404, "not_found"));
    assert_eq!(service.patch(&token, &path, &user("a@b.co")).await.problem(), (404, "not_found"));
}

#[tokio::test]
async fn an_address_belongs_to_one_user_whatever_its_case() {
    let (_db, _, service, token) = started().await;
    assert_eq!(service.post(&token, "/api/users", &user("ann@acme.example")).await.status, 201);
    let again = service.post(&token, "/api/users", &user("ANN@acme.example")).await;
    assert_eq!(again.problem(), (409, "email_taken"));
    let text = again.body.to_string().to_lowercase();
    assert!(!text.contains("ann@") && !text.contains("constraint"), "{text}");
    let other = service.post(&token, "/api/users", &user("bob@acme.example")).await;
    let path = format!("/api/users/{}", other.id());
    let taken = service.patch(&token, &path, &json!({"email": "Ann@acme.example"})).await;
    assert_eq!(taken.problem(), (409, "email_taken"));
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let (_db, _, service, token) = started().await;
    let post = async |body: Value| service.post(&token, "/api/users", &body).await;
    assert_eq!(post(json!({})).await.bad_fields(), ["email", "name", "role"]);
    for (field, bad) in [
        ("email", json!("nobody")),
        ("email", json!(7)),
        ("email", json!(format!("{}@b.co", "x".repeat(300)))),
        ("name", json!("")),
        ("name", json!("x".repeat(256))),
        ("name", json!("\0")),
        ("role", json!("x".repeat(51))),
        ("role", json!(["owner"])),
        ("avatar_url", json!("javascript:alert(1)")),
        ("email_verified", json!("true")),
        ("two_factor_enabled", json!(null)),
        ("password_hash", json!("x")),
        ("tenant_id", json!("6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90")),
        ("id", json!(null)),
        ("created_at", json!("2026-01-01T00:00:00Z")),
    ] {
        let mut body = user("ann@acme.example");
        body[field] = bad.clone();
        assert_eq!(post(body).await.bad_fields(), [field], "{bad}");
    }
    let created = post(user("ann@acme.example")).await;
    let path = format!("/api/users/{}", created.id());
    assert!(service.patch(&token, &path, &json!({})).await.bad_fields().is_empty());
    let patch = json!({"email": null, "name": null, "role": 1, "avatar_url": 1, "x": null});
    let found = service.patch(&token, &path, &patch).await;
    assert_eq!(found.bad_fields(), ["email", "name", "role", "avatar_url", "x"]);
    let bad = "/api/users?limit=-1&cursor=%00&role=&email=x&email=y&name=n";
    let found = service.get(&token, bad).await;
    assert_eq!(found.bad_fields(), ["email", "limit", "cursor", "role", "email", "name"]);
    for bad in ["limit=0", "limit=201", "limit=1.5", "limit=%2B5", "limit=99999", "limit="] {
        let found = service.get(&token, &format!("/api/users?{bad}")).await;
        assert_eq!(found.bad_fields(), ["limit"], "{bad}");
    }
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_rows_of_one_moment() {
    let (db, tenant, service, token) = started().await;
    let superuser = db.superuser().await;
    let fill = format!(
        "INSERT INTO {schema}.users (email, name, role, created_at)
         SELECT n || '@b.co', 'n', CASE WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END,
                '2026-01-01T00:00:00.123456Z'::timestamptz + (n / 20) * interval '1 microsecond'
         FROM generate_series(1, 60) n",
        schema = tenant.schema()
    );
    superuser.batch_execute(&fill).await.unwrap();
    let rows = superuser
        .query_typed(
            &format!("SELECT id::text FROM {}.users ORDER BY created_at, id", tenant.schema()),
            &[],
        )
        .await
        .unwrap();
    let expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for (limit, pages) in [(1, 60), (7, 9), (20, 3), (60, 1), (200, 1)] {
        let (mut seen, mut count) = (Vec::new(), 0);
        let mut path = format!("/api/users?limit={limit}");
        loop {
            let found = service.get(&token, &path).await;
            let (ids, next) = found.page();
            seen.extend(ids.iter().map(|id| (*id).to_owned()));
            count += 1;
            let Some(next) = next else { break };
            path = format!("/api/users?limit={limit}&cursor={next}");
        }
        assert_eq!((seen.as_slice(), count), (expected.as_slice(), pages), "limit {limit}");
    }
    assert_eq!(service.get(&token, "/api/users").await.page().0.len(), 50, "the default");
    assert_eq!(service.get(&token, "/api/users?role=even&limit=200").await.page().0.len(), 30);
    assert_eq!(service.get(&token, "/api/users?email=7%40B.co").await.page().0.len(), 1);
}
