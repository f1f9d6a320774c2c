//! `/api/countries`, `/api/timezones`, `/api/platform-metadata`.

use tenantry_api::auth::Role;
use tenantry_testing::TestDatabase;

use crate::service::Service;

#[tokio::test]
async fn what_all_tenants_share_is_given_whole() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    let token = service.token(tenant, Role::Viewer);
    for (path, count, field) in [
        ("/api/countries", 249, "alpha2"),
        ("/api/timezones", 597, "country_codes"),
        ("/api/platform-metadata", 20, "data"),
    ] {
        let found = service.get(&token, path).await;
        assert_eq!(found.status, 200, "{found:?}");
        let rows = found.body["data"].as_array().unwrap();
        assert_eq!(rows.len(), count, "{path}");
        assert!(rows[0].get(field).is_some() && found.body["next_cursor"].is_null());
        let bad = service.get(&token, &format!("{path}?limit=1")).await;
        assert_eq!(bad.bad_fields(), ["limit"]);
    }
}
