//! Who is where, who failed and why: from a few tables of the public schema, never by asking each
//! schema. Writes nothing, so that the reader can ask, and a replica can answer.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::record::{self, Counts, Halfway, RunState, SchemaFailure};
use super::{Migration, MigrationSet, Migrations, ledger, pending, preflight};
use crate::direct::{ReaderDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// Where the sets and the fleet stand.
#[derive(Debug, Clone, Serialize)]
pub struct FleetStatus {
    /// The public set.
    pub public: SetStatus,
    /// The newest version of the tenant set.
    pub tenant_head: i64,
    /// How many tenants stand at each version, ascending.
    pub tenants_by_version: Vec<TenantsAtVersion>,
    /// How many tenants are below the head, or have an older edition of the repeatable files.
    pub behind_count: i64,
    /// The first of those, the furthest behind first.
    pub behind: Vec<TenantBehind>,
    /// Whether more tenants are behind than listed.
    pub behind_truncated: bool,
    /// The newest failure of each schema that has not come further since, the newest first.
    pub failures: Vec<SchemaFailure>,
    /// Those in which a file outside a transaction has run half way.
    pub halfway: Vec<Halfway>,
    /// The newest run.
    pub last_run: Option<Run>,
    /// What does no harm, and should be known.
    pub remarks: Vec<String>,
}

/// Where a set stands on a schema.
#[derive(Debug, Clone, Serialize)]
pub struct SetStatus {
    /// The newest applied version, 0 for none.
    pub applied: i64,
    /// The newest known version.
    pub head: i64,
    /// Files still to be applied, oldest first.
    pub pending: Vec<PendingFile>,
}

/// A file that a schema still lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingFile {
    /// Its version.
    pub version: i64,
    /// Where it is.
    pub file: String,
    /// Whether it runs whole, in one transaction.
    pub transactional: bool,
    /// Whether there is a way back.
    pub reversible: bool,
}

impl PendingFile {
    pub(super) fn new(migration: &Migration) -> Self {
        Self {
            version: migration.version,
            file: migration.up.file.clone(),
            transactional: migration.up.transactional,
            reversible: migration.down.is_some(),
        }
    }
}

/// How many tenants stand at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantsAtVersion {
    /// The version.
    pub version: i64,
    /// How many.
    pub tenants: i64,
}

/// A tenant below the head.
#[derive(Debug, Clone, Serialize)]
pub struct TenantBehind {
    /// Its id.
    pub id: TenantId,
    /// Its human name, if it has one.
    pub subdomain: Option<String>,
    /// The newest version that it has.
    pub version: i64,
}

/// A run of the past, or the one that is going on.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// `up` or `down`.
    pub direction: String,
    /// How it ended; `running` also for one that was killed.
    pub state: RunState,
    /// Who began it.
    pub actor: String,
    /// The version asked for, if it was not the newest.
    pub target: Option<i64>,
    /// How many tenants came how far.
    pub tenants: Counts,
    /// When it began.
    pub started_at: Timestamp,
    /// When it last noted how far it was.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

const LISTED: i64 = 100;

/// Reads where a set stands on a schema.
///
/// # Errors
/// [`Error::Migration`] where the ledger and the files do not fit together.
pub async fn set_status(
    reader: &ReaderDb,
    set: &MigrationSet,
    schema: &str,
) -> Result<SetStatus, Error> {
    let mut db = reader.connection().await?;
    read_set(&begin(&mut db).await?, set, schema).await
}

async fn read_set(
    db: &impl GenericClient,
    set: &MigrationSet,
    schema: &str,
) -> Result<SetStatus, Error> {
    let applied = ledger::applied_to(db, schema).await?;
    let pending = pending(set, &applied)?;
    Ok(SetStatus {
        applied: ledger::newest(&applied),
        head: set.head(),
        pending: pending.into_iter().map(PendingFile::new).collect(),
    })
}

/// Reads where everything stands.
///
/// # Errors
/// [`Error::Migration`] where a ledger and the files do not fit together.
pub async fn fleet_status(
    reader: &ReaderDb,
    migrations: &Migrations,
) -> Result<FleetStatus, Error> {
    let mut db = reader.connection().await?;
    let tx = begin(&mut db).await?;
    let public = read_set(&tx, &migrations.public, "public").await?;
    let mut status = FleetStatus {
        tenant_head: migrations.tenant.head(),
        tenants_by_version: Vec::new(),
        behind_count: 0,
        behind: Vec::new(),
        behind_truncated: false,
        failures: Vec::new(),
        halfway: Vec::new(),
        last_run: None,
        remarks: Vec::new(),
        public,
    };
    if status.public.applied == 0 {
        return Ok(status);
    }
    status.remarks = preflight::ledgers(&tx, migrations).await?;
    status.tenants_by_version = by_version(&tx).await?;
    let recorded = record::is_possible(&tx).await?;
    // The column comes with the record of runs.
    let digest = recorded.then(|| migrations.tenant.repeatable_digest());
    let (count, behind) = behind(&tx, status.tenant_head, digest.as_deref()).await?;
    (status.behind_count, status.behind) = (count, behind);
    status.behind_truncated = status.behind_count > LISTED;
    if recorded {
        status.last_run = last_run(&tx).await?;
        status.failures = failures(&tx).await?;
        status.halfway = record::halfway(&tx).await?;
    }
    Ok(status)
}

