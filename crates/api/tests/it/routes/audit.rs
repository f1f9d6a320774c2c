//! `GET /api/audit`, and the request's id in what it lists.

use reqwest::Method;
use serde_json::{Value, json};
use tenantry_api::auth::{Role, Scope};
use tenantry_testing::TestDatabase;

use crate::service::{Service, answer, until};

const ALL: &[Scope] =
    &[Scope::TenantsRead, Scope::TenantsWrite, Scope::TenantsDelete, Scope::TenantsAct];

#[tokio::test]
async fn only_the_scope_lets_in() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    for token in [service.platform(ALL), service.token(acme, Role::Owner)] {
        let refused = service.get(&token, "/api/audit").await;
        assert_eq!(refused.problem(), (403, "insufficient_scope"));
    }
    let listed = service.get(&service.platform(&[Scope::AuditRead]), "/api/audit").await;
    assert_eq!((listed.status.as_u16(), listed.body["data"].as_array().unwrap().len()), (200, 1));
}

#[tokio::test]
async fn each_write_bears_the_id_of_its_request() {
    let db = TestDatabase::new().await;
    let mut pooled = db.config.clone();
    pooled.tenants.ready_pool = 1;
    tenantry_db::lifecycle::fill_ready_pool(&tenantry_db::Installation::new(pooled).unwrap())
        .await
        .unwrap();
    let service = Service::on(&db).await;
    let token = service.platform(ALL);
    let call = async |method: Method, path: &str, id: &str, body: Value| {
        let request = service.request(method, path).bearer_auth(&token).header("X-Request-Id", id);
        let answer = answer(request.json(&body)).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer
    };
    // One of the ready pool, in one statement; the other is provisioned.
    let taken = json!({"name": "Acme", "subdomain": "acme"});
    let id = call(Method::POST, "/api/tenants", "req-taken", taken).await.id().to_owned();
    let made = json!({"name": "Globex", "subdomain": "globex"});
    call(Method::POST, "/api/tenants", "req-made", made).await;
    let path = format!("/api/tenants/{id}");
    call(Method::PATCH, &path, "req-changed", json!({"name": "A"})).await;
    call(Method::POST, &format!("{path}/suspend"), "req-suspended", json!({})).await;
    call(Method::POST, &format!("{path}/resume"), "req-resumed", json!({})).await;
    let confirm = json!({"confirm": "acme"});
    call(Method::DELETE, &path, "req-deleted", confirm.clone()).await;
    call(Method::POST, &format!("{path}/restore"), "req-restored", json!({})).await;
    call(Method::DELETE, &path, "req-again", confirm).await;
    let now = json!({"confirm": "acme", "now": true});
    call(Method::POST, &format!("{path}/purge"), "req-purged", now).await;
    let reader = service.platform(&[Scope::AuditRead]);
    let entries = async |query: &str| {
        let listed = service.get(&reader, &format!("/api/audit?{query}")).await;
        assert_eq!(listed.status, 200, "{listed:?}");
        listed.body["data"].as_array().unwrap().clone()
    };
    // The purge goes on when the answer is out; a service seals by itself.
    until(async || {
        let all = entries("").await;
        all.iter().any(|e| e["action"] == "tenant.purged")
            && all.iter().all(|e| !e["hash"].is_null())
    })
    .await;
    let of_acme: Vec<String> = entries(&format!("tenant_id={id}"))
        .await
        .iter()
        .map(|e| format!("{} {}", e["action"].as_str().unwrap(), e["request_id"].as_str().unwrap()))
        .collect();
    assert_eq!(
        of_acme,
        [
            "tenant.created req-taken",
            "tenant.changed req-changed",
            "tenant.suspended req-suspended",
            "tenant.resumed req-resumed",
            "tenant.deleted req-deleted",
            "tenant.restored req-restored",
            "tenant.deleted req-again",
            "tenant.purge_begun req-purged",
            "tenant.purged req-purged",
        ]
    );
    let made = &entries("action=tenant.created").await[1];
    assert_eq!(made["request_id"], "req-made");
    assert_eq!(made["actor"], "token:operator:test");
    assert_eq!(made["hash"].as_str().unwrap().len(), 64);
    // One that nobody can put into a log is replaced, and the log has what the answer says.
    let request = service.request(Method::POST, "/api/tenants").bearer_auth(&token);
    let request =
        request.header("X-Request-Id", "a b").json(&json!({"name": "I", "subdomain": "initech"}));
    let created = answer(request).await;
    let last = entries("action=tenant.created").await.pop().unwrap();
    assert_eq!(last["request_id"], created.headers["x-request-id"].to_str().unwrap());
}

#[tokio::test]
async fn it_is_listed_page_by_page_and_by_what_is_asked_for() {
    let db = TestDatabase::new().await;
    let writer = db.admin_client().await;
    writer
        .batch_execute(
            "INSERT INTO public.audit_log (recorded_at, actor, action, tenant_id, details)
             SELECT timestamptz '2026-01-01T00:00:00Z' + (n / 2) * interval '1 day', 'a' || n % 3, 'x.' || n % 2,
                    CASE WHEN n > 5 THEN '11111111-2222-4333-8444-555555555555'::uuid END, jsonb_build_object('n', n)
             FROM generate_series(1, 10) n",
        )
        .await
        .unwrap();
    let service = Service::on(&db).await;
    let token = service.platform(&[Scope::AuditRead]);
    let numbers = |body: &Value| -> Vec<i64> {
        body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["details"]["n"].as_i64().unwrap())
            .collect()
    };
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.get(&token, &format!("/api/audit?limit=3{cursor}")).await;
        seen.push(numbers(&page.body));
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8, 9], vec![10]]);
    for (query, expected) in [
        ("tenant_id=11111111-2222-4333-8444-555555555555&action=x.0", vec![6, 8, 10]),
        ("actor=a1", vec![1, 4, 7, 10]),
        ("since=2026-01-05T00:00:00Z", vec![8, 9, 10]),
        ("until=2026-01-02T00:00:00Z", vec![1]),
        ("since=2026-01-02T00:00:00Z&until=2026-01-03T00:00:00Z&actor=a2", vec![2]),
        ("actor=%25", vec![]),
    ] {
        let listed = service.get(&token, &format!("/api/audit?{query}")).await;
        assert_eq!(numbers(&listed.body), expected, "{query}");
    }
    let bad = "/api/audit?tenant_id=acme&since=yesterday&until=1&limit=0&cursor=x&page=2&actor=";
    assert_eq!(
        service.get(&token, bad).await.bad_fields(),
        ["limit", "cursor", "tenant_id", "actor", "since", "until", "page"]
    );
}
