//! Invariants 2 and 3: who may do what is the database's decision.

use tenantry_db::LaneId;
use tenantry_db::models::tenants::Tenant;
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::{refusal, texts};

fn lane(tenant: &Tenant) -> LaneId {
    tenant.lane
}

/// A lane's connection bound to its tenant until the transaction ends.
async fn bound(db: &TestDatabase, tenant: &Tenant) -> Client {
    let client = db.lane_direct(lane(tenant)).await;
    let schema = tenant.schema();
    client
        .batch_execute(&format!(
            "BEGIN; SET LOCAL ROLE {schema}; SET LOCAL search_path TO {schema}, public, pg_temp"
        ))
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn an_unbound_lane_reads_nothing() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let lane = db.lane_direct(lane(&tenant)).await;
    let schema = tenant.schema();
    for statement in [
        format!("SELECT FROM {schema}.users"),
        "SELECT FROM public.tenants".to_owned(),
        "SELECT FROM public.countries".to_owned(),
        format!("SELECT {schema}.this_tenant()"),
        "CREATE TABLE public.x ()".to_owned(),
        format!("CREATE TABLE {schema}.x ()"),
        "CREATE SCHEMA x".to_owned(),
        "CREATE TEMP TABLE x ()".to_owned(),
        "SELECT set_config('role', 'none', true)".to_owned(),
        "SELECT pg_advisory_lock(1)".to_owned(),
        "SELECT lo_create(0)".to_owned(),
        "DO $$ BEGIN END $$".to_owned(),
        "SELECT shared.create_tenant_role(gen_random_uuid())".to_owned(),
    ] {
        assert_eq!(
            refusal(&lane, &statement).await,
            SqlState::INSUFFICIENT_PRIVILEGE,
            "{statement}"
        );
    }
    // An empty path: an unqualified name means nothing at all.
    assert_eq!(texts(&lane, "SELECT current_setting('search_path')").await, ["\"\""]);
    assert_eq!(refusal(&lane, "SELECT FROM countries").await, SqlState::UNDEFINED_TABLE);
    assert_eq!(refusal(&lane, "SELECT FROM users").await, SqlState::UNDEFINED_TABLE);
}

#[tokio::test]
async fn a_lane_takes_the_roles_of_its_own_tenants_only() {
    let db = TestDatabase::new().await;
    let mut tenants = Vec::new();
    for i in 0..8 {
        tenants.push(db.tenant(&format!("t{i}")).await);
    }
    let first = &tenants[0];
    let client = db.lane_direct(lane(first)).await;
    for tenant in &tenants {
        let statement = format!("SET ROLE {}", tenant.schema());
        if tenant.lane == first.lane {
            client.batch_execute(&statement).await.unwrap();
            client.batch_execute("RESET ROLE").await.unwrap();
        } else {
            assert_eq!(refusal(&client, &statement).await, SqlState::INSUFFICIENT_PRIVILEGE);
        }
    }
    for role in ["shared_owner", "shared_admin", "shared_rolemaker", "postgres"] {
        let statement = format!("SET ROLE {role}");
        assert_eq!(refusal(&client, &statement).await, SqlState::INSUFFICIENT_PRIVILEGE, "{role}");
    }
}

#[tokio::test]
async fn a_tenant_uses_everything_in_its_schema() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let client = bound(&db, &tenant).await;
    let tables = texts(&client, "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace").await;
    assert_eq!(tables.len(), 9, "{tables:?}");
    for table in &tables {
        for statement in [
            format!("SELECT FROM {table}"),
            format!("UPDATE {table} SET updated_at = now()"),
            format!("DELETE FROM {table}"),
        ] {
            client
                .batch_execute(&statement)
                .await
                .unwrap_or_else(|e| panic!("`{statement}`: {e:?}"));
        }
    }
    client
        .batch_execute(
            "INSERT INTO users (email, name, role) VALUES ('a@example.org', 'A', 'owner');
             INSERT INTO content (title, author_id) SELECT 'T', id FROM users;
             SELECT nextval('content_number_seq'); SELECT last_value FROM content_number_seq;
             SELECT count(*) FROM countries; SELECT count(*) FROM timezones; SELECT count(*) FROM platform_metadata",
        )
        .await
        .unwrap();
    let owned = texts(&client, "SELECT tenant_id::text FROM users").await;
    assert_eq!(owned, [tenant.id.to_string()]);
}

