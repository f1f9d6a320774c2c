//! `/health`. What it says of servers that are away stands in `outage`.

use reqwest::Method;
use tenantry_testing::TestDatabase;

use crate::service::{Service, answer};

#[tokio::test]
async fn a_working_installation_is_ready_with_and_without_tenants() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let live = answer(service.request(Method::GET, "/health/live")).await;
    assert_eq!((live.status.as_u16(), &live.body["status"]), (200, &"live".into()));
    let ready = answer(service.request(Method::GET, "/health/ready")).await;
    assert_eq!((ready.status.as_u16(), &ready.body["status"]), (200, &"ready".into()));
    db.tenant("acme").await;
    let service = Service::on(&db).await;
    assert_eq!(answer(service.request(Method::GET, "/health/ready")).await.status, 200);
}

#[tokio::test]
async fn an_old_public_schema_is_not_ready() {
    let db = TestDatabase::new().await;
    let forget = format!(
        "DELETE FROM public.migrations WHERE schema_name = 'public' AND version = {}",
        db.migrations.public.head()
    );
    db.superuser().await.batch_execute(&forget).await.unwrap();
    let service = Service::on(&db).await;
    let found = answer(service.request(Method::GET, "/health/ready")).await;
    assert_eq!(found.problem(), (503, "database_unavailable"));
    assert_eq!(found.body["errors"][0]["field"], "migrations");
}
