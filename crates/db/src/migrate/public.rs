//! The public schema: one runner at a time, each migration and its ledger entry in one transaction.

use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};
use uuid::Uuid;

use super::batch::{BatchError, PUBLIC_PATH, with_roles};
use super::claim::ledger_entry;
use super::session::Session;
use super::stepwise::Stepwise;
use super::tenant::StepError;
use super::{Batch, Migration, MigrationError, MigrationSet, ledger, loss, pending};
use crate::direct::{self, AdminDb};
use crate::error::{Doing, Error};

/// The schema of the public set.
pub(super) const SCHEMA: &str = "public";

/// A migration that was just applied, or taken back.
#[derive(Debug, Clone)]
pub struct AppliedNow {
    /// The version.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}

/// Brings the public schema to head, or to `to`. Calls `progress` after each migration. Its repeatable
/// files come with a rollout.
///
/// # Errors
/// [`Error::Busy`] if another runner is at it, [`Error::Migration`] with what stands against it.
/// What was applied before the error stays.
pub async fn migrate_public(
    admin: &AdminDb,
    set: &MigrationSet,
    to: Option<i64>,
    progress: impl FnMut(&AppliedNow),
) -> Result<Vec<AppliedNow>, Error> {
    up(admin, set, to, None, progress).await
}

pub(super) async fn up(
    admin: &AdminDb,
    set: &MigrationSet,
    to: Option<i64>,
    run: Option<Uuid>,
    mut progress: impl FnMut(&AppliedNow),
) -> Result<Vec<AppliedNow>, Error> {
    let mut db = admin.connection().await?;
    let mut done = Vec::new();
    loop {
        let started = Instant::now();
        let tx = begin(&mut db, admin).await?;
        let applied = ledger::applied_to(&tx, SCHEMA).await?;
        let pending = pending(set, &applied)?;
        let next = pending.first().copied().filter(|m| to.is_none_or(|to| m.version <= to));
        let Some(next) = next else {
            end(tx).await?;
            return Ok(done);
        };
        let entry = ledger_entry(SCHEMA, next, run);
        if next.up.transactional {
            let text = with_roles(&next.up.text, &admin.roles);
            let mut batch = Batch::new(SCHEMA);
            batch
                .settings(&admin.roles, PUBLIC_PATH, &admin.limits)
                .script_as(&next.up, &text, &admin.limits)
                .record(&format!("{entry};"));
            batch.send(tx.client()).await.map_err(refused)?;
            tx.commit().await.doing(format!("commit `{}`", next.up.file))?;
        } else {
            // The file takes the same lock for its own session.
            end(tx).await?;
            let mut own = Session::open(admin).await?;
            let file = stepwise(admin, next, "up", true, format!("{entry};"))?;
            file.run(&mut own).await.map_err(step_refused)?;
        }
        let now =
            AppliedNow { version: next.version, name: next.name.clone(), took: started.elapsed() };
        progress(&now);
        done.push(now);
    }
}

/// Takes the public schema back to a version, one migration after the other.
pub(super) async fn down(
    admin: &AdminDb,
    set: &MigrationSet,
    to: i64,
    accept_data_loss: bool,
    mut progress: impl FnMut(&AppliedNow),
) -> Result<(), Error> {
    let mut db = admin.connection().await?;
    loop {
        let started = Instant::now();
        let tx = begin(&mut db, admin).await?;
        let applied = ledger::applied_to(&tx, SCHEMA).await?;
        pending(set, &applied)?;
        let head = ledger::newest(&applied);
        let Some(next) = set.down_from(head, to).next() else { return end(tx).await };
        let down = next.require_down()?;
        let unrecord = format!(
            "DELETE FROM public.migrations WHERE schema_name = '{SCHEMA}' AND version = {}",
            next.version
        );
        if down.transactional {
            let text = with_roles(&down.text, &admin.roles);
            let mut batch = Batch::new(SCHEMA);
            batch.settings(&admin.roles, PUBLIC_PATH, &admin.limits);
            if loss::drops_register(down) {
                batch.loss_guard(loss::REGISTER_GUARD);
            }
            if !accept_data_loss {
                for guard in loss::guards(SCHEMA, down) {
                    batch.loss_guard(&guard);
                }
            }
            batch.script_as(down, &text, &admin.limits);
            batch.send(tx.client()).await.map_err(refused)?;
            // The first migration's way back takes the ledger along.
            if ledger::exists(&tx).await? {
                tx.batch_execute(&unrecord).await.doing("write the migration ledger")?;
            }
            tx.commit().await.doing(format!("commit `{}`", down.file))?;
        } else {
            // The file takes the same lock for its own session.
            end(tx).await?;
            let mut own = Session::open(admin).await?;
            let file = stepwise(admin, next, "down", accept_data_loss, format!("{unrecord};"))?;
            file.run(&mut own).await.map_err(step_refused)?;
        }
        progress(&AppliedNow {
            version: next.version,
            name: next.name.clone(),
            took: started.elapsed(),
        });
    }
}

/// Applies the repeatable files again if they are others than before, and notes it with the run. Says
/// whether it did.
pub(super) async fn repeat(admin: &AdminDb, set: &MigrationSet, run: Uuid) -> Result<bool, Error> {
    let digest = set.repeatable_digest();
    let mut db = admin.connection().await?;
    let tx = begin(&mut db, admin).await?;
    let before = tx
        .query_typed_opt(
            "SELECT public_repeatables FROM public.migration_runs
             WHERE public_repeatables IS NOT NULL ORDER BY started_at DESC LIMIT 1",
            &[],
        )
        .await
        .doing("read which repeatable files the public schema has")?;
    let before: Vec<u8> = before.map(|row| row.get(0)).unwrap_or_default();
    if before == digest {
        end(tx).await?;
        return Ok(false);
    }
    let texts: Vec<String> =
        set.repeatables().iter().map(|f| with_roles(&f.script.text, &admin.roles)).collect();
    let mut batch = Batch::new(SCHEMA);
    batch.settings(&admin.roles, PUBLIC_PATH, &admin.limits);
    for (file, text) in set.repeatables().iter().zip(&texts) {
        batch.script_as(&file.script, text, &admin.limits);
    }
    batch.record("");
    batch.send(tx.client()).await.map_err(refused)?;
    tx.execute_typed(
        "UPDATE public.migration_runs SET public_repeatables = $2 WHERE id = $1",
        &[(&run, Type::UUID), (&digest, Type::BYTEA)],
    )
    .await
    .doing("note which repeatable files the public schema has")?;
    tx.commit().await.doing("commit the repeatable files of the public schema")?;
    Ok(true)
}

fn stepwise<'a>(
    admin: &'a AdminDb,
    migration: &'a Migration,
    direction: &'static str,
    accept_data_loss: bool,
    record: String,
) -> Result<Stepwise<'a>, Error> {
    let (script, wanted) = match direction {
        "up" => (&migration.up, "NOT EXISTS"),
        _ => (migration.require_down()?, "EXISTS"),
    };
    let version = migration.version;
    let look = format!(
        "SELECT 1 / count(*) FROM (SELECT WHERE {wanted} (
             SELECT FROM public.migrations WHERE schema_name = '{SCHEMA}' AND version = {version})) AS expected;\n"
    );
    Ok(Stepwise {
        admin,
        schema: SCHEMA.to_owned(),
        path: PUBLIC_PATH.to_owned(),
        script,
        version,
        direction,
        accept_data_loss,
        claim: look.clone(),
        look,
        record,
    })
}

