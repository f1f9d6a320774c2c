//! `public.certificates`: one for each purge that ended, final once complete.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{PgLsn, Type};
use uuid::Uuid;

use super::tenants::Status;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::ErasureCounts;

/// A certificate: the document, and its digest.
#[derive(Debug, Clone)]
pub(crate) struct CertificateRow {
    pub(crate) document: Value,
    pub(crate) sha256: Vec<u8>,
}

impl CertificateRow {
    pub(crate) fn is_complete(&self) -> bool {
        self.document["status"] == "complete"
    }
}

/// Stores one, if the purge has none.
pub(crate) async fn insert(
    tx: &impl GenericClient,
    tenant: TenantId,
    id: Uuid,
    document: &Value,
    sha256: &[u8],
) -> Result<(), Error> {
    tx.execute_typed(
        "INSERT INTO public.certificates (tenant_id, id, document, sha256) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id) DO NOTHING",
        &[
            (tenant.as_uuid(), Type::UUID),
            (&id, Type::UUID),
            (document, Type::JSONB),
            (&sha256, Type::BYTEA),
        ],
    )
    .await
    .doing("store the certificate")?;
    Ok(())
}

/// Reads one.
pub(crate) async fn find(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<CertificateRow>, Error> {
    read(db, tenant, "SELECT document, sha256 FROM public.certificates WHERE tenant_id = $1").await
}

/// Reads one and keeps it until the transaction ends. Whoever would make one that is missing waits for
/// whoever else does, on the purge.
pub(crate) async fn lock(
    tx: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<CertificateRow>, Error> {
    tx.query_typed(
        "SELECT FROM public.purges WHERE tenant_id = $1 FOR NO KEY UPDATE",
        &[(tenant.as_uuid(), Type::UUID)],
    )
    .await
    .doing("lock the purge")?;
    find(tx, tenant).await
}

async fn read(
    db: &impl GenericClient,
    tenant: TenantId,
    statement: &str,
) -> Result<Option<CertificateRow>, Error> {
    let row = db
        .query_typed_opt(statement, &[(tenant.as_uuid(), Type::UUID)])
        .await
        .doing("read the certificate")?;
    Ok(row.map(|row| CertificateRow { document: row.get(0), sha256: row.get(1) }))
}

/// Stores what a look found.
pub(crate) async fn update(
    tx: &impl GenericClient,
    tenant: TenantId,
    row: &CertificateRow,
    complete: bool,
    looked_at: Timestamp,
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.certificates
         SET document = $2, sha256 = $3, looked_at = $4, status = CASE WHEN $5 THEN 'complete' ELSE 'incomplete' END,
             completed_at = CASE WHEN $5 THEN $4 END
         WHERE tenant_id = $1",
        &[
            (tenant.as_uuid(), Type::UUID),
            (&row.document, Type::JSONB),
            (&row.sha256, Type::BYTEA),
            (&looked_at, Type::TIMESTAMPTZ),
            (&complete, Type::BOOL),
        ],
    )
    .await
    .doing("store the certificate")?;
    Ok(())
}

/// Where a purge ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// Past the end of it, in the write-ahead log.
    pub(crate) position: PgLsn,
    pub(crate) statistics_rewritten_at: Option<Timestamp>,
    pub(crate) now: Timestamp,
}

/// Where a purge ended: if nobody has noted the position yet, the end is now, which is later.
pub(crate) async fn end_of_purge(tx: &impl GenericClient, tenant: TenantId) -> Result<End, Error> {
    let row = tx
        .query_typed_one(
            "UPDATE public.purges SET end_position = coalesce(end_position, pg_current_wal_insert_lsn())
             WHERE tenant_id = $1
             RETURNING end_position, statistics_rewritten_at, clock_timestamp()",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("note the position of the purge's end")?;
    Ok(End { position: row.get(0), statistics_rewritten_at: row.get(1), now: row.get(2) })
}

/// The purges whose certificate is incomplete or missing.
pub(crate) async fn list_open(db: &impl GenericClient, limit: i64) -> Result<Vec<TenantId>, Error> {
    let rows = db
        .query_typed(
            "SELECT tenant_id FROM (
                 SELECT tenant_id, looked_at FROM public.certificates WHERE status = 'incomplete'
                 UNION ALL
                 SELECT p.tenant_id, NULL FROM public.purges p
                  WHERE p.finished_at IS NOT NULL
                    AND NOT EXISTS (SELECT FROM public.certificates c WHERE c.tenant_id = p.tenant_id)
             ) open
             ORDER BY looked_at NULLS FIRST LIMIT $1",
            &[(&limit, Type::INT8)],
        )
        .await
        .doing("look for certificates that are incomplete")?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>(0).into()).collect())
}

/// Those that are complete, whose purge was over before this position and time, and of which nobody has said yet
/// that the backups forgot them.
pub(crate) async fn list_out_of_backups(
    db: &impl GenericClient,
    oldest_position: PgLsn,
    oldest_at: Timestamp,
    limit: i64,
) -> Result<Vec<TenantId>, Error> {
    let rows = db
        .query_typed(
            "SELECT p.tenant_id FROM public.purges p JOIN public.certificates c ON c.tenant_id = p.tenant_id
             WHERE c.status = 'complete' AND p.end_position <= $1 AND p.statistics_rewritten_at < $2
               AND NOT EXISTS (SELECT FROM public.audit_log l
                                WHERE l.tenant_id = p.tenant_id AND l.action = 'tenant.erased')
             ORDER BY p.finished_at LIMIT $3",
            &[
                (&oldest_position, Type::PG_LSN),
                (&oldest_at, Type::TIMESTAMPTZ),
                (&limit, Type::INT8),
            ],
        )
        .await
        .doing("look for purged tenants whom the backups forgot")?;
    Ok(rows.iter().map(|row| row.get::<_, Uuid>(0).into()).collect())
}

/// What was said when the backups were seen to hold the tenant no more.
pub(crate) async fn find_statement(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<Value>, Error> {
    let row = db
        .query_typed_opt(
            "SELECT details FROM public.audit_log WHERE tenant_id = $1 AND action = 'tenant.erased'
             ORDER BY id DESC LIMIT 1",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("look what was said of the backups")?;
    Ok(row.map(|row| row.get(0)))
}

/// Where a tenant stands.
pub(crate) async fn status_of(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<Status>, Error> {
    let row = db
        .query_typed_opt(
            "SELECT status FROM public.tenants WHERE id = $1",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("look where the tenant stands")?;
    Ok(row.and_then(|row| row.get::<_, &str>(0).parse().ok()))
}

/// How many there are.
pub(crate) async fn count(db: &impl GenericClient) -> Result<ErasureCounts, Error> {
    let row = db
        .query_typed_one(
            "SELECT count(*), count(finished_at), count(*) FILTER (WHERE failures > 0 AND finished_at IS NULL),
                    (SELECT count(*) FROM public.certificates WHERE status = 'incomplete')
             FROM public.purges",
            &[],
        )
        .await
        .doing("count purges and certificates")?;
    Ok(ErasureCounts {
        begun: row.get(0),
        finished: row.get(1),
        failing: row.get(2),
        incomplete: row.get(3),
    })
}
