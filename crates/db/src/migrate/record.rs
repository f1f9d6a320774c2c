//! What is kept of a run: `public.migration_runs` and `public.migration_failures`.

use serde::Serialize;
use serde_json::json;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Client, GenericClient};
use uuid::Uuid;

use super::error::MigrationError;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::audit::{self, Action, Actor, insert_audit};

/// Why a schema could not be brought along.
#[derive(Debug, Clone, Serialize)]
pub struct SchemaFailure {
    /// The schema.
    pub schema: String,
    /// Its tenant; absent for the public schema.
    pub tenant: Option<TenantId>,
    /// The tenant's human name, if it has one.
    pub subdomain: Option<String>,
    /// Where it stood: the newest version that it has.
    pub version: i64,
    /// The file that failed.
    pub file: Option<String>,
    /// The line, if it is known.
    pub line: Option<usize>,
    /// How the statement begins.
    pub statement: Option<String>,
    /// PostgreSQL's error code.
    pub sqlstate: Option<String>,
    /// What went wrong, without values of rows.
    pub message: String,
    /// Who held the lock that it waited for, as far as somebody was seen.
    pub blocked_by: Vec<Blocker>,
    /// How often it was tried.
    pub attempts: u32,
}

/// A session that others wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Blocker {
    /// Its process on the server.
    pub pid: i32,
    /// Its login.
    pub role: Option<String>,
    /// The program that it calls itself.
    pub application: Option<String>,
    /// What it is doing: `active`, `idle in transaction`.
    pub state: Option<String>,
    /// For how long its transaction has been open, in seconds.
    pub transaction_s: Option<i64>,
}

impl SchemaFailure {
    pub(super) fn new(schema: String, error: &Error) -> Self {
        let mut failure = Self {
            schema,
            tenant: None,
            subdomain: None,
            version: 0,
            file: None,
            line: None,
            statement: None,
            sqlstate: None,
            message: error.to_string(),
            blocked_by: Vec::new(),
            attempts: 1,
        };
        if let Error::Migration(MigrationError::Failed {
            file,
            line,
            statement,
            sqlstate,
            source,
            ..
        }) = error
        {
            failure.file = Some(file.clone());
            failure.line = *line;
            failure.statement.clone_from(statement);
            failure.sqlstate = Some(sqlstate.clone());
            // The details, which this leaves out, hold values of rows.
            failure.message =
                source.as_db_error().map_or_else(|| source.to_string(), |e| e.message().to_owned());
        } else if let Error::Database { source, .. } = error {
            failure.sqlstate = source.code().map(|code| code.code().to_owned());
            if let Some(e) = source.as_db_error() {
                failure.message = format!("{error}: {}", e.message());
            }
        }
        failure
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Still going on, or killed.
    Running,
    /// All that was asked for was done.
    Complete,
    /// Some schema failed.
    Failed,
    /// Somebody stopped it.
    Interrupted,
}

impl RunState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        match text {
            "complete" => Self::Complete,
            "failed" => Self::Failed,
            "interrupted" => Self::Interrupted,
            _ => Self::Running,
        }
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many tenants came how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Those that the run concerns.
    pub total: usize,
    /// Those that stand where they were to go.
    pub done: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that were purged meanwhile.
    pub skipped: usize,
}

/// The only runner: others are refused while this is held, or its connection lives.
pub(super) struct RunLock {
    client: Client,
}

impl RunLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`Error::Busy`] if another runner has it.
    pub(super) async fn take(admin: &AdminDb) -> Result<Self, Error> {
        // A runner that was killed a moment ago holds it until the server has noticed.
        const TRIES: usize = 5;
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
        let client = admin.session().await?;
        let key = format!("{}:migrate:run", admin.roles);
        for _ in 0..TRIES {
            let row = client
                .query_typed_one(
                    "SELECT pg_try_advisory_lock(hashtextextended($1, 0))",
                    &[(&key, Type::TEXT)],
                )
                .await
                .doing("lock the migrations")?;
            if row.get(0) {
                return Ok(Self { client });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::Busy("the fleet".to_owned()))
    }

    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed()
    }
}

/// Whether runs can be recorded yet: the migration that makes the tables may be pending.
pub(super) async fn is_possible(db: &impl GenericClient) -> Result<bool, Error> {
    let row = db
        .query_typed_one("SELECT to_regclass('public.migration_runs') IS NOT NULL", &[])
        .await
        .doing("look for the record of runs")?;
    Ok(row.get(0))
}

/// Begins a run. Whoever calls it holds the lock, so runs that are still `running` were killed.
pub(super) async fn begin(
    admin: &AdminDb,
    direction: &str,
    target: Option<i64>,
    actor: &Actor,
) -> Result<Uuid, Error> {
    let mut db = admin.connection().await?;
    let tx = crate::direct::begin(&mut db).await?;
    tx.execute_typed(
        "UPDATE public.migration_runs SET state = 'interrupted', ended_at = updated_at
         WHERE state = 'running'",
        &[],
    )
    .await
    .doing("close the records of killed runs")?;
    let row = tx
        .query_typed_one(
            "INSERT INTO public.migration_runs (direction, target, actor) VALUES ($1, $2, $3) RETURNING id",
            &[(&direction, Type::TEXT), (&target, Type::INT8), (&actor.to_string(), Type::TEXT)],
        )
        .await
        .doing("record the run")?;
    let run: Uuid = row.get(0);
    let details = json!({ "run": run, "direction": direction, "to": target });
    audit::record_of_installation(&tx, actor, Action::RunBegun, &details).await?;
    tx.commit().await.doing("record the run")?;
    Ok(run)
}

/// Notes how far a run has come.
pub(super) async fn note(admin: &AdminDb, run: Uuid, counts: Counts) -> Result<(), Error> {
    let db = admin.connection().await?;
    set(&**db, run, counts, RunState::Running).await
}

