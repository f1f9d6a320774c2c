//! `public.purges`: how far each purge came, and what it did. `public.purge_watch`: when somebody last
//! looked for tenants that are due.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

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

/// A purge.
#[derive(Debug, Clone)]
pub(crate) struct PurgeRow {
    pub(crate) begun_at: Timestamp,
    pub(crate) step: Step,
    pub(crate) ledger: Option<(i64, Vec<u8>)>,
    pub(crate) schema_oids: Vec<u32>,
    pub(crate) existed: Value,
    pub(crate) steps: Value,
    pub(crate) finished_at: Option<Timestamp>,
}

/// Begins one. One that has begun stays as it is.
pub(crate) async fn begin(
    tx: &impl GenericClient,
    tenant: TenantId,
    actor: &Actor,
) -> Result<(), Error> {
    tx.execute_typed(
        "INSERT INTO public.purges (tenant_id, actor) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        &[(tenant.as_uuid(), Type::UUID), (&actor.to_string(), Type::TEXT)],
    )
    .await
    .doing("record the purge")?;
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
            "SELECT begun_at, step, ledger_sequence, ledger_hash, schema_oids, existed, steps, finished_at
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
            schema_oids: row.try_get("schema_oids")?,
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

/// Remembers what there is, before anything of it goes. Kept is what was seen first.
pub(crate) async fn set_existed(
    tx: &impl GenericClient,
    tenant: TenantId,
    existed: &Value,
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.purges SET existed = $2 WHERE tenant_id = $1 AND existed = '{}'",
        &[(tenant.as_uuid(), Type::UUID), (existed, Type::JSONB)],
    )
    .await
    .doing("remember what there is")?;
    Ok(())
}

/// Remembers schemas by number: when they are gone, nothing may point to them.
pub(crate) async fn add_schema_oids(
    tx: &impl GenericClient,
    tenant: TenantId,
    oids: &[u32],
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.purges
         SET schema_oids = ARRAY(SELECT DISTINCT unnest(schema_oids || $2::oid[]) ORDER BY 1)
         WHERE tenant_id = $1",
        &[(tenant.as_uuid(), Type::UUID), (&oids, Type::OID_ARRAY)],
    )
    .await
    .doing("remember the tenant's schemas")?;
    Ok(())
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

/// The statistics that stood on disk at that moment are gone.
pub(crate) async fn set_statistics_rewritten(
    db: &impl GenericClient,
    finished_before: Timestamp,
) -> Result<u64, Error> {
    db.execute_typed(
        "UPDATE public.purges SET statistics_rewritten_at = now()
         WHERE statistics_rewritten_at IS NULL AND finished_at <= $1",
        &[(&finished_before, Type::TIMESTAMPTZ)],
    )
    .await
    .doing("record that the statistics were rewritten")
}

/// What a look at the clock found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Look {
    /// Somebody else is looking at this moment.
    Elsewhere,
    /// The clock moved on as it should.
    Steady,
    /// It moved on by so many seconds since the last look, much more than the time between two looks.
    Jumped(f64),
    /// A jump was seen, and its pause is not over.
    Paused,
}

/// Looks at the clock. After a jump of more than `gap`, nothing is purged for `pause`.
pub(crate) async fn look(
    db: &impl GenericClient,
    gap: Duration,
    pause: Duration,
) -> Result<Look, Error> {
    let row = db
        .query_typed_opt(
            "WITH before AS (
                 SELECT seen_at, paused_until FROM public.purge_watch FOR UPDATE SKIP LOCKED
             ), judged AS (
                 SELECT clock_timestamp() AS at, seen_at, paused_until,
                        extract(epoch FROM clock_timestamp() - seen_at)::float8 AS gap_s
                 FROM before
             )
             UPDATE public.purge_watch
             SET seen_at = judged.at,
                 paused_until = CASE WHEN judged.gap_s > $1 THEN judged.at + make_interval(secs => $2)
                                     -- A clock that went back makes an old pause too long.
                                     WHEN judged.gap_s < -$1 THEN NULL
                                     WHEN judged.paused_until > judged.at THEN judged.paused_until END
             FROM judged
             RETURNING judged.gap_s, coalesce(judged.gap_s > $1, false), purge_watch.paused_until IS NOT NULL",
            &[(&gap.as_secs_f64(), Type::FLOAT8), (&pause.as_secs_f64(), Type::FLOAT8)],
        )
        .await
        .doing("look at the clock")?;
    Ok(match row {
        None => Look::Elsewhere,
        Some(row) if row.get(1) => Look::Jumped(row.get(0)),
        Some(row) if row.get(2) => Look::Paused,
        Some(_) => Look::Steady,
    })
}