async fn by_version(db: &impl GenericClient) -> Result<Vec<TenantsAtVersion>, Error> {
    let rows = db
        .query_typed(
            "SELECT schema_version, count(*) FROM public.tenants
             WHERE status NOT IN ('purging', 'purged') GROUP BY schema_version ORDER BY schema_version",
            &[],
        )
        .await
        .doing("count tenants by version")?;
    Ok(rows
        .iter()
        .map(|row| TenantsAtVersion { version: row.get(0), tenants: row.get(1) })
        .collect())
}

async fn behind(
    db: &impl GenericClient,
    head: i64,
    digest: Option<&[u8]>,
) -> Result<(i64, Vec<TenantBehind>), Error> {
    let statement = match digest {
        Some(_) => {
            "SELECT id, subdomain, schema_version, count(*) OVER () FROM public.tenants
             WHERE status NOT IN ('purging', 'purged')
               AND (schema_version < $1 OR schema_version = $1 AND repeatable_digest <> $3)
             ORDER BY schema_version, created_at, id LIMIT $2"
        }
        None => {
            "SELECT id, subdomain, schema_version, count(*) OVER () FROM public.tenants
             WHERE status NOT IN ('purging', 'purged') AND schema_version < $1 AND $3::bytea IS NULL
             ORDER BY schema_version, created_at, id LIMIT $2"
        }
    };
    let rows = db
        .query_typed(
            statement,
            &[(&head, Type::INT8), (&LISTED, Type::INT8), (&digest, Type::BYTEA)],
        )
        .await
        .doing("list tenants that are behind")?;
    let count = rows.first().map_or(0, |row| row.get(3));
    let tenant = |row: &Row| TenantBehind {
        id: row.get::<_, Uuid>(0).into(),
        subdomain: row.get(1),
        version: row.get(2),
    };
    Ok((count, rows.iter().map(tenant).collect()))
}

async fn last_run(db: &impl GenericClient) -> Result<Option<Run>, Error> {
    let row = db
        .query_typed_opt(
            "SELECT id, direction, state, actor, target, tenants_total, tenants_done, tenants_failed,
                    tenants_skipped, started_at, updated_at, ended_at
             FROM public.migration_runs ORDER BY started_at DESC LIMIT 1",
            &[],
        )
        .await
        .doing("read the newest run")?;
    let count = |row: &Row, at: usize| row.get::<_, i32>(at).unsigned_abs() as usize;
    Ok(row.as_ref().map(|row| Run {
        id: row.get(0),
        direction: row.get(1),
        state: RunState::parse(row.get(2)),
        actor: row.get(3),
        target: row.get(4),
        tenants: Counts {
            total: count(row, 5),
            done: count(row, 6),
            failed: count(row, 7),
            skipped: count(row, 8),
        },
        started_at: row.get(9),
        updated_at: row.get(10),
        ended_at: row.get(11),
    }))
}

/// A failure counts until its schema has come further, or a later run had nothing to say about it.
async fn failures(db: &impl GenericClient) -> Result<Vec<SchemaFailure>, Error> {
    let rows = db
        .query_typed(
            "SELECT f.schema_name, f.tenant_id, t.subdomain, f.version, f.file, f.line, f.statement, f.sqlstate,
                    f.message, f.blocked_by, f.attempts
             FROM (SELECT DISTINCT ON (schema_name) run, schema_name, tenant_id, version, file, line, statement,
                           sqlstate, message, blocked_by, attempts, failed_at FROM public.migration_failures
                    ORDER BY schema_name, failed_at DESC) f
             JOIN public.migration_runs r ON r.id = f.run
             LEFT JOIN public.tenants t ON t.id = f.tenant_id
             WHERE CASE WHEN f.tenant_id IS NULL
                        THEN r.started_at = (SELECT max(started_at) FROM public.migration_runs)
                        ELSE t.status NOT IN ('purging', 'purged') AND t.schema_version = f.version
                             AND NOT EXISTS (SELECT FROM public.migration_runs later
                                              WHERE later.started_at > r.started_at AND later.state = 'complete'
                                                AND later.direction = r.direction)
                   END
             ORDER BY f.failed_at DESC LIMIT $1",
            &[(&LISTED, Type::INT8)],
        )
        .await
        .doing("read who failed")?;
    let failure = |row: &Row| SchemaFailure {
        schema: row.get(0),
        tenant: row.get::<_, Option<Uuid>>(1).map(TenantId::from),
        subdomain: row.get(2),
        version: row.get::<_, Option<i64>>(3).unwrap_or(0),
        file: row.get(4),
        line: row.get::<_, Option<i32>>(5).map(|line| line.unsigned_abs() as usize),
        statement: row.get(6),
        sqlstate: row.get(7),
        message: row.get(8),
        blocked_by: row.get::<_, Json<_>>(9).0,
        attempts: row.get::<_, i32>(10).unsigned_abs(),
    };
    Ok(rows.iter().map(failure).collect())
}
