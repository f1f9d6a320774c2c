//! What a drill looks at, in the same way on the server and on the copy that was restored from its backup.

use jiff::Timestamp;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// One table of the canary: its name, its rows, and a sum over what is in them.
pub type CanaryTable = (String, i64, String);

/// All that a tenant has, in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Which one.
    pub tenant: TenantId,
    /// Its tables, by name.
    pub tables: Vec<CanaryTable>,
}

/// Whether the register and the catalog agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wholeness {
    /// Tenants that have a schema by the register.
    pub tenants: i64,
    /// Of these, those that have none.
    pub without_schema: i64,
    /// And those without a role.
    pub without_role: i64,
    /// The newest public migration.
    pub public_head: i64,
    /// The newest one that a tenant has.
    pub tenant_head: i64,
}

/// The tenant to compare: the one that has been active longest.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn find_canary(admin: &AdminDb) -> Result<Option<TenantId>, Error> {
    let db = admin.connection().await?;
    let row = db
        .query_typed_opt(
            "SELECT id FROM public.tenants WHERE status = 'active' ORDER BY created_at, id LIMIT 1",
            &[],
        )
        .await
        .doing("look for a tenant to compare")?;
    Ok(row.map(|row| row.get::<_, Uuid>(0).into()))
}

/// Reads every row of a tenant. Takes a minute at most; a larger one is an error.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn read_canary(admin: &AdminDb, tenant: TenantId) -> Result<Canary, Error> {
    let doing = "read the tenant to compare";
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    // Rows as text are the same on both sides only under the same settings.
    tx.batch_execute(
        "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'iso_8601';
         SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 3; SET LOCAL statement_timeout = '60s'",
    )
    .await
    .doing(doing)?;
    let owner = admin.roles.owner();
    tx.batch_execute(&format!("SET LOCAL ROLE {owner}")).await.doing(doing)?;
    let schema = tenant.schema().to_string();
    let rows = tx
        .query_typed(
            "SELECT c.relname::text, (xpath('/row/n/text()', x.found))[1]::text::bigint,
                    coalesce((xpath('/row/s/text()', x.found))[1]::text, '')
             FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace,
             LATERAL query_to_xml(
                 format('SELECT count(*) AS n, sum(hashtextextended(t::text, 0)::numeric) AS s FROM %I.%I t',
                        n.nspname, c.relname), true, true, '') AS x(found)
             WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY 1",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing(doing)?;
    let tables = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    Ok(Canary { tenant, tables })
}

/// Looks whether every tenant is there.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn look_whole(admin: &AdminDb) -> Result<Wholeness, Error> {
    let db = admin.connection().await?;
    let row = db
        .query_typed_one(
            "SELECT count(*), count(*) FILTER (WHERE n.oid IS NULL),
                    count(*) FILTER (WHERE r.oid IS NULL),
                    (SELECT coalesce(max(version), 0) FROM public.migrations WHERE schema_name = 'public'),
                    coalesce(max(t.schema_version), 0)
             FROM public.tenants t
             LEFT JOIN pg_namespace n ON n.nspname = 'tenant_' || replace(t.id::text, '-', '')
             LEFT JOIN pg_roles r ON r.rolname = 'tenant_' || replace(t.id::text, '-', '')
             WHERE t.status IN ('ready', 'active', 'suspended', 'deleted')",
            &[],
        )
        .await
        .doing("compare the register with the catalog")?;
    Ok(Wholeness {
        tenants: row.get(0),
        without_schema: row.get(1),
        without_role: row.get(2),
        public_head: row.get(3),
        tenant_head: row.get(4),
    })
}

/// The tenant as it stood at one moment of the server, if nobody wrote to it meanwhile, and that moment. Something
/// is committed behind it.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn canary_at_a_moment(admin: &AdminDb) -> Result<(Timestamp, Option<Canary>), Error> {
    let Some(tenant) = find_canary(admin).await? else {
        return Ok((super::backups::commit_once(admin).await?, None));
    };
    let before = read_canary(admin, tenant).await;
    let moment = super::backups::commit_once(admin).await?;
    // One that is too large, or that is gone by now, is not compared.
    let (Ok(before), Ok(after)) = (before, read_canary(admin, tenant).await) else {
        return Ok((moment, None));
    };
    Ok((moment, (before == after).then_some(before)))
}
