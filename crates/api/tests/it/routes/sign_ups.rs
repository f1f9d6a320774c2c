//! `POST /api/tenants`: the same request sent again, and the ready pool behind it.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tenantry_api::auth::{Claims, Role, Scope};
use tenantry_testing::TestDatabase;

use crate::service::{Answer, Service, answer, until, until_blocked};

async fn sign_up(service: &Service, token: &str, key: &str, body: &Value) -> Answer {
    let request = service.request(Method::POST, "/api/tenants").bearer_auth(token).json(body);
    answer(request.header("Idempotency-Key", key)).await
}

async fn count(db: &TestDatabase, what: &str) -> i64 {
    let superuser = db.superuser().await;
    let count = format!("SELECT count(*) FROM public.{what}");
    superuser.query_typed_one(&count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_also_after_the_tenant_changed() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite]);
    let new = json!({"name": "Acme", "subdomain": "acme", "settings": {"a": 1, "b": [2]}});
    let first = sign_up(&service, &platform, "k1", &new).await;
    assert_eq!(first.status, 201, "{first:?}");
    let path = format!("/api/tenants/{}", first.id());
    let patch = service.patch(&platform, &path, &json!({"name": "Other", "tier": "pro"})).await;
    assert_eq!(patch.status, 200, "{patch:?}");
    // Another order of the fields is no other request.
    let again = json!({"settings": {"b": [2], "a": 1}, "subdomain": "acme", "name": "Acme"});
    for body in [&new, &again] {
        let second = sign_up(&service, &platform, "k1", body).await;
        assert_eq!((second.status, &second.body), (first.status, &first.body));
        for header in ["location", "etag", "content-type"] {
            assert_eq!(second.headers[header], first.headers[header]);
        }
    }
    assert_eq!(count(&db, "tenants").await, 1);
    assert_eq!(count(&db, "audit_log WHERE action = 'tenant.created'").await, 1);
    for other in [
        json!({"name": "Acme", "subdomain": "acme"}),
        json!({"name": "Acme", "subdomain": "acme", "settings": {"a": 1, "b": [3]}}),
    ] {
        let refused = sign_up(&service, &platform, "k1", &other).await;
        assert_eq!(refused.problem(), (422, "idempotency_mismatch"));
    }
    // A request that failed is not remembered: mended, it may use its key.
    let taken = json!({"name": "B", "subdomain": "acme"});
    assert_eq!(
        sign_up(&service, &platform, "k2", &taken).await.problem(),
        (409, "subdomain_taken")
    );
    let bad = json!({"name": "B", "subdomain": "-"});
    assert_eq!(sign_up(&service, &platform, "k2", &bad).await.bad_fields(), ["subdomain"]);
    let mended = json!({"name": "B", "subdomain": "b"});
    assert_eq!(sign_up(&service, &platform, "k2", &mended).await.status, 201);
}

#[tokio::test]
async fn keys_belong_to_their_caller() {
    let db = TestDatabase::new().await;
    let home = db.tenant("home").await.id;
    let service = Service::on(&db).await;
    let caller = |sub: &str, tenant| {
        service.issue(&Claims {
            sub: sub.to_owned(),
            tenant_id: tenant,
            role: Some(Role::Owner),
            scope: [Scope::TenantsWrite].into_iter().collect(),
        })
    };
    // The same subject in a tenant is somebody else.
    let callers = [caller("a", None), caller("b", None), caller("a", Some(home))];
    for (n, token) in callers.iter().enumerate() {
        let new = json!({"name": "T", "subdomain": format!("t{n}")});
        let created = sign_up(&service, token, "key", &new).await;
        assert_eq!(created.status, 201, "{created:?}");
    }
    assert_eq!(count(&db, "tenants").await, 4);
    let superuser = db.superuser().await;
    let kept = superuser
        .query_typed("SELECT row_to_json(k)::text FROM public.idempotency_keys k", &[])
        .await
        .unwrap();
    for row in kept {
        let text: &str = row.get(0);
        assert!(!text.contains("\"key\"") && !text.contains("operator"), "{text}");
    }
}

