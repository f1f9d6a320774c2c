//! The rows of shared tables that name a tenant, and what becomes of them.
//!
//! A test finds every public table with a column that names a tenant, and fails if one is missing here.

use tokio_postgres::GenericClient;

use super::verify;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;

#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// Its rows go with the tenant.
    Deleted,
    /// Its rows stay: they hold ids, times and numbers, nothing personal.
    Kept,
}

/// Each table, the column that names the tenant (by id, or by schema where it is `schema_name`), and the
/// rule.
const TABLES: &[(&str, &str, Rule)] = &[
    ("migrations", "schema_name", Rule::Deleted),
    // Messages of the server may name values.
    ("migration_failures", "schema_name", Rule::Deleted),
    ("migration_failures", "tenant_id", Rule::Deleted),
    ("migration_progress", "schema_name", Rule::Deleted),
    // What the sign-up was answered: its name and settings.
    ("idempotency_keys", "tenant_id", Rule::Deleted),
    ("kept_schemas", "tenant_id", Rule::Deleted),
    ("audit_log", "tenant_id", Rule::Kept),
    ("purges", "tenant_id", Rule::Kept),
    ("certificates", "tenant_id", Rule::Kept),
];

/// The public tables that have a rule, with the column by which they name a tenant.
pub fn shared_tables() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.iter().map(|(table, column, _)| (*table, *column))
}

/// Tables outside of the tenants' schemas with a column that names a tenant, as `schema.table` and column,
/// as a purge finds them.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn find_shared_tables(admin: &AdminDb) -> Result<Vec<(String, String)>, Error> {
    let db = admin.connection().await?;
    let all = verify::list_shared(&**db).await?;
    let deciding = all.iter().filter(|column| verify::is_shared_column(column, &all));
    Ok(deciding
        .map(|column| (format!("{}.{}", column.schema, column.table), column.column.clone()))
        .collect())
}

fn to_delete(tenant: TenantId) -> impl Iterator<Item = (&'static str, String)> {
    let deleted = TABLES.iter().filter(|(_, _, rule)| matches!(rule, Rule::Deleted));
    deleted.map(move |(table, column, _)| {
        let condition = match *column {
            "schema_name" => format!("schema_name = '{}'", tenant.schema()),
            column => format!("{column} = '{tenant}'"),
        };
        (*table, condition)
    })
}

/// Deletes them.
pub(super) async fn delete(tx: &impl GenericClient, tenant: TenantId) -> Result<(), Error> {
    let statements: Vec<String> = to_delete(tenant)
        .map(|(table, condition)| format!("DELETE FROM public.{table} WHERE {condition}"))
        .collect();
    tx.batch_execute(&statements.join("; ")).await.doing("delete the tenant's shared rows")
}

/// What becomes of a public table's rows that name the tenant by this column; none for a table that is not
/// Tenantry's.
pub(super) fn rule(table: &str, column: &str) -> Option<Rule> {
    let found = TABLES.iter().find(|(name, by, _)| (*name, *by) == (table, column));
    found.map(|(_, _, rule)| *rule)
}
