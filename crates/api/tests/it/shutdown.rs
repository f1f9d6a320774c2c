//! An orderly end: no new work, and a bounded time for what is under way.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::Role;
use tenantry_testing::TestDatabase;
use tokio::time::timeout;

use crate::service::{Service, answer, until_blocked};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_request_under_way_is_finished() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let mut service = Service::on(&db).await;
    let token = service.token(tenant.id, Role::Owner);
    assert_eq!(service.get(&token, "/api/users").await.status, 200);
    let superuser = db.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.users", tenant.schema());
    superuser.batch_execute(&lock).await.unwrap();
    let user = json!({"email": "a@b.co", "name": "A", "role": "editor"});
    let post = service.request(Method::POST, "/api/users").bearer_auth(&token).json(&user);
    let post = tokio::spawn(answer(post));
    until_blocked(&db).await;
    service.stop.take().unwrap().send(()).unwrap();
    let refused = async {
        let live = || service.request(Method::GET, "/health/live").send();
        while live().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, refused).await.expect("new connections are refused");
    assert!(!service.running.is_finished(), "it waits for the request");
    superuser.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(post.await.unwrap().status, 201);
    timeout(SOON, service.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_grace_time_has_an_end() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let mut service = Service::with(&db, &[("http.shutdown_grace", "200ms")]).await;
    let token = service.token(tenant.id, Role::Owner);
    let superuser = db.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.users", tenant.schema());
    superuser.batch_execute(&lock).await.unwrap();
    let get = tokio::spawn(service.request(Method::GET, "/api/users").bearer_auth(&token).send());
    until_blocked(&db).await;
    service.stop.take().unwrap().send(()).unwrap();
    timeout(SOON, service.running).await.expect("it does not wait for ever").unwrap().unwrap();
    assert!(get.await.unwrap().is_err());
}
