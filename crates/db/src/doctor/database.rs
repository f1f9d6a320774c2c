//! The primary: version, rights, schemas.

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::{Check, audit, grants, kept_schemas, purges, ready_pool, roles, shells, slots};
use crate::config::Config;
use crate::direct::{AdminDb, ReaderDb};
use crate::error::{Doing, Error};
use crate::init::open_to_everybody;
use crate::migrate::{Migrations, fleet_status};

pub(super) async fn checks(config: &Config, migrations: &Migrations) -> Vec<Check> {
    let admin = match connect(config).await {
        Ok((admin, version)) => (admin, Check::ok("primary", version)),
        Err(error) => return vec![Check::error("primary", &error)],
    };
    let (db, primary) = admin;
    let mut checks = vec![primary];
    checks.push(or_error("roles", roles::check(&db, config).await));
    checks.push(or_error("hardening", hardening(&db, config).await));
    checks.push(or_error("replication", slots::check(&db).await));
    match ReaderDb::new(config) {
        Ok(reader) => {
            let fleet = migration_heads(&reader, migrations).await;
            let migrated = fleet.is_ok();
            checks.push(or_error("migrations", fleet));
            if migrated {
                checks.push(or_error("tenant schemas", schemas(&db).await));
                checks.push(or_error("lane members", roles::check_lanes(&db, config).await));
                let pool = ready_pool::check(&reader, config, migrations).await;
                checks.push(or_error("ready pool", pool));
                checks.push(or_error("grants", grants::check(&db, config).await));
                checks.push(or_error("table names", table_names(&db).await));
                checks.push(or_error("purges", purges::check(&db, config).await));
                checks.push(or_error("kept schemas", kept_schemas::check(&db).await));
                checks.push(or_error("audit log", audit::check(&db, config).await));
                checks.push(or_error("shells", shells::check(&db, config).await));
            }
        }
        Err(error) => checks.push(Check::error("migrations", &error)),
    }
    checks
}

fn or_error(name: &'static str, check: Result<Check, Error>) -> Check {
    check.unwrap_or_else(|error| Check::error(name, &error))
}

async fn connect(config: &Config) -> Result<(Object, String), Error> {
    let db = AdminDb::new(config)?.connection().await?;
    let row = db
        .query_typed_one("SELECT current_setting('server_version'), pg_is_in_recovery()", &[])
        .await
        .doing("ask the server for its version")?;
    if row.get(1) {
        return Err(Error::UnsuitableServer("`database.direct_url` leads to a replica".to_owned()));
    }
    let database = config.database.name()?;
    Ok((db, format!("PostgreSQL {}, database `{database}`", row.get::<_, &str>(0))))
}

async fn hardening(db: &Object, config: &Config) -> Result<Check, Error> {
    let client: &tokio_postgres::Client = db;
    let open = open_to_everybody(client).await?;
    let database = config.database.name()?;
    Ok(match open.as_slice() {
        [] => Check::ok("hardening", "PUBLIC has nothing here that it should not have"),
        open => Check::failed(
            "hardening",
            format!("everybody has: {}", open.join(", ")),
            format!(
                "run `tenantry init` again; on a managed service, ask its support how to revoke it in `{database}`"
            ),
        ),
    })
}

