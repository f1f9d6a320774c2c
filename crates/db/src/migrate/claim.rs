//! The statements around a migration: the one that locks a schema's record and moves it on, and the
//! ledger's. Made of parsed names, numbers and hex digits only.

use uuid::Uuid;

use super::Migration;
use super::standing::Standing;

/// What each session that takes tenants along prepares once: it locks the tenant's row if the tenant
/// stands where it is expected, and moves it on. Fails with `division_by_zero` otherwise; also without
/// the schema, since then the next in the path would take the tables, `public`.
pub(super) const PREPARE: &str = "\
    PREPARE tenantry_claim (uuid, bigint, bigint, bytea, text) AS
    WITH claimed AS (
        UPDATE public.tenants
           SET schema_version = $3, repeatable_digest = coalesce($4, repeatable_digest)
         WHERE id = $1 AND schema_version = $2 AND status NOT IN ('purging', 'purged')
        RETURNING 1)
    SELECT 1 / count(*) FROM claimed WHERE to_regnamespace($5) IS NOT NULL";

/// The claim of a tenant that is to stand at a version, with another edition of the repeatable files if
/// one is given.
pub(super) fn claim(standing: &Standing, version: i64, repeatables: Option<&[u8]>) -> String {
    let Standing { id, version: from, .. } = standing;
    let digest = repeatables.map_or_else(|| "NULL".to_owned(), bytea);
    format!("EXECUTE tenantry_claim ('{id}', {from}, {version}, {digest}, '{}');\n", id.schema())
}

/// As [`claim`], and moves nothing: for what takes several transactions.
pub(super) fn look_only(standing: &Standing) -> String {
    claim(standing, standing.version, None)
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
