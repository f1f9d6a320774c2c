//! `/api/content`.

use serde_json::{Value, json};
use tenantry_api::auth::Role;
use tenantry_testing::TestDatabase;

use crate::service::Service;

async fn started() -> (TestDatabase, Service, String) {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let service = Service::on(&db).await;
    let token = service.token(tenant.id, Role::Member);
    (db, service, token)
}

#[tokio::test]
async fn a_piece_is_created_read_changed_and_deleted() {
    let (_db, service, token) = started().await;
    let user = json!({"email": "a@b.co", "name": "A", "role": "editor"});
    let user = service.post(&token, "/api/users", &user).await;
    let new = json!({
        "title": "T", "body": "B", "author_id": user.id(), "tags": ["a", "b"],
        "media": [{"url": "https://x.y/z.png"}],
    });
    let created = service.post(&token, "/api/content", &new).await;
    assert_eq!(created.status, 201, "{created:?}");
    let path = format!("/api/content/{}", created.id());
    assert_eq!(created.headers["location"], path.as_str());
    assert_eq!((&created.body["status"], &created.body["number"]), (&json!("draft"), &json!(1)));
    for field in ["title", "body", "author_id", "tags", "media"] {
        assert_eq!(created.body[field], new[field], "{field}");
    }
    assert_eq!(service.get(&token, &path).await.body, created.body);
    let patch = json!({"author_id": null, "tags": [], "body": ""});
    let patched = service.patch(&token, &path, &patch).await;
    assert_eq!((&patched.body["author_id"], &patched.body["title"]), (&Value::Null, &json!("T")));
    assert_eq!((&patched.body["tags"], &patched.body["body"]), (&json!([]), &json!("")));
    assert_eq!(service.delete(&token, &path).await.status, 204);
    assert_eq!(service.get(&token, &path).await.problem(), (404, "not_found"));
}

#[tokio::test]
async fn a_status_has_its_date() {
    let (_db, service, token) = started().await;
    let path = "/api/content";
    let post = async |body: Value| service.post(&token, path, &body).await;
    let undated = post(json!({"title": "T", "status": "scheduled"})).await;
    assert_eq!(undated.bad_fields(), ["scheduled_at"]);
    let at = "2027-01-01T10:00:00.5+02:00";
    let dated = post(json!({"title": "T", "status": "scheduled", "scheduled_at": at})).await;
    assert_eq!(dated.body["scheduled_at"], "2027-01-01T08:00:00.5Z");
    let path = format!("/api/content/{}", dated.id());
    let cleared = service.patch(&token, &path, &json!({"scheduled_at": null})).await;
    assert_eq!(cleared.bad_fields(), ["scheduled_at"]);
    // Publishing needs no date of its own, but can't be told that there is none.
    let published = service.patch(&token, &path, &json!({"status": "published"})).await;
    assert!(published.body["published_at"].is_string(), "{published:?}");
    let dateless = service.patch(&token, &path, &json!({"published_at": null})).await;
    assert_eq!(dateless.bad_fields(), ["published_at"]);
    let again = service.patch(&token, &path, &json!({"status": "published"})).await;
    assert_eq!(again.body["published_at"], published.body["published_at"]);
    let created = post(json!({"title": "T", "status": "published"})).await;
    assert!(created.body["published_at"].is_string(), "{created:?}");
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let (_db, service, token) = started().await;
    let post = async |body: Value| service.post(&token, "/api/content", &body).await;
    assert_eq!(post(json!({"number": 1})).await.bad_fields(), ["title", "number"]);
    for (field, bad) in [
        ("title", json!("x".repeat(256))),
        ("body", json!(null)),
        ("body", json!("x".repeat(100_001))),
        ("status", json!("out")),
        ("status", json!(null)),
        ("author_id", json!("acme")),
        ("author_id", json!("6f1c0c529a3e4a558f0e0d5a3c2b1a90")),
        ("author_id", json!("6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90")), // well-formed, nobody's
        ("media", json!({})),
        ("media", json!(vec![0; 101])),
        ("media", json!([{"a": ["\0"]}])),
        ("tags", json!("a")),
        ("tags", json!([1])),
        ("tags", json!([null])),
        ("tags", json!([""])),
        ("tags", json!(vec!["a"; 101])),
        ("scheduled_at", json!("tomorrow")),
        ("scheduled_at", json!("2026-13-01T00:00:00Z")),
        ("published_at", json!(1_700_000_000)),
    ] {
        let mut body = json!({"title": "T"});
        body[field] = bad.clone();
        assert_eq!(post(body).await.bad_fields(), [field], "{bad}");
    }
    let found = service.get(&token, "/api/content?status=out&author_id=1&tag=x").await;
    assert_eq!(found.bad_fields(), ["status", "author_id", "tag"]);
}

#[tokio::test]
async fn moments_at_the_edges_of_the_calendar_survive() {
    let (_db, service, token) = started().await;
    for at in ["0001-01-01T00:00:00Z", "9999-12-30T21:59:59.999999Z", "1969-12-31T23:59:59.999999Z"]
    {
        let created =
            service.post(&token, "/api/content", &json!({"title": "T", "scheduled_at": at})).await;
        assert_eq!((created.status.as_u16(), &created.body["scheduled_at"]), (201, &json!(at)));
    }
}

#[tokio::test]
async fn the_list_is_filtered_and_paged() {
    let (_db, service, token) = started().await;
    let user = json!({"email": "a@b.co", "name": "A", "role": "editor"});
    let author = service.post(&token, "/api/users", &user).await;
    for n in 0..5 {
        let status = if n < 3 { "draft" } else { "approved" };
        let author = (n % 2 == 0).then(|| author.id());
        let new = json!({"title": format!("{n}"), "status": status, "author_id": author});
        assert_eq!(service.post(&token, "/api/content", &new).await.status, 201);
    }
    let count = async |query: &str| {
        service.get(&token, &format!("/api/content?{query}")).await.page().0.len()
    };
    assert_eq!(count("status=draft").await, 3);
    assert_eq!(count(&format!("author_id={}", author.id())).await, 3);
    assert_eq!(count(&format!("author_id={}&status=approved", author.id())).await, 1);
    let first = service.get(&token, "/api/content?status=draft&limit=2").await;
    let (ids, next) = first.page();
    assert_eq!(ids.len(), 2);
    assert_eq!(count(&format!("status=draft&limit=2&cursor={}", next.unwrap())).await, 1);
    // The author goes, the work stays.
    assert_eq!(service.delete(&token, &format!("/api/users/{}", author.id())).await.status, 204);
    assert_eq!(count("limit=200").await, 5);
    assert_eq!(count(&format!("author_id={}", author.id())).await, 0);
}
