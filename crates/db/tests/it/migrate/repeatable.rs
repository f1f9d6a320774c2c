//! Views and functions that are applied again whenever their files change.

use tenantry_db::migrate::{RunState, fleet_status};

use super::failure;
use super::fleet::{Fleet, LABEL};
use crate::texts;

const FILE: &str = "tenant/repeatable/overview.sql";
const FIRST: &str =
    "CREATE OR REPLACE FUNCTION overview() RETURNS text LANGUAGE sql RETURN 'first';";
const PUBLIC: &str = "public/repeatable/shared.sql";

/// What the function says in each schema, the register's order; public's last.
async fn says(fleet: &Fleet) -> Vec<String> {
    let mut said = Vec::new();
    let schemas =
        "SELECT nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                   LEFT JOIN public.tenants t ON nspname = 'tenant_' || replace(t.id::text, '-', '')
                   WHERE proname IN ('overview', 'shared') ORDER BY t.created_at";
    for schema in texts(&fleet.superuser, schemas).await {
        let function = if schema == "public" { "shared" } else { "overview" };
        said.extend(texts(&fleet.superuser, &format!("SELECT {schema}.{function}()")).await);
    }
    said
}

async fn behind(fleet: &Fleet) -> (i64, Vec<Option<String>>) {
    let status = fleet_status(&fleet.db.reader, &fleet.migrations()).await.unwrap();
    (status.behind_count, status.behind.into_iter().map(|tenant| tenant.subdomain).collect())
}

#[tokio::test]
async fn they_are_applied_when_they_are_new_or_changed_and_not_otherwise() {
    let fleet = Fleet::new(2).await;
    let shared = FIRST.replace("overview", "shared");
    fleet.write(&[(FILE, FIRST), (PUBLIC, &shared)]);
    assert_eq!(behind(&fleet).await.0, 2);
    assert_eq!(fleet.to_head().await.tenants.done, 2);
    assert_eq!(says(&fleet).await, ["first", "first", "first"]);
    assert_eq!(behind(&fleet).await.0, 0);
    // Nothing to do: what somebody did by hand stays.
    for (schema, function) in [(fleet.schema(1), "overview"), ("public".to_owned(), "shared")] {
        let by_hand = format!(
            "CREATE OR REPLACE FUNCTION {schema}.{function}() RETURNS text LANGUAGE sql RETURN 'by hand'"
        );
        fleet.superuser.batch_execute(&by_hand).await.unwrap();
    }
    assert_eq!(fleet.to_head().await.tenants.total, 0);
    // A comment is no change either.
    fleet.write(&[(FILE, &format!("-- why\n{FIRST}"))]);
    assert_eq!(fleet.to_head().await.tenants.total, 0);
    assert_eq!(says(&fleet).await, ["by hand", "first", "by hand"]);

    fleet.write(&[(FILE, &FIRST.replace("first", "second"))]);
    let changed = vec![Some("t1".to_owned()), Some("t2".to_owned())];
    assert_eq!(behind(&fleet).await, (2, changed));
    assert_eq!(fleet.to_head().await.tenants.done, 2);
    assert_eq!(says(&fleet).await, ["second", "second", "by hand"]);
    fleet.write(&[(PUBLIC, &shared.replace("first", "second"))]);
    assert_eq!(fleet.to_head().await.tenants.total, 0, "only the public schema");
    assert_eq!(says(&fleet).await, ["second", "second", "second"]);
}

#[tokio::test]
async fn they_are_part_of_a_new_tenant_and_come_after_the_migrations() {
    let fleet = Fleet::new(1).await;
    fleet.write(&[
        LABEL,
        (FILE, "CREATE OR REPLACE VIEW overview AS SELECT id FROM label;"),
        ("tenant/repeatable/later.sql", "CREATE OR REPLACE VIEW later AS SELECT id FROM overview;"),
    ]);
    // In the order of their names, `later` comes first, and can't.
    let report = fleet.run(fleet.options()).await.unwrap();
    let failed = failure(&report);
    assert!(failed.file.as_deref().unwrap().ends_with("tenant/repeatable/later.sql"), "{failed:?}");
    assert_eq!((failed.line, failed.sqlstate.as_deref()), (Some(1), Some("42P01")));
    assert_eq!((report.state, fleet.at(101).await), (RunState::Failed, vec![1]));
    assert_eq!(behind(&fleet).await.0, 1, "it has the migration, and not the view");
    fleet.remove("tenant/repeatable/later.sql");
    fleet.to_head().await;
    fleet.create(&fleet.migrations(), "new").await;
    let views = "SELECT count(*)::text FROM pg_class WHERE relname = 'overview' AND relkind = 'v'";
    assert_eq!(texts(&fleet.superuser, views).await, ["2"]);
    assert_eq!(behind(&fleet).await.0, 0);
    assert_eq!(fleet.to_head().await.tenants.total, 0);
}

#[tokio::test]
async fn a_way_back_makes_them_come_again() {
    let fleet = Fleet::new(2).await;
    fleet.write(&[
        LABEL,
        ("tenant/0101_label.down.sql", "DROP VIEW IF EXISTS overview; DROP TABLE label;"),
        (FILE, "CREATE OR REPLACE VIEW overview AS SELECT id FROM label;"),
    ]);
    fleet.to_head().await;
    fleet.run(fleet.back_to(2)).await.unwrap();
    assert_eq!(fleet.to_head().await.tenants.done, 2);
    let views = "SELECT count(*)::text FROM pg_class WHERE relname = 'overview' AND relkind = 'v'";
    assert_eq!(texts(&fleet.superuser, views).await, ["2"]);
}
