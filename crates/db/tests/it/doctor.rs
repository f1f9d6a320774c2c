//! `doctor` finds what was broken on purpose.

use tenantry_db::doctor::{Check, Outcome, examine};
use tenantry_db::lifecycle;
use tenantry_testing::TestDatabase;

async fn findings(db: &TestDatabase) -> Vec<Check> {
    let checks = examine(&db.config, &db.migrations).await;
    checks.into_iter().filter(|check| check.outcome != Outcome::Ok).collect()
}

#[tokio::test]
async fn a_right_installation_has_no_findings() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
    db.tenant("acme").await;
    let found = findings(&db).await;
    assert!(found.is_empty(), "{found:?}");
}

/// Something broken on purpose, and how it is mended.
struct Damage {
    done: String,
    undone: String,
    /// The check that is to find it, and a piece of what it says.
    found_by: (&'static str, String),
}

impl Damage {
    fn new(
        done: impl Into<String>,
        undone: impl Into<String>,
        check: &'static str,
        words: impl Into<String>,
    ) -> Self {
        Self { done: done.into(), undone: undone.into(), found_by: (check, words.into()) }
    }

    async fn is_found(&self, db: &TestDatabase) {
        let superuser = db.superuser().await;
        superuser.batch_execute(&self.done).await.unwrap();
        let found = findings(db).await;
        let (check, words) = &self.found_by;
        let named =
            found.iter().any(|f| f.name == *check && f.detail.contains(words) && f.hint.is_some());
        assert!(named, "after `{}`: {found:?}", self.done);
        superuser.batch_execute(&self.undone).await.unwrap();
    }
}

#[tokio::test]
async fn damaged_rights_are_found_and_named() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
    let acme = db.tenant("acme").await;
    let (schema, name) = (acme.schema(), db.name());
    let own = format!("shared_lane_{}", acme.lane);
    let other = format!("shared_lane_{:02}", (acme.lane.number() + 1) % 4);
    for damage in [
        Damage::new(
            "GRANT EXECUTE ON FUNCTION set_config TO PUBLIC",
            "REVOKE EXECUTE ON FUNCTION set_config FROM PUBLIC",
            "hardening",
            "set_config",
        ),
        Damage::new(
            format!("GRANT TEMP ON DATABASE {name} TO PUBLIC"),
            format!("REVOKE TEMP ON DATABASE {name} FROM PUBLIC"),
            "hardening",
            "TEMP",
        ),
        Damage::new(
            "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC",
            "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
            "hardening",
            "plpgsql",
        ),
        Damage::new(
            "GRANT USAGE ON SCHEMA public TO PUBLIC",
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
            "hardening",
            "schema public",
        ),
        Damage::new(
            format!("GRANT {schema} TO {other}"),
            format!("REVOKE {schema} FROM {other}"),
            "lane members",
            &other,
        ),
        Damage::new(
            format!("REVOKE {schema} FROM {own}"),
            format!("GRANT {schema} TO {own}"),
            "lane members",
            "no lane",
        ),
        Damage::new(
            format!("ALTER ROLE {schema} CREATEROLE"),
            format!("ALTER ROLE {schema} NOCREATEROLE"),
            "roles",
            format!("`{schema}` has an attribute"),
        ),
        Damage::new(
            format!("ALTER DATABASE {name} SET search_path = public"),
            format!("ALTER DATABASE {name} RESET ALL"),
            "roles",
            "`everybody` has the setting `search_path=public`",
        ),
        Damage::new(
            format!("ALTER ROLE shared_lane_31 IN DATABASE {name} SET role = '{schema}'"),
            format!("ALTER ROLE shared_lane_31 IN DATABASE {name} RESET ALL"),
            "roles",
            format!("`shared_lane_31` has the setting `role={schema}` in `{name}`"),
        ),
    ] {
        damage.is_found(&db).await;
    }
    let left = findings(&db).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn grants_by_hand_are_found_and_named() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
    let acme = db.tenant("acme").await;
    let schema = acme.schema();
    let other = format!("shared_lane_{:02}", (acme.lane.number() + 1) % 4);
    for damage in [
        Damage::new(
            format!("GRANT USAGE ON SCHEMA {schema} TO {other}"),
            format!("REVOKE USAGE ON SCHEMA {schema} FROM {other}"),
            "grants",
            format!("`{other}` has USAGE on schema `{schema}`"),
        ),
        Damage::new(
            format!("GRANT SELECT ON {schema}.users TO PUBLIC"),
            format!("REVOKE SELECT ON {schema}.users FROM PUBLIC"),
            "grants",
            "`everybody` has SELECT",
        ),
        Damage::new(
            format!("GRANT EXECUTE ON FUNCTION set_config TO {schema}"),
            format!("REVOKE EXECUTE ON FUNCTION set_config FROM {schema}"),
            "grants",
            "set_config",
        ),
        Damage::new(
            format!("GRANT {schema} TO shared_reader"),
            format!("REVOKE {schema} FROM shared_reader"),
            "lane members",
            format!("shared_lane_{}, shared_reader", acme.lane),
        ),
        Damage::new(
            "GRANT SELECT ON public.tenants TO shared_tenant",
            "REVOKE SELECT ON public.tenants FROM shared_tenant",
            "grants",
            "`public.tenants`",
        ),
    ] {
        damage.is_found(&db).await;
    }
    let left = findings(&db).await;
    assert!(left.is_empty(), "{left:?}");
}

