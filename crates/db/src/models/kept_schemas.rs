//! `public.kept_schemas`: schemas that were replaced, and until when they are kept.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::error::{Doing, Error};
use crate::ids::{CopyName, TenantId};

/// Where a schema stands: what `tenants` and `migrations` say of it.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) version: i64,
    pub(crate) repeatables: Vec<u8>,
    /// Its rows of `public.migrations`.
    pub(crate) ledger: Value,
}

/// A schema that is kept.
#[derive(Debug)]
pub(crate) struct KeptSchema {
    pub(crate) number: i64,
    pub(crate) restored_to: Option<Timestamp>,
    pub(crate) replaced_at: Timestamp,
    pub(crate) standing: Standing,
}

/// Reads where a tenant's schema stands.
pub(crate) async fn standing_of(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Standing, Error> {
    let row = db
        .query_typed_one(
            "SELECT t.schema_version, t.repeatable_digest,
                    (SELECT coalesce(jsonb_agg(to_jsonb(m) ORDER BY m.version), '[]')
                     FROM (SELECT version, name, encode(checksum, 'hex') AS checksum,
                                  encode(token_checksum, 'hex') AS token_checksum, applied_at, duration_ms, run
                           FROM public.migrations WHERE schema_name = $2) m)
             FROM public.tenants t WHERE t.id = $1",
            &[(tenant.as_uuid(), Type::UUID), (&tenant.schema().to_string(), Type::TEXT)],
        )
        .await
        .doing("read where the tenant stands")?;
    Ok(standing(&row, 0))
}

fn standing(row: &Row, from: usize) -> Standing {
    Standing { version: row.get(from), repeatables: row.get(from + 1), ledger: row.get(from + 2) }
}

/// Makes the tenant stand there. All who cache it are told.
pub(crate) async fn set_standing(
    tx: &impl GenericClient,
    tenant: TenantId,
    standing: &Standing,
) -> Result<(), Error> {
    let schema = tenant.schema().to_string();
    tx.execute_typed(
        "DELETE FROM public.migrations WHERE schema_name = $1",
        &[(&schema, Type::TEXT)],
    )
    .await
    .doing("replace the tenant's ledger")?;
    // A rollout of another server's is none of this one's.
    tx.execute_typed(
        "INSERT INTO public.migrations
             (schema_name, version, name, checksum, token_checksum, applied_at, duration_ms, run)
         SELECT $1, m.version, m.name, decode(m.checksum, 'hex'), decode(m.token_checksum, 'hex'), m.applied_at,
                m.duration_ms, (SELECT r.id FROM public.migration_runs r WHERE r.id = m.run)
         FROM jsonb_to_recordset($2) AS m(version bigint, name text, checksum text, token_checksum text,
                                          applied_at timestamptz, duration_ms integer, run uuid)",
        &[(&schema, Type::TEXT), (&standing.ledger, Type::JSONB)],
    )
    .await
    .doing("replace the tenant's ledger")?;
    // With the status among what is set, the change is announced.
    tx.execute_typed(
        "UPDATE public.tenants SET schema_version = $2, repeatable_digest = $3, status = status WHERE id = $1",
        &[
            (tenant.as_uuid(), Type::UUID),
            (&standing.version, Type::INT8),
            (&standing.repeatables, Type::BYTEA),
        ],
    )
    .await
    .doing("record where the tenant stands")?;
    Ok(())
}

/// Records that a schema is kept. Yields its number and until when.
pub(crate) async fn keep(
    tx: &impl GenericClient,
    tenant: TenantId,
    standing: &Standing,
    restored_to: Option<Timestamp>,
    keep: Duration,
) -> Result<(i64, Timestamp), Error> {
    let row = tx
        .query_typed_one(
            "INSERT INTO public.kept_schemas
                 (tenant_id, restored_to, keep_until, schema_version, repeatable_digest, ledger)
             VALUES ($1, $2, now() + make_interval(secs => $3), $4, $5, $6)
             RETURNING number, keep_until",
            &[
                (tenant.as_uuid(), Type::UUID),
                (&restored_to, Type::TIMESTAMPTZ),
                (&keep.as_secs_f64(), Type::FLOAT8),
                (&standing.version, Type::INT8),
                (&standing.repeatables, Type::BYTEA),
                (&standing.ledger, Type::JSONB),
            ],
        )
        .await
        .doing("record that the schema is kept")?;
    Ok((row.get(0), row.get(1)))
}

/// The last one that was replaced.
pub(crate) async fn find_newest(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<KeptSchema>, Error> {
    let row = db
        .query_typed_opt(
            "SELECT number, restored_to, replaced_at, schema_version, repeatable_digest, ledger
             FROM public.kept_schemas WHERE tenant_id = $1 ORDER BY number DESC LIMIT 1",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("look for a schema that is kept")?;
    Ok(row.map(|row| KeptSchema {
        number: row.get(0),
        restored_to: row.get(1),
        replaced_at: row.get(2),
        standing: standing(&row, 3),
    }))
}

/// It is kept no more: it is the tenant's own again.
pub(crate) async fn take(tx: &impl GenericClient, number: i64) -> Result<(), Error> {
    tx.execute_typed("DELETE FROM public.kept_schemas WHERE number = $1", &[(&number, Type::INT8)])
        .await
        .doing("record that the schema is in use again")?;
    Ok(())
}

/// Forgets those that were kept long enough by the server's clock and by `host_now`; while a tenant is under a
/// legal hold, none of its.
pub(crate) async fn forget_expired(
    tx: &impl GenericClient,
    host_now: Timestamp,
) -> Result<Vec<CopyName>, Error> {
    let rows = tx
        .query_typed(
            "DELETE FROM public.kept_schemas k USING public.tenants t
             WHERE t.id = k.tenant_id AND NOT t.legal_hold AND k.keep_until < least(now(), $1)
             RETURNING k.tenant_id, k.number",
            &[(&host_now, Type::TIMESTAMPTZ)],
        )
        .await
        .doing("look which schemas were kept long enough")?;
    Ok(rows.iter().map(|row| CopyName::kept(row.get::<_, Uuid>(0).into(), row.get(1))).collect())
}

/// Schemas that are called like a tenant's copy and that no row knows: loaded by somebody who was killed, or
/// kept long enough.
pub(crate) async fn list_nobodys(db: &impl GenericClient) -> Result<Vec<CopyName>, Error> {
    let rows = db
        .query_typed(
            "SELECT n.nspname::text FROM pg_namespace n
             WHERE n.nspname ~ $1 AND NOT EXISTS (SELECT FROM public.kept_schemas k WHERE k.kept_as = n.nspname)
             ORDER BY 1",
            &[(&CopyName::PATTERN, Type::TEXT)],
        )
        .await
        .doing("look for schemas that nobody needs")?;
    Ok(rows.iter().filter_map(|row| row.get::<_, &str>(0).parse().ok()).collect())
}
