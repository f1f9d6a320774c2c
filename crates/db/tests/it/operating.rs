//! An operator in a tenant: statements and shells have the tenant's rights, and nobody else's.

mod shells;

use std::time::Duration;

use tenantry_db::lifecycle::suspend_tenant;
use tenantry_db::models::tenants::{Status, Tenant, get_tenant};
use tenantry_db::operate::{Exec, ExecOptions, ExecResult, OperatorStatement, active_tenants};
use tenantry_db::{Error, ErrorKind};
use tenantry_testing::TestDatabase;

use crate::texts;

const OPTIONS: ExecOptions = ExecOptions { timeout: None, read_only: false, max_rows: 100 };

async fn exec(
    db: &TestDatabase,
    tenant: &Tenant,
    sql: &str,
    options: ExecOptions,
) -> Result<ExecResult, Error> {
    let statement = OperatorStatement::new(sql)?;
    let exec = Exec {
        admin: &db.admin,
        config: &db.config,
        statement: &statement,
        options: &options,
        actor: &db.actor(),
    };
    exec.in_tenant(tenant).await
}

fn said(error: &Error) -> String {
    let source = std::error::Error::source(error);
    let cause = source.and_then(std::error::Error::source).map(ToString::to_string);
    format!("{error}: {}", cause.unwrap_or_default())
}

#[tokio::test]
async fn a_statement_runs_as_the_tenant_and_shows_every_type() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let run = async |tenant, sql| exec(&db, tenant, sql, OPTIONS).await.unwrap();
    let added = run(&acme, "INSERT INTO teams (name) VALUES ('a'), ('b')").await;
    assert_eq!((added.columns.len(), added.rows_affected), (0, 2));
    let all = "SELECT count(*) AS n, sum(1.50) AS s, NULL AS nothing, now() - now() AS i, ARRAY['x', NULL] AS a,
                      '{\"k\": 1}'::jsonb AS j, '127.0.0.1'::inet AS ip, current_user::text AS me, current_setting('search_path') AS p
               FROM teams";
    let seen = run(&acme, all).await;
    let schema = acme.schema();
    let values: Vec<Option<&str>> = seen.rows[0].iter().map(Option::as_deref).collect();
    let (me, path) = (schema.to_string(), format!("{schema}, public, pg_temp"));
    assert_eq!(
        values,
        [
            Some("2"),
            Some("3.00"),
            None,
            Some("00:00:00"),
            Some("{x,NULL}"),
            Some("{\"k\": 1}"),
            Some("127.0.0.1"),
            Some(&me),
            Some(&path)
        ]
    );
    assert_eq!(seen.columns[..3], ["n", "s", "nothing"]);
    assert_eq!(run(&globex, "SELECT id FROM teams").await.rows.len(), 0, "each sees its own");
    let many = run(&acme, "SELECT n FROM generate_series(1, 250) n").await;
    assert_eq!((many.rows.len(), many.rows_affected, many.truncated), (100, 250, true));
    let back = run(&acme, "DELETE FROM teams RETURNING name").await;
    assert_eq!((back.rows.len(), back.truncated), (2, false));
    run(&acme, "EXPLAIN SELECT name FROM teams").await;
}

#[tokio::test]
async fn nothing_leads_out_of_the_tenant_or_past_the_door() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let other = globex.schema();
    for sql in [
        "SET ROLE shared_owner",
        "RESET ROLE",
        "DROP TABLE users",
        "CREATE TABLE x ()",
        "COPY users TO STDOUT",
        "DO $$ BEGIN END $$",
        "COMMIT",
        "",
        "-- SELECT 1",
    ] {
        let refused = exec(&db, &acme, sql, OPTIONS).await.unwrap_err();
        assert!(matches!(refused, Error::RefusedStatement { .. }), "{sql}: {refused}");
        assert_eq!(refused.kind(), ErrorKind::Refused);
    }
    for (sql, code) in [
        (format!("SELECT id FROM {other}.users"), "permission denied"),
        ("SELECT id FROM public.tenants".to_owned(), "permission denied"),
        ("SELECT set_config('role', 'shared_owner', true)".to_owned(), "permission denied"),
        ("SELECT pg_read_file('/etc/passwd')".to_owned(), "permission denied"),
        ("SELECT 1; SET ROLE NONE".to_owned(), "cannot insert multiple commands"),
        (
            format!("SELECT 1; COMMIT; SET ROLE {other}; SELECT id FROM {other}.users"),
            "multiple commands",
        ),
        ("SELECT $1::text".to_owned(), "there is no parameter $1"),
        ("SELECT 1; -- only one\nSELECT 2".to_owned(), "multiple commands"),
        ("SELECT id FROM userz".to_owned(), "does not exist"),
        (
            "WITH x AS (DELETE FROM users RETURNING id) INSERT INTO public.countries SELECT 1"
                .to_owned(),
            "",
        ),
    ] {
        let refused = exec(&db, &acme, &sql, OPTIONS).await.unwrap_err();
        assert!(said(&refused).contains(code), "{sql}: {}", said(&refused));
    }
    // One that ends with a semicolon is one.
    exec(&db, &acme, "SELECT 1;", OPTIONS).await.unwrap();
    let only_read = ExecOptions { read_only: true, ..OPTIONS };
    let add = "INSERT INTO teams (name) VALUES ('a')";
    let refused = exec(&db, &acme, add, only_read).await.unwrap_err();
    assert!(said(&refused).contains("read-only transaction"), "{}", said(&refused));
    let short = ExecOptions { timeout: Some(Duration::from_millis(50)), ..OPTIONS };
    let late = exec(&db, &acme, "SELECT pg_sleep(10)", short).await.unwrap_err();
    assert!(matches!(late, Error::StatementTimeout(_)), "{late}");
    let count = "SELECT count(*) AS n FROM teams";
    let left = exec(&db, &acme, count, OPTIONS).await.unwrap();
    assert_eq!(left.rows, [[Some("0".to_owned())]], "nothing was kept of what failed");
}

#[tokio::test]
async fn whoever_is_shut_out_is_shut_out_for_operators_too() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    // With a row that was read before.
    let stale = exec(&db, &acme, "SELECT 1", OPTIONS).await.unwrap_err();
    assert!(matches!(stale, Error::Bind { .. }), "{stale}");
    let now = get_tenant(&db.reader, &"acme".parse().unwrap()).await.unwrap();
    let refused = exec(&db, &now, "SELECT 1", OPTIONS).await.unwrap_err();
    assert!(matches!(refused, Error::TenantNotServed { status: Status::Suspended, .. }));
    let served: Vec<_> = active_tenants(&db.reader).await.unwrap();
    assert_eq!(served.iter().map(|tenant| tenant.id).collect::<Vec<_>>(), [globex.id]);
}

#[tokio::test]
async fn what_is_about_to_run_is_recorded_without_its_text() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    for tenant in [&acme, &globex] {
        let ann = "SELECT id FROM users WHERE email = 'ann@b.co'";
        exec(&db, tenant, ann, OPTIONS).await.unwrap();
    }
    let entries = "SELECT tenant_id || ' ' || actor || ' ' || details::text FROM public.audit_log
                   WHERE action = 'tenant.statement_run' ORDER BY id";
    let entries = texts(&db.superuser().await, entries).await;
    assert_eq!(entries.len(), 2);
    assert!(entries[0].starts_with(&format!("{} test {{", acme.id)), "{entries:?}");
    assert!(entries.iter().all(|e| e.contains("statement_sha256") && !e.contains("ann")));
}
