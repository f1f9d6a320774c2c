//! The end: shared rows, the tombstone, and the check that nothing is left. One transaction: a tenant of
//! which something is left is not called purged.

use std::time::Instant;

use serde_json::json;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::report::PurgeProgress;
use super::session::{PurgeSession, names};
use super::shared;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::ErasureError;
use crate::models::audit::{self, Action, Actor};
use crate::models::deletion;
use crate::models::purges::{self, Step};

pub(super) async fn finish(
    session: &mut PurgeSession<'_>,
    actor: &Actor,
    progress: &mut (dyn FnMut(&PurgeProgress) + Send),
) -> Result<(), Error> {
    let started = Instant::now();
    let tenant = session.tenant;
    let tx = session.begin_dropping().await?;
    shared::delete(&tx, tenant).await?;
    deletion::bury(&tx, tenant).await?;
    require_nothing_left(&tx, tenant).await?;
    audit::record(&tx, actor, Action::Purged, tenant, &json!({})).await?;
    purges::set_step(&tx, tenant, Step::Finished, started.elapsed(), 0).await?;
    tx.commit().await.doing("commit the end of the purge")?;
    tracing::info!(tenant.id = %tenant, "tenant purged");
    progress(&PurgeProgress::done(Step::Finished, 0));
    Ok(())
}

/// # Errors
/// [`ErasureError::Left`] with what was found.
async fn require_nothing_left(tx: &Transaction<'_>, tenant: TenantId) -> Result<(), Error> {
    let mut left = Vec::new();
    let (schema, copies) = names(tenant);
    let rows = tx
        .query_typed(
            "SELECT 'schema `' || nspname || '`' FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $2)
             UNION ALL SELECT 'role `' || rolname || '`' FROM pg_roles WHERE rolname = $1",
            &[(&schema, Type::TEXT), (&copies, Type::TEXT)],
        )
        .await
        .doing("look for what is left of the tenant")?;
    left.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    let rows =
        tx.query_typed(&shared::left(tenant), &[]).await.doing("look for rows of the tenant")?;
    for row in rows.iter().filter(|row| row.get::<_, i64>(1) > 0) {
        left.push(format!("{} rows in `{}`", row.get::<_, i64>(1), row.get::<_, &str>(0)));
    }
    let oids = purges::find(tx, tenant).await?.map(|purge| purge.schema_oids).unwrap_or_default();
    left.extend(dangling(tx, &oids).await?);
    if left.is_empty() { Ok(()) } else { Err(ErasureError::Left { tenant, left }.into()) }
}

/// Rows of any catalog that point to a schema which is gone. PostgreSQL itself says which columns of
/// which catalogs name a schema.
async fn dangling(tx: &impl GenericClient, schemas: &[u32]) -> Result<Vec<String>, Error> {
    let query = tx
        .query_typed_one(
            "SELECT string_agg(format('SELECT %L, count(*) FROM %s WHERE %I = ANY ($1)',
                                      fktable::regclass, fktable::regclass, fkcols[1]), ' UNION ALL ')
                    || ' UNION ALL SELECT ''pg_depend'', count(*) FROM pg_depend
                          WHERE refclassid = ''pg_namespace''::regclass AND refobjid = ANY ($1)'
             FROM pg_get_catalog_foreign_keys()
             WHERE pktable = 'pg_namespace'::regclass AND cardinality(fkcols) = 1 AND NOT is_array",
            &[],
        )
        .await
        .doing("ask which catalogs name a schema")?;
    let rows = tx
        .query_typed(query.get(0), &[(&schemas, Type::OID_ARRAY)])
        .await
        .doing("look for rows that point to the tenant's schemas")?;
    Ok(rows
        .iter()
        .filter(|row| row.get::<_, i64>(1) > 0)
        .map(|row| {
            format!("{} rows in the catalog `{}`", row.get::<_, i64>(1), row.get::<_, &str>(0))
        })
        .collect())
}