async fn migration_heads(reader: &ReaderDb, migrations: &Migrations) -> Result<Check, Error> {
    let fleet = fleet_status(reader, migrations).await?;
    let behind = fleet.behind.len();
    let more = if fleet.behind_truncated { " or more" } else { "" };
    Ok(if !fleet.public.pending.is_empty() {
        return Err(Error::Behind {
            set: crate::migrate::SetKind::Public,
            found: fleet.public.applied,
            needed: fleet.public.head,
        });
    } else if let Some(first) = fleet.halfway.first() {
        Check::warning(
            "migrations",
            format!(
                "version {} has run half way in `{}`{}",
                first.version,
                first.name(),
                if fleet.halfway.len() > 1 { " and others" } else { "" }
            ),
            "`tenantry migrate status` lists them, `tenantry migrate run` goes on where it stopped",
        )
    } else if behind > 0 {
        Check::warning(
            "migrations",
            format!("{behind}{more} tenants are below version {}", fleet.tenant_head),
            "`tenantry migrate status` lists them, `tenantry migrate run` brings them to head",
        )
    } else {
        let tenants: i64 = fleet.tenants_by_version.iter().map(|at| at.tenants).sum();
        Check::ok(
            "migrations",
            format!(
                "public set at version {}, all tenants ({tenants}) at version {}",
                fleet.public.applied, fleet.tenant_head
            ),
        )
    })
}

/// A tenant has a row, a schema and a role, or none of them.
async fn schemas(db: &Object) -> Result<Check, Error> {
    let rows = db
        .query_typed(
            // One that is being purged loses them one after another.
            "WITH losing AS (
                 SELECT 'tenant_' || replace(id::text, '-', '') AS name FROM public.tenants WHERE status = 'purging'
             ), names AS (
                 SELECT 'tenant_' || replace(id::text, '-', '') AS name, true AS row, false AS schema, false AS role
                   FROM public.tenants WHERE status NOT IN ('purging', 'purged')
                 UNION ALL
                 SELECT nspname, false, true, false FROM pg_namespace
                  WHERE nspname ~ '^tenant_[0-9a-f]{32}$' AND nspname NOT IN (SELECT name FROM losing)
                 UNION ALL
                 SELECT r.rolname, false, false, true FROM pg_roles r
                  WHERE r.rolname IN (SELECT 'tenant_' || replace(id::text, '-', '') FROM public.tenants)
                    AND r.rolname NOT IN (SELECT name FROM losing)
             )
             SELECT name::text, bool_or(row), bool_or(schema), bool_or(role) FROM names
             GROUP BY name HAVING NOT (bool_or(row) AND bool_or(schema) AND bool_or(role))
             ORDER BY name LIMIT 11",
            &[],
        )
        .await
        .doing("compare tenants, schemas and roles")?;
    let found = |has: bool, what: &'static str| if has { None } else { Some(what) };
    let half: Vec<String> = rows
        .iter()
        .map(|row| {
            let missing: Vec<_> = [(1, "row"), (2, "schema"), (3, "role")]
                .into_iter()
                .filter_map(|(column, what)| found(row.get(column), what))
                .collect();
            format!("`{}` has no {}", row.get::<_, &str>(0), missing.join(" and no "))
        })
        .collect();
    Ok(if half.is_empty() {
        Check::ok("tenant schemas", "each tenant has its row, schema and role")
    } else {
        Check::failed(
            "tenant schemas",
            half.join(", "),
            "somebody changed these by hand: compare with a backup before you drop or create anything",
        )
    })
}

/// A public table with a tenant table's name would be read where the tenant's own is missing.
async fn table_names(db: &Object) -> Result<Check, Error> {
    let rows = db
        .query_typed(
            "SELECT DISTINCT p.relname::text FROM pg_class p
             WHERE p.relnamespace = 'public'::regnamespace AND p.relkind IN ('r', 'p', 'v', 'm', 'f')
               AND EXISTS (SELECT FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
                            WHERE t.relname = p.relname AND n.nspname ~ $1)
             ORDER BY 1",
            &[(&"^tenant_[0-9a-f]{32}$", Type::TEXT)],
        )
        .await
        .doing("compare table names")?;
    let shared: Vec<String> =
        rows.iter().map(|row| format!("`public.{}`", row.get::<_, &str>(0))).collect();
    Ok(if shared.is_empty() {
        Check::ok("table names", "no public table bears a tenant table's name")
    } else {
        Check::failed(
            "table names",
            format!("{} bears a tenant table's name", shared.join(", ")),
            "rename the public table",
        )
    })
}
