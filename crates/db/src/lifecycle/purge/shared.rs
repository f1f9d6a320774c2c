//! The rows of shared tables that name a tenant, and what becomes of them.
//!
//! A test finds every public table with a `tenant_id` or a `schema_name`, and fails if one is missing here.

use tokio_postgres::GenericClient;

use crate::error::{Doing, Error};
use crate::ids::TenantId;

#[derive(Debug, Clone, Copy)]
enum Rule {
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
    ("audit_log", "tenant_id", Rule::Kept),
    ("purges", "tenant_id", Rule::Kept),
];

/// The public tables that have a rule, with the column by which they name a tenant.
pub fn shared_tables() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.iter().map(|(table, column, _)| (*table, *column))
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

/// A query for the tables that still have some, and how many.
pub(super) fn left(tenant: TenantId) -> String {
    let counts: Vec<String> = to_delete(tenant)
        .map(|(table, condition)| {
            format!("SELECT 'public.{table}', count(*) FROM public.{table} WHERE {condition}")
        })
        .collect();
    counts.join(" UNION ALL ")
}