#[tokio::test]
async fn of_public_a_tenant_may_read_the_shared_tables_and_no_more() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let client = bound(&db, &tenant).await;
    let may = |right: &str| {
        format!(
            "SELECT relname::text FROM pg_class
              WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
                AND CASE relkind WHEN 'S' THEN has_sequence_privilege(oid, 'USAGE, SELECT, UPDATE')
                    ELSE has_table_privilege(oid, '{right}') OR has_any_column_privilege(oid, '{right}') END
              ORDER BY relname"
        )
    };
    let read = texts(&client, &may("SELECT")).await;
    assert_eq!(read, ["countries", "platform_metadata", "timezones"]);
    let write = texts(&client, &may("INSERT, UPDATE, REFERENCES")).await;
    assert!(write.is_empty(), "{write:?}");
}

#[tokio::test]
async fn the_admin_is_no_superuser_by_any_way() {
    let db = TestDatabase::new().await;
    let admin = db.admin_client().await;
    for statement in [
        "CREATE ROLE intruder LOGIN",
        "GRANT pg_execute_server_program TO shared_admin",
        "GRANT pg_read_server_files TO shared_admin",
        "GRANT shared_rolemaker TO shared_admin",
        "SET ROLE shared_rolemaker",
        "SET ROLE postgres",
        "ALTER ROLE shared_admin CREATEROLE",
        "ALTER ROLE shared_admin SUPERUSER",
        "ALTER ROLE shared_lane_00 PASSWORD 'x'",
        "COPY public.countries TO PROGRAM 'true'",
        "COPY public.countries FROM PROGRAM 'true'",
        "COPY public.countries FROM '/etc/passwd'",
        "CREATE DATABASE intruder",
        "CREATE FUNCTION public.x() RETURNS int LANGUAGE c AS 'x'",
        "ALTER FUNCTION shared.create_tenant_role(uuid) OWNER TO shared_admin",
        "CREATE FUNCTION shared.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ] {
        assert_eq!(
            refusal(&admin, statement).await,
            SqlState::INSUFFICIENT_PRIVILEGE,
            "{statement}"
        );
    }
}

#[tokio::test]
async fn the_control_functions_touch_tenant_roles_of_this_installation_only() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let admin = db.admin_client().await;
    let stranger = tenantry_db::TenantId::random();
    db.superuser()
        .await
        .batch_execute(&format!("CREATE ROLE {}", stranger.schema()))
        .await
        .unwrap();
    for statement in [
        format!("SELECT shared.grant_tenant_role('{stranger}', 0)"),
        format!("SELECT shared.drop_tenant_role('{stranger}')"),
        format!("SELECT shared.revoke_tenant_role('{stranger}', 0)"),
    ] {
        assert_eq!(refusal(&admin, &statement).await, SqlState::UNDEFINED_OBJECT, "{statement}");
    }
    let no_lane = format!("SELECT shared.grant_tenant_role('{}', 32)", tenant.id);
    assert_eq!(refusal(&admin, &no_lane).await, SqlState::INVALID_PARAMETER_VALUE);
}

#[tokio::test]
async fn the_reader_looks_and_changes_nothing() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let found = tenantry_db::models::tenants::get_tenant(&db.reader, &"acme".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(found.id, tenant.id);
    let reader = db.reader_client().await;
    for statement in [
        "UPDATE public.tenants SET tier = 'x'".to_owned(),
        "DELETE FROM public.tenants".to_owned(),
        "INSERT INTO public.audit_log (actor, action) VALUES ('x', 'x')".to_owned(),
        format!("SELECT FROM {}.users", tenant.schema()),
        format!("SET ROLE {}", tenant.schema()),
    ] {
        assert_eq!(
            refusal(&reader, &statement).await,
            SqlState::INSUFFICIENT_PRIVILEGE,
            "{statement}"
        );
    }
}

#[tokio::test]
async fn the_audit_log_can_only_grow() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let superuser = db.superuser().await;
    assert_eq!(
        texts(&superuser, "SELECT action || ' by ' || actor FROM public.audit_log").await,
        ["tenant.created by test"]
    );
    for statement in [
        "UPDATE public.audit_log SET actor = 'x'",
        "DELETE FROM public.audit_log",
        "TRUNCATE public.audit_log",
    ] {
        assert_eq!(refusal(&superuser, statement).await.code(), "55000", "{statement}");
    }
}