/// PostgreSQL 16 makes whoever creates a role its member; on 15, this does the same.
#[tokio::test]
async fn the_rolemaker_may_be_a_member_of_what_it_makes() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
    let schema = db.tenant("acme").await.schema();
    let grant = format!("GRANT {schema} TO shared_rolemaker WITH ADMIN OPTION");
    db.superuser().await.batch_execute(&grant).await.unwrap();
    let found = findings(&db).await;
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn damaged_schemas_are_found_and_named() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
    let acme = db.tenant("acme").await;
    let schema = acme.schema();
    let stray = tenantry_db::TenantId::random().schema();
    for damage in [
        Damage::new(
            "CREATE TABLE public.users ()",
            "DROP TABLE public.users",
            "table names",
            "public.users",
        ),
        Damage::new(
            format!("ALTER SCHEMA {schema} RENAME TO elsewhere"),
            format!("ALTER SCHEMA elsewhere RENAME TO {schema}"),
            "tenant schemas",
            format!("`{schema}` has no schema"),
        ),
        Damage::new(
            format!("CREATE SCHEMA {stray}"),
            format!("DROP SCHEMA {stray}"),
            "tenant schemas",
            "has no row",
        ),
        Damage::new(
            "UPDATE public.tenants SET schema_version = 1",
            "UPDATE public.tenants SET schema_version = 2",
            "migrations",
            "1 tenants are below version 2",
        ),
    ] {
        damage.is_found(&db).await;
    }
    let left = findings(&db).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn unreachable_servers_are_findings_not_errors() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
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

#[tokio::test]
async fn a_purge_that_stopped_and_one_that_is_overdue_are_found() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
    let acme = db.tenant("acme").await;
    let confirm = Some("acme");
    let how = lifecycle::Deletion { confirm, retention: None };
    lifecycle::delete_tenant(&db.admin, &db.config, acme.id, how, &db.actor()).await.unwrap();
    Damage::new(
        "UPDATE public.tenants SET deleted_at = deleted_at - interval '60 days', purge_after = purge_after - interval '60 days'",
        "UPDATE public.tenants SET deleted_at = deleted_at + interval '60 days', purge_after = purge_after + interval '60 days'",
        "purges",
        "1 tenants are due for more than an hour",
    )
    .is_found(&db)
    .await;
    let superuser = db.superuser().await;
    let view = format!("CREATE VIEW public.report AS SELECT name FROM {}.users", acme.schema());
    superuser.batch_execute(&view).await.unwrap();
    let (ledger, actor) = (db.ledger(), db.actor());
    let authority = lifecycle::Authority::Confirmed { confirm, now: true };
    lifecycle::purge_tenant(&db.admin, &ledger, acme.id, authority, &actor, |_| {})
        .await
        .unwrap_err();
    // Its schema has another name by now, and that is as it should be.
    let found = findings(&db).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].name == "purges" && found[0].detail.contains("view report"), "{found:?}");
    superuser.batch_execute("DROP VIEW public.report").await.unwrap();
    lifecycle::continue_purge(&db.admin, &ledger, acme.id, &actor, |_| {}).await.unwrap();
    assert!(findings(&db).await.is_empty());
    // A ledger that is damaged, and one that is not the one that the database knows.
    let file = db.config.erasure.ledger_dir.clone().unwrap().join("erasures.jsonl");
    for (text, words) in [("{}\n", "damaged at line 1"), ("", "lacks entry 1")] {
        std::fs::write(&file, text).unwrap();
        let found = findings(&db).await;
        assert!(found.len() == 1 && found[0].name == "purges", "{found:?}");
        assert!(found[0].detail.contains(words), "{found:?}");
    }
}
