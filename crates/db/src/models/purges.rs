//! `public.purges`: how far each purge came, and what it did.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::audit::Actor;

/// How far a purge came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The tenant can't be restored any more.
    Begun,
    /// The erasure ledger says so, too.
    Recorded,
    /// Nobody can add anything.
    Frozen,
    /// Its schemas are gone, with everything in them.
    Emptied,
    /// Its role is gone.
    RoleDropped,
    /// It is a tombstone.
    Finished,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Recorded => "recorded",
            Self::Frozen => "frozen",
            Self::Emptied => "emptied",
            Self::RoleDropped => "role_dropped",
            Self::Finished => "finished",
        }
    }

    /// The column's CHECK allows nothing else.
    fn of_row(text: &str) -> Self {
        [Self::Recorded, Self::Frozen, Self::Emptied, Self::RoleDropped, Self::Finished]
            .into_iter()
            .find(|step| step.as_str() == text)
            .unwrap_or(Self::Begun)
    }
}

/// By what right a purge began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ground {
    /// The retention was over.
    RetentionOver,
    /// Somebody asked for it and confirmed it, when the retention was over.
    Requested,
    /// Somebody asked for it and confirmed it, whether or not the retention was over.
    RequestedNow,
    /// The erasure ledger names the tenant: a restore had brought it back.
    Ledger,
    /// Not known: it began by hand, or under an earlier version.
    Unknown,
}

impl Ground {
    /// As the column has it.
    fn as_column(self) -> Option<&'static str> {
        match self {
            Self::RetentionOver => Some("retention_over"),
            Self::Requested => Some("requested"),
            Self::RequestedNow => Some("requested_now"),
            Self::Ledger => Some("ledger"),
            Self::Unknown => None,
        }
    }

    pub(crate) fn of_column(text: Option<&str>) -> Self {
        [Self::RetentionOver, Self::Requested, Self::RequestedNow, Self::Ledger]
            .into_iter()
            .find(|ground| ground.as_column() == text)
            .unwrap_or(Self::Unknown)
    }
}

/// A purge.
#[derive(Debug, Clone)]
pub(crate) struct PurgeRow {
    pub(crate) begun_at: Timestamp,
    pub(crate) step: Step,
    pub(crate) ledger: Option<(i64, Vec<u8>)>,
    pub(crate) existed: Value,
    pub(crate) steps: Value,
    pub(crate) finished_at: Option<Timestamp>,
}

/// Begins one. One that has begun stays as it is.
pub(crate) async fn begin(
    tx: &impl GenericClient,
    tenant: TenantId,
    actor: &Actor,
    ground: Ground,
) -> Result<(), Error> {
    tx.execute_typed(
        "INSERT INTO public.purges (tenant_id, actor, ground) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        &[
            (tenant.as_uuid(), Type::UUID),
            (&actor.to_string(), Type::TEXT),
            (&ground.as_column(), Type::TEXT),
        ],
    )
    .await
    .doing("record the purge")?;
    Ok(())
}

/// A purge that had ended, or had not got far, begins from its beginning. What the ledger has stays.
pub(crate) async fn begin_again(
    tx: &impl GenericClient,
    tenant: TenantId,
    actor: &Actor,
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.purges
         SET step = 'begun', ground = 'ledger', actor = $2, begun_at = now(), finished_at = NULL,
             statistics_rewritten_at = NULL, end_position = NULL, failures = 0, last_error = NULL, retry_after = NULL,
             schema_oids = '{}', role_oid = NULL, objects = '{}', existed = '{}', steps = '[]'
         WHERE tenant_id = $1",
        &[(tenant.as_uuid(), Type::UUID), (&actor.to_string(), Type::TEXT)],
    )
    .await
    .doing("record that the purge begins again")?;
    Ok(())
}

/// Takes one back that no ledger knows of.
pub(crate) async fn withdraw(tx: &impl GenericClient, tenant: TenantId) -> Result<u64, Error> {
    tx.execute_typed(
        "DELETE FROM public.purges WHERE tenant_id = $1 AND ledger_sequence IS NULL",
        &[(tenant.as_uuid(), Type::UUID)],
    )
    .await
    .doing("take the purge back")
}