/// Notes how a run ended, and why whom it left behind.
pub(super) async fn end(
    admin: &AdminDb,
    run: Uuid,
    counts: Counts,
    state: RunState,
    failures: &[SchemaFailure],
) -> Result<(), Error> {
    let mut db = admin.connection().await?;
    let tx = crate::direct::begin(&mut db).await?;
    for failure in failures {
        record_failure(&tx, run, failure).await?;
    }
    set(&tx, run, counts, state).await?;
    tx.execute_typed(
        concat!(
            insert_audit!(),
            "SELECT actor, $2, NULL, NULL, jsonb_build_object('run', id, 'state', state,
                        'tenants_done', tenants_done, 'tenants_failed', tenants_failed)
             FROM public.migration_runs WHERE id = $1"
        ),
        &[(&run, Type::UUID), (&Action::RunEnded.as_str(), Type::TEXT)],
    )
    .await
    .doing("write the audit log")?;
    tx.commit().await.doing("record how the run ended")
}

/// Notes a failure at once, for those who look on.
pub(super) async fn failed(
    admin: &AdminDb,
    run: Uuid,
    failure: &SchemaFailure,
) -> Result<(), Error> {
    let db = admin.connection().await?;
    record_failure(&**db, run, failure).await
}

async fn set(
    db: &impl GenericClient,
    run: Uuid,
    counts: Counts,
    state: RunState,
) -> Result<(), Error> {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    db.execute_typed(
        "UPDATE public.migration_runs
         SET tenants_total = $2, tenants_done = $3, tenants_failed = $4, tenants_skipped = $5, state = $6,
             updated_at = clock_timestamp(), ended_at = CASE $6 WHEN 'running' THEN NULL ELSE clock_timestamp() END
         WHERE id = $1",
        &[
            (&run, Type::UUID),
            (&count(counts.total), Type::INT4),
            (&count(counts.done), Type::INT4),
            (&count(counts.failed), Type::INT4),
            (&count(counts.skipped), Type::INT4),
            (&state.as_str(), Type::TEXT),
        ],
    )
    .await
    .doing("record how far the run has come")?;
    Ok(())
}

async fn record_failure(
    db: &impl GenericClient,
    run: Uuid,
    failure: &SchemaFailure,
) -> Result<(), Error> {
    let line = failure.line.and_then(|line| i32::try_from(line).ok());
    let attempts = i32::try_from(failure.attempts).unwrap_or(i32::MAX);
    db.execute_typed(
        "INSERT INTO public.migration_failures (run, schema_name, tenant_id, version, file, line, statement,
                                                sqlstate, message, blocked_by, attempts)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        &[
            (&run, Type::UUID),
            (&failure.schema, Type::TEXT),
            (&failure.tenant.map(|tenant| *tenant.as_uuid()), Type::UUID),
            (&failure.version, Type::INT8),
            (&failure.file, Type::TEXT),
            (&line, Type::INT4),
            (&failure.statement, Type::TEXT),
            (&failure.sqlstate, Type::TEXT),
            (&failure.message, Type::TEXT),
            (&Json(&failure.blocked_by), Type::JSONB),
            (&attempts, Type::INT4),
        ],
    )
    .await
    .doing("record a failure")?;
    Ok(())
}

/// Whom a backend waits for.
pub(super) async fn blockers(admin: &AdminDb, pid: i32) -> Result<Vec<Blocker>, Error> {
    let db = admin.connection().await?;
    let rows = db
        .query_typed(
            "SELECT b.pid, a.usename::text, a.application_name, a.state,
                    extract(epoch FROM clock_timestamp() - a.xact_start)::bigint
             FROM unnest(pg_blocking_pids($1)) AS b (pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid
             LIMIT 5",
            &[(&pid, Type::INT4)],
        )
        .await
        .doing("look who holds the lock")?;
    let blocker = |row: &tokio_postgres::Row| Blocker {
        pid: row.get(0),
        role: row.get(1),
        application: row.get(2),
        state: row.get(3),
        transaction_s: row.get(4),
    };
    Ok(rows.iter().map(blocker).collect())
}

/// A schema in which a file outside a transaction has run half way.
#[derive(Debug, Clone, Serialize)]
pub struct Halfway {
    /// The schema.
    pub schema: String,
    /// The tenant's human name, if it has one.
    pub subdomain: Option<String>,
    /// The file's version.
    pub version: i64,
    /// `up` or `down`.
    pub direction: String,
    /// How many of its statements are done.
    pub statements_done: i32,
}

impl Halfway {
    /// The schema as people know it.
    pub fn name(&self) -> String {
        self.subdomain.clone().unwrap_or_else(|| self.schema.clone())
    }

    pub(super) fn is_up(&self) -> bool {
        self.direction == "up"
    }
}

/// The first hundred schemas that stand half way. None where nobody can, since nothing records it yet.
pub(super) async fn halfway(db: &impl GenericClient) -> Result<Vec<Halfway>, Error> {
    if !is_possible(db).await? {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "SELECT p.schema_name, t.subdomain, p.version, p.direction, p.statements_done
             FROM public.migration_progress p
             LEFT JOIN public.tenants t ON p.schema_name = 'tenant_' || replace(t.id::text, '-', '')
             WHERE p.statements_begun > 0 ORDER BY p.version DESC, p.schema_name LIMIT 100",
            &[],
        )
        .await
        .doing("look who stands half way")?;
    let halfway = |row: &tokio_postgres::Row| Halfway {
        schema: row.get(0),
        subdomain: row.get(1),
        version: row.get(2),
        direction: row.get(3),
        statements_done: row.get(4),
    };
    Ok(rows.iter().map(halfway).collect())
}
