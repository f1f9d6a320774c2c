//! `doctor` finds what was broken on purpose.

use tenantry_db::doctor::{Check, Outcome, examine};
use tenantry_testing::TestDatabase;

async fn findings(db: &TestDatabase) -> Vec<Check> {
    let checks = examine(&db.config, &db.migrations).await;
    checks.into_iter().filter(|check| check.outcome != Outcome::Ok).collect()
}

#[tokio::test]
async fn a_right_installation_has_no_findings() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let found = findings(&db).await;
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn every_kind_of_damage_is_found_and_named() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let schema = acme.schema();
    let stray = tenantry_db::TenantId::random().schema();
    let other_lane = (acme.lane + 1) % 4;
    for (damage, repair, check, words) in [
        (
            "GRANT EXECUTE ON FUNCTION set_config TO PUBLIC".to_owned(),
            "REVOKE EXECUTE ON FUNCTION set_config FROM PUBLIC".to_owned(),
            "hardening",
            "set_config".to_owned(),
        ),
        (
            format!("GRANT TEMP ON DATABASE {} TO PUBLIC", db.name()),
            format!("REVOKE TEMP ON DATABASE {} FROM PUBLIC", db.name()),
            "hardening",
            "TEMP".to_owned(),
        ),
        (
            "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC".to_owned(),
            "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC".to_owned(),
            "hardening",
            "plpgsql".to_owned(),
        ),
        (
            "CREATE TABLE public.users ()".to_owned(),
            "DROP TABLE public.users".to_owned(),
            "table names",
            "public.users".to_owned(),
        ),
        (
            format!("GRANT {schema} TO shared_lane_{other_lane:02}"),
            format!("REVOKE {schema} FROM shared_lane_{other_lane:02}"),
            "lane members",
            format!("shared_lane_{other_lane:02}"),
        ),
        (
            format!("REVOKE {schema} FROM shared_lane_{:02}", acme.lane),
            format!("GRANT {schema} TO shared_lane_{:02}", acme.lane),
            "lane members",
            "no lane".to_owned(),
        ),
        (
            format!("ALTER SCHEMA {schema} RENAME TO elsewhere"),
            format!("ALTER SCHEMA elsewhere RENAME TO {schema}"),
            "tenant schemas",
            format!("`{schema}` has no schema"),
        ),
        (
            format!("CREATE SCHEMA {stray}"),
            format!("DROP SCHEMA {stray}"),
            "tenant schemas",
            "has no row".to_owned(),
        ),
        (
            "UPDATE public.tenants SET schema_version = 1".to_owned(),
            "UPDATE public.tenants SET schema_version = 2".to_owned(),
            "migrations",
            "1 tenants are below version 2".to_owned(),
        ),
    ] {
        superuser.batch_execute(&damage).await.unwrap();
        let found = findings(&db).await;
        let named =
            found.iter().any(|f| f.name == check && f.detail.contains(&words) && f.hint.is_some());
        assert!(named, "after `{damage}`: {found:?}");
        superuser.batch_execute(&repair).await.unwrap();
    }
    let left = findings(&db).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn unreachable_servers_are_findings_not_errors() {
    let db = TestDatabase::new().await;
    let layers = db.servers().layers(db.name(), "shared");
    let layers = layers.flag("test", "database.connect_timeout", "1s");
    let layers =
        layers.flag("test", "database.direct_url", "postgresql://shared_admin:x@127.0.0.1:1/x");
    let layers = layers.flag("test", "database.url", "postgresql://127.0.0.1:1/x");
    let config = tenantry_db::Config::from_layers(layers).unwrap();
    let checks = examine(&config, &db.migrations).await;
    let failed: Vec<_> =
        checks.iter().filter(|c| c.outcome == Outcome::Failed).map(|c| c.name).collect();
    assert_eq!(failed, ["primary", "pgbouncer"]);
}
