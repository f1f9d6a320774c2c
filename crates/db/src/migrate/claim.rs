//! The statements around a migration: the one that locks a schema's record and moves it on, and the
//! ledger's. Made of parsed names, numbers and hex digits only.

use uuid::Uuid;

use super::Migration;
use super::tenant::Standing;

/// Locks the tenant's row if the tenant stands where it is expected, and moves it on. Names the schema:
/// without one, the next in the path would take the tables, `public`.
pub(super) fn claim(standing: &Standing, change: &str) -> String {
    let (id, version, schema) = (standing.id, standing.version, standing.id.schema());
    format!(
        "WITH claimed AS (
             UPDATE public.tenants SET {change}
              WHERE id = '{id}' AND schema_version = {version} AND status NOT IN ('purging', 'purged')
             RETURNING 1)
         SELECT 1 / count(*) FROM claimed WHERE '{schema}'::regnamespace IS NOT NULL;\n"
    )
}

pub(super) fn claim_up(standing: &Standing, version: i64) -> String {
    claim(standing, &format!("schema_version = {version}"))
}

pub(super) fn claim_down(standing: &Standing, version: i64) -> String {
    claim(standing, &format!("schema_version = {version}, repeatable_digest = ''"))
}

/// As [`claim`], and moves nothing: for what takes several transactions.
pub(super) fn look_only(standing: &Standing) -> String {
    claim(standing, "schema_version = schema_version")
}

/// A ledger entry, as a statement without its semicolon.
pub(super) fn ledger_entry(schema: &str, applied: &Migration, run: Option<Uuid>) -> String {
    format!(
        "INSERT INTO public.migrations (schema_name, version, name, checksum, token_checksum, duration_ms, run) \
         VALUES ('{schema}', {}, '{}', {}, {}, (extract(epoch FROM clock_timestamp() - now()) * 1000)::integer, {})",
        applied.version,
        applied.name,
        bytea(&applied.checksum),
        bytea(&applied.token_checksum),
        run.map_or_else(|| "NULL".to_owned(), |run| format!("'{run}'")),
    )
}

pub(super) fn unrecord(standing: &Standing, reached: i64) -> String {
    let schema = standing.id.schema();
    format!("DELETE FROM public.migrations WHERE schema_name = '{schema}' AND version > {reached};")
}

pub(super) fn bytea(bytes: &[u8]) -> String {
    format!("'\\x{}'", data_encoding::HEXLOWER.encode(bytes))
}