/// Reads one.
pub(crate) async fn find(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<PurgeRow>, Error> {
    let row = db
        .query_typed_opt(
            "SELECT begun_at, step, ledger_sequence, ledger_hash, existed, steps, finished_at
             FROM public.purges WHERE tenant_id = $1",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("look how far the purge came")?;
    let read = |row: &Row| -> Result<PurgeRow, tokio_postgres::Error> {
        let sequence: Option<i64> = row.try_get("ledger_sequence")?;
        let hash: Option<Vec<u8>> = row.try_get("ledger_hash")?;
        Ok(PurgeRow {
            begun_at: row.try_get("begun_at")?,
            step: Step::of_row(row.try_get("step")?),
            ledger: sequence.zip(hash),
            existed: row.try_get("existed")?,
            steps: row.try_get("steps")?,
            finished_at: row.try_get("finished_at")?,
        })
    };
    row.as_ref().map(read).transpose().doing("read a row of `public.purges`")
}

/// The newest entry of the erasure ledger that this database knows of.
pub(crate) async fn newest_in_ledger(
    db: &impl GenericClient,
) -> Result<Option<(i64, Vec<u8>)>, Error> {
    let row = db
        .query_typed_opt(
            "SELECT ledger_sequence, ledger_hash FROM public.purges
             WHERE ledger_sequence IS NOT NULL ORDER BY ledger_sequence DESC LIMIT 1",
            &[],
        )
        .await
        .doing("look what the erasure ledger must hold")?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Remembers the entry in the ledger.
pub(crate) async fn set_ledger_entry(
    db: &impl GenericClient,
    tenant: TenantId,
    sequence: i64,
    hash: &[u8],
) -> Result<(), Error> {
    db.execute_typed(
        "UPDATE public.purges
         SET ledger_sequence = $2, ledger_hash = $3, step = CASE step WHEN 'begun' THEN 'recorded' ELSE step END
         WHERE tenant_id = $1",
        &[(tenant.as_uuid(), Type::UUID), (&sequence, Type::INT8), (&hash, Type::BYTEA)],
    )
    .await
    .doing("remember the entry in the erasure ledger")?;
    Ok(())
}

/// Remembers what there is, before anything of it goes. Kept is what was seen first; schemas are added.
/// Where they are gone, nothing may point to these numbers.
pub(crate) async fn set_existed(
    tx: &impl GenericClient,
    tenant: TenantId,
    existed: &Value,
    numbers: &Numbers,
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.purges
         SET existed = CASE existed WHEN '{}' THEN $2 ELSE existed END,
             objects = CASE objects WHEN '{}' THEN $5 ELSE objects END,
             role_oid = coalesce(role_oid, $4),
             schema_oids = ARRAY(SELECT DISTINCT unnest(schema_oids || $3::oid[]) ORDER BY 1)
         WHERE tenant_id = $1",
        &[
            (tenant.as_uuid(), Type::UUID),
            (existed, Type::JSONB),
            (&numbers.schemas, Type::OID_ARRAY),
            (&numbers.role, Type::OID),
            (&serde_json::json!(numbers.objects), Type::JSONB),
        ],
    )
    .await
    .doing("remember what there is")?;
    Ok(())
}

/// The numbers by which PostgreSQL's catalogs know what a tenant had.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    pub(crate) schemas: Vec<u32>,
    pub(crate) role: Option<u32>,
    /// By the catalog in which they stand.
    pub(crate) objects: BTreeMap<String, Vec<u32>>,
}

/// What a purge's tenant had.
pub(crate) async fn find_numbers(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Numbers, Error> {
    let row = db
        .query_typed_opt(
            "SELECT schema_oids, role_oid, objects FROM public.purges WHERE tenant_id = $1",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("read what the tenant had")?;
    let Some(row) = row else { return Ok(Numbers::default()) };
    let objects = serde_json::from_value(row.get(2)).unwrap_or_default();
    Ok(Numbers { schemas: row.get(0), role: row.get(1), objects })
}

/// A step was done. What went wrong before is forgotten.
pub(crate) async fn set_step(
    db: &impl GenericClient,
    tenant: TenantId,
    step: Step,
    took: Duration,
    count: u64,
) -> Result<(), Error> {
    let entry = serde_json::json!([{
        "step": step.as_str(),
        "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "count": count,
    }]);
    db.execute_typed(
        "UPDATE public.purges
         SET step = $2, steps = steps || $3::jsonb, failures = 0, last_error = NULL, retry_after = NULL,
             finished_at = CASE WHEN $2 = 'finished' THEN now() END
         WHERE tenant_id = $1",
        &[
            (tenant.as_uuid(), Type::UUID),
            (&step.as_str(), Type::TEXT),
            (&entry, Type::JSONB),
        ],
    )
    .await
    .doing("record a step of the purge")?;
    Ok(())
}

/// It did not come further. Yields how long the next try waits: a minute, twice as long each time, an
/// hour at most.
pub(crate) async fn set_failed(
    db: &impl GenericClient,
    tenant: TenantId,
    error: &str,
) -> Result<f64, Error> {
    let row = db
        .query_typed_opt(
            "UPDATE public.purges
             SET failures = failures + 1, last_error = $2,
                 retry_after = now() + make_interval(secs => least(60 * 2 ^ least(failures, 10), 3600))
             WHERE tenant_id = $1
             RETURNING extract(epoch FROM retry_after - now())::float8",
            &[(tenant.as_uuid(), Type::UUID), (&error, Type::TEXT)],
        )
        .await
        .doing("record why the purge stopped")?;
    Ok(row.map_or(0.0, |row| row.get(0)))
}

/// How many began within the last hour.
pub(crate) async fn count_begun_within_an_hour(db: &impl GenericClient) -> Result<i64, Error> {
    let row = db
        .query_typed_one(
            "SELECT count(*) FROM public.purges WHERE begun_at > now() - interval '1 hour'",
            &[],
        )
        .await
        .doing("count the purges of the last hour")?;
    Ok(row.get(0))
}

/// Whether statistics of purged tenants are still on disk, and the last rewrite was long enough ago.
pub(crate) async fn statistics_are_due(
    db: &impl GenericClient,
    pause: Duration,
) -> Result<bool, Error> {
    let row = db
        .query_typed_one(
            "SELECT EXISTS (SELECT FROM public.purges
                             WHERE finished_at IS NOT NULL AND statistics_rewritten_at IS NULL)
                AND NOT EXISTS (SELECT FROM public.purges
                                 WHERE statistics_rewritten_at > now() - make_interval(secs => $1))",
            &[(&pause.as_secs_f64(), Type::FLOAT8)],
        )
        .await
        .doing("look for statistics of purged tenants")?;
    Ok(row.get(0))
}

/// Of which purges the statistics are still on disk.
pub(crate) async fn list_with_statistics(db: &impl GenericClient) -> Result<Vec<Uuid>, Error> {
    let rows = db
        .query_typed(
            "SELECT tenant_id FROM public.purges
             WHERE finished_at IS NOT NULL AND statistics_rewritten_at IS NULL",
            &[],
        )
        .await
        .doing("look for statistics of purged tenants")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The statistics of these are gone, and with that the end of the purge is later.
pub(crate) async fn set_statistics_rewritten(
    db: &impl GenericClient,
    purges: &[Uuid],
) -> Result<u64, Error> {
    db.execute_typed(
        "UPDATE public.purges
         SET statistics_rewritten_at = now(), end_position = pg_current_wal_insert_lsn()
         WHERE statistics_rewritten_at IS NULL AND tenant_id = ANY ($1)",
        &[(&purges, Type::UUID_ARRAY)],
    )
    .await
    .doing("record that the statistics were rewritten")
}