#[tokio::test]
async fn of_many_at_once_one_is_done_and_none_waits() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite]);
    let new = json!({"name": "Acme", "subdomain": "acme"});
    let many = (0..8).map(|_| sign_up(&service, &platform, "k", &new));
    let answers = join_all(many).await;
    let created: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert!(!created.is_empty());
    assert!(created.iter().all(|answer| answer.body == created[0].body));
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.problem(), (409, "idempotency_in_progress"));
        assert_eq!(refused.headers["retry-after"], "1");
    }
    assert_eq!(count(&db, "tenants").await, 1);
    // While the first is held up, the second is told at once, whatever its body.
    let superuser = db.superuser().await;
    superuser.batch_execute("BEGIN; LOCK TABLE public.migrations IN SHARE MODE").await.unwrap();
    let body = json!({"name": "B", "subdomain": "b"});
    let second = service.request(Method::POST, "/api/tenants").bearer_auth(&platform).json(&body);
    let second = tokio::spawn(answer(second.header("Idempotency-Key", "k2")));
    until_blocked(&db).await;
    let refused = sign_up(&service, &platform, "k2", &new).await;
    assert_eq!(refused.problem(), (409, "idempotency_in_progress"));
    superuser.batch_execute("ROLLBACK").await.unwrap();
    let second = second.await.unwrap();
    assert_eq!(second.status, 201, "{second:?}");
    let again = sign_up(&service, &platform, "k2", &body).await;
    assert_eq!((again.status, again.body), (second.status, second.body));
}

#[tokio::test]
async fn a_key_is_a_short_visible_text_and_there_is_one() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsWrite]);
    let new = json!({"name": "Acme", "subdomain": "acme"});
    for bad in ["", "a b", "a\tb", &"x".repeat(256)] {
        assert_eq!(sign_up(&service, &platform, bad, &new).await.bad_fields(), ["Idempotency-Key"]);
    }
    let request = service.request(Method::POST, "/api/tenants").bearer_auth(&platform).json(&new);
    let twice = request.header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    assert_eq!(answer(twice).await.bad_fields(), ["Idempotency-Key"]);
    assert_eq!(count(&db, "tenants").await, 0);
    assert_eq!(sign_up(&service, &platform, &"x".repeat(255), &new).await.status, 201);
}

#[tokio::test]
async fn old_answers_are_forgotten_by_the_running_service() {
    let db = TestDatabase::new().await;
    let installation = db.installation();
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "INSERT INTO public.idempotency_keys
                 (id, request, tenant_id, name, subdomain, tier, settings, lane, schema_version, created_at)
             SELECT sha256(n::text::bytea), sha256(''), gen_random_uuid(), 'n', 'n', 'free', '{}', 0, 2,
                    now() - n * interval '10 minutes'
             FROM generate_series(1, 2000) AS n",
        )
        .await
        .unwrap();
    // 143 are younger than a day.
    let forget = || tenantry_db::models::idempotency::forget_old_requests(installation.admin());
    assert_eq!(forget().await.unwrap(), 1000);
    let _service = Service::on(&db).await;
    until(async || count(&db, "idempotency_keys").await == 143).await;
    assert_eq!(forget().await.unwrap(), 0);
}

#[tokio::test]
async fn a_service_keeps_tenants_ready_hands_them_out_and_ends_cleanly() {
    let db = TestDatabase::new().await;
    let mut service = Service::with(&db, &[("tenants.ready_pool", "4")]).await;
    let platform = service.platform(&[Scope::TenantsWrite, Scope::TenantsRead]);
    let ready = "tenants WHERE status = 'ready'";
    until(async || count(&db, ready).await == 4).await;
    assert_eq!(service.get(&platform, "/api/tenants").await.page().0.len(), 0);
    let superuser = db.superuser().await;
    let waiting = superuser.query_typed("SELECT id::text FROM public.tenants", &[]).await.unwrap();
    let waiting: Vec<String> = waiting.iter().map(|row| row.get(0)).collect();
    // Nobody can know of them, whatever is asked.
    for id in &waiting {
        let path = format!("/api/tenants/{id}");
        let schema = format!("{path}/schema");
        for found in [
            service.get(&platform, &path).await,
            service.get(&platform, &schema).await,
            service.patch(&platform, &path, &json!({"name": "x"})).await,
            service.post(&platform, &format!("{path}/suspend"), &json!({})).await,
            service.post(&platform, &format!("{path}/resume"), &json!({})).await,
        ] {
            assert_eq!(found.problem(), (404, "tenant_not_found"));
        }
        let owner = service.token(id.parse().unwrap(), Role::Owner);
        let served = service.get(&owner, "/api/users").await;
        assert_eq!(served.problem(), (404, "tenant_not_found"));
    }
    let new = json!({"name": "Acme", "subdomain": "acme"});
    let created = service.post(&platform, "/api/tenants", &new).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert!(waiting.contains(&created.id().to_owned()));
    let owner = service.token(created.id().parse().unwrap(), Role::Owner);
    assert_eq!(service.get(&owner, "/api/users").await.status, 200);
    until(async || count(&db, ready).await == 4).await;
    service.stop.take().unwrap().send(()).unwrap();
    service.running.await.unwrap().unwrap();
    db.tenant("later").await;
    assert_eq!(count(&db, ready).await, 3);
}