/// One runner at a time. It never waits inside PostgreSQL: a waiting backend holds a snapshot, and
/// CREATE INDEX CONCURRENTLY elsewhere would wait for that.
async fn begin<'a>(db: &'a mut Object, admin: &AdminDb) -> Result<Transaction<'a>, Error> {
    // A program that ended a moment ago holds it until the server has noticed.
    const TRIES: usize = 5;
    const PAUSE: Duration = Duration::from_millis(50);
    let tx = direct::begin(db).await?;
    let key = format!("{}:migrate:{SCHEMA}", admin.roles);
    for _ in 0..TRIES {
        let row = tx
            .query_typed_one(
                "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))",
                &[(&key, Type::TEXT)],
            )
            .await
            .doing("lock the public migrations")?;
        if row.get::<_, bool>(0) {
            return Ok(tx);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Error::Busy("the public schema".to_owned()))
}

/// Gives the lock back before anything else is done, so that nobody finds it held by a program that has
/// ended.
async fn end(tx: Transaction<'_>) -> Result<(), Error> {
    tx.rollback().await.doing("end a transaction")
}

fn refused(error: BatchError) -> Error {
    match error {
        BatchError::Statement(error) => error.into(),
        BatchError::Loss => MigrationError::rows_came(SCHEMA.to_owned(), None).into(),
        BatchError::Guard | BatchError::Locked => Error::Busy("the public schema".to_owned()),
    }
}

fn step_refused(error: StepError) -> Error {
    match error {
        StepError::Other(error) => error,
        StepError::Guard | StepError::Locked => Error::Busy("the public schema".to_owned()),
    }
}

/// Refuses to go on where the public schema is below its set's head. Above it is fine: a newer
/// program may have migrated while this one still runs.
pub(crate) async fn require_public_head(
    tx: &impl GenericClient,
    public: &MigrationSet,
) -> Result<(), Error> {
    let needed = public.head();
    let found = ledger::newest(&ledger::applied_to(tx, SCHEMA).await?);
    if found < needed {
        return Err(Error::Behind { set: public.kind(), found, needed });
    }
    Ok(())
}
