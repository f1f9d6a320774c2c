//! `/health`. What it says of servers that are away stands in `outage`.

use reqwest::Method;
use tenantry_db::doctor::Outcome;
use tenantry_db::models::backups::{BackupCheck, BackupReport, save_report};
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

#[tokio::test]
async fn bad_backups_are_warned_of_and_tenants_are_served_all_the_same() {
    let db = TestDatabase::new().await;
    let report = |outcome| BackupReport {
        checks: vec![BackupCheck {
            name: "archiver".to_owned(),
            outcome,
            detail: "/a/path/of/the/host".to_owned(),
            hint: None,
        }],
        numbers: [("gaps".to_owned(), 3.0)].into(),
        holding: None,
    };
    // Read when the service starts; then now and then.
    let ready = async |outcome| {
        save_report(&db.admin, &report(outcome)).await.unwrap();
        let service = Service::with(&db, &[("backup.enabled", "true")]).await;
        for _ in 0..500 {
            let numbers = service.request(Method::GET, "/metrics").send().await.unwrap();
            let numbers = numbers.text().await.unwrap();
            if numbers.contains("tenantry_backup_gaps 3") {
                let answer = answer(service.request(Method::GET, "/health/ready")).await;
                return (answer, numbers);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the report was not read within 10 s");
    };
    let (answer, numbers) = ready(Outcome::Failed).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["status"], "ready");
    assert_eq!(answer.body["warnings"][0]["field"], "archiver");
    assert!(!answer.body.to_string().contains("path"), "anybody may ask");
    assert!(numbers.contains(r#"tenantry_backup_check{check="archiver"} 2"#), "{numbers}");
    let (answer, numbers) = ready(Outcome::Ok).await;
    assert_eq!(answer.body.get("warnings"), None);
    assert!(numbers.contains(r#"tenantry_backup_check{check="archiver"} 0"#), "{numbers}");
}
