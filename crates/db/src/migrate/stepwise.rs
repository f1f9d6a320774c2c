//! Files that run outside a transaction: statement by statement, with a note of how far they came.
//!
//! What may share a transaction with its note does. For the rest the note says before and after, so that
//! whoever comes after a killed runner knows which statement is in doubt, and looks.

use tokio_postgres::types::Type;

use super::batch::{BatchError, with_roles};
use super::claim::bytea;
use super::outside::{self, Step};
use super::public::SCHEMA;
use super::session::Session;
use super::sql::Statement;
use super::tenant::StepError;
use super::{Batch, MigrationError, Script, loss, sql};
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::quoted;

/// A file that runs statement by statement in one schema.
pub(super) struct Stepwise<'a> {
    pub(super) admin: &'a AdminDb,
    pub(super) schema: String,
    pub(super) path: String,
    pub(super) script: &'a Script,
    pub(super) version: i64,
    pub(super) direction: &'static str,
    /// Whether rows may be lost; on the way up, that is the file's own business.
    pub(super) accept_data_loss: bool,
    /// The statement that fails unless the schema stands where it is expected.
    pub(super) look: String,
    /// The same, which also moves the schema on.
    pub(super) claim: String,
    /// What is recorded at the end.
    pub(super) record: String,
}

/// What the catalog says of a file's indexes and their tables.
pub(super) struct Indexes {
    pub(super) largest_bytes: i64,
    /// Left by an interrupted build: they hide behind IF NOT EXISTS, and nobody uses them.
    pub(super) invalid: Vec<String>,
    valid: Vec<String>,
}

pub(super) async fn look_at_indexes(
    session: &Session,
    schema: &str,
    indexes: &[(String, String)],
) -> Result<Indexes, Error> {
    let (names, tables): (Vec<&str>, Vec<&str>) =
        indexes.iter().map(|(index, table)| (index.as_str(), table.as_str())).unzip();
    let row = session
        .client()
        .query_typed_one(
            "SELECT (SELECT coalesce(max(pg_relation_size(c.oid)), 0) FROM pg_class c
                      WHERE c.relnamespace = n.oid AND c.relname = ANY ($3)),
                    ARRAY (SELECT c.relname::text FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
                      WHERE c.relnamespace = n.oid AND c.relname = ANY ($2) AND NOT i.indisvalid),
                    ARRAY (SELECT c.relname::text FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
                      WHERE c.relnamespace = n.oid AND c.relname = ANY ($2) AND i.indisvalid)
             FROM (SELECT max(oid) AS oid FROM pg_namespace WHERE nspname = $1) n",
            &[(&schema, Type::TEXT), (&names, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)],
        )
        .await
        .doing("look at the indexes that a migration builds")?;
    Ok(Indexes { largest_bytes: row.get(0), invalid: row.get(1), valid: row.get(2) })
}

/// Whether a runner began the file before.
pub(super) async fn is_begun(
    session: &Session,
    schema: &str,
    version: i64,
    direction: &str,
) -> Result<bool, Error> {
    let found = session
        .client()
        .query_typed_opt(
            "SELECT FROM public.migration_progress
             WHERE schema_name = $1 AND version = $2 AND direction = $3 AND statements_begun > 0",
            &[(&schema, Type::TEXT), (&version, Type::INT8), (&direction, Type::TEXT)],
        )
        .await
        .doing("read how far a migration came")?;
    Ok(found.is_some())
}

impl Stepwise<'_> {
    /// Runs what is left of the file. The session keeps its settings: it must not be used for anything
    /// else afterwards.
    pub(super) async fn run(&self, session: &mut Session) -> Result<(), StepError> {
        session.use_up();
        self.lock(session).await?;
        let ended = self.run_alone(session).await;
        // The server would notice a while after the connection is closed, and whoever comes at once
        // would be refused.
        if let Err(error) = self.unlock(session).await {
            tracing::debug!(error = %error, "a lock goes with its connection");
        }
        ended
    }

    async fn run_alone(&self, session: &Session) -> Result<(), StepError> {
        let mut check = Batch::new(self.schema.clone());
        check.guard(&self.look).send(session.client()).await?;
        self.settle_in(session).await?;
        let (begun, done) = self.progress(session).await?;
        for (index, statement) in self.script.statements.iter().enumerate().skip(done) {
            self.statement(session, index, statement, begun > index).await?;
        }
        let mut end = Batch::new(self.schema.clone());
        let Self { schema, version, direction, .. } = self;
        end.guard(&self.claim).record(&self.record).ours(&format!(
            "DELETE FROM public.migration_progress \
             WHERE schema_name = '{schema}' AND version = {version} AND direction = '{direction}';"
        ));
        Ok(end.send(session.client()).await?)
    }

    /// The row can't be kept locked over several transactions, hence a lock of the session's. Only the
    /// admin may take such locks, so no tenant can hold it.
    async fn lock(&self, session: &Session) -> Result<(), Error> {
        let key = self.lock_key();
        let row = session
            .client()
            .query_typed_one(
                "SELECT pg_try_advisory_lock(hashtextextended($1, 0))",
                &[(&key, Type::TEXT)],
            )
            .await
            .doing("lock the schema")?;
        if row.get(0) { Ok(()) } else { Err(Error::Busy(format!("schema `{}`", self.schema))) }
    }

    async fn unlock(&self, session: &Session) -> Result<(), Error> {
        session.client().batch_execute("RESET ROLE").await.doing("return to the admin's role")?;
        session
            .client()
            .query_typed(
                "SELECT pg_advisory_unlock(hashtextextended($1, 0))",
                &[(&self.lock_key(), Type::TEXT)],
            )
            .await
            .doing("unlock the schema")?;
        Ok(())
    }

    fn lock_key(&self) -> String {
        format!("{}:migrate:{}", self.admin.roles, self.schema)
    }

    async fn settle_in(&self, session: &Session) -> Result<(), Error> {
        let (limits, options) = (&self.admin.limits, &self.script.options);
        let settings = format!(
            "SET ROLE {owner}; SET search_path TO {path}; SET lock_timeout = {lock_ms}; \
             SET statement_timeout = {statement_ms}; SET synchronous_commit = on",
            owner = self.admin.roles.owner(),
            path = self.path,
            lock_ms = options.lock_timeout.unwrap_or(limits.lock_timeout).as_millis().max(1),
            statement_ms =
                options.statement_timeout.unwrap_or(limits.statement_timeout).as_millis().max(1),
        );
        session.client().batch_execute(&settings).await.doing("set a migration's limits")
    }

    /// How many statements were begun and done by runners before.
    async fn progress(&self, session: &Session) -> Result<(usize, usize), StepError> {
        let row = session
            .client()
            .query_typed_opt(
                "SELECT statements_begun, statements_done, token_checksum FROM public.migration_progress
                 WHERE schema_name = $1 AND version = $2 AND direction = $3",
                &[
                    (&self.schema, Type::TEXT),
                    (&self.version, Type::INT8),
                    (&self.direction, Type::TEXT),
                ],
            )
            .await
            .doing("read how far a migration came")?;
        let Some(row) = row else { return Ok((0, 0)) };
        let count = |at: usize| row.get::<_, i32>(at).unsigned_abs() as usize;
        let (begun, done) = (count(0), count(1));
        if row.get::<_, &[u8]>(2) != self.checksum_of(begun) {
            return Err(MigrationError::ChangedHalfway {
                file: self.script.file.clone(),
                schema: self.schema.clone(),
                done: begun,
            }
            .into());
        }
        Ok((begun, done))
    }

    /// Of the first statements: those behind them may still be mended.
    fn checksum_of(&self, statements: usize) -> [u8; 32] {
        let last = statements.checked_sub(1).and_then(|last| self.script.statements.get(last));
        let end = match last {
            Some(last) => last.range.end,
            None if statements == 0 => 0,
            // There are fewer than that now.
            None => self.script.text.len(),
        };
        sql::token_checksum(&self.script.text[..end])
    }

    async fn statement(
        &self,
        session: &Session,
        index: usize,
        statement: &Statement,
        in_doubt: bool,
    ) -> Result<(), StepError> {
        let step = outside::step(self.script, statement).unwrap_or(Step::Transactional);
        let mut text = self.script.statement(statement).to_owned();
        let mut together = step == Step::Transactional;
        if let Step::BuildIndex { index: name, table, concurrently } = &step {
            let built = [(name.clone(), table.clone())];
            let found = look_at_indexes(session, &self.schema, &built).await?;
            let limit_mib = self.admin.limits.plain_index_up_to_mib;
            together =
                outside::builds_plainly(self.script.options.index, found.largest_bytes, limit_mib);
            if in_doubt && !found.valid.is_empty() {
                return Ok(self.note(session, index + 1, index + 1).await?);
            }
            if !found.invalid.is_empty() {
                let schema = quoted(&self.schema);
                session
                    .client()
                    .batch_execute(&format!("DROP INDEX CONCURRENTLY {schema}.{}", quoted(name)))
                    .await
                    .doing(format!("drop what an interrupted build left of index `{name}`"))?;
            }
            if together {
                let from = concurrently.start - statement.range.start;
                let range = from..from + concurrently.len();
                text.replace_range(range.clone(), &" ".repeat(range.len()));
            }
        }
        if together {
            let note = self.note_text(index + 1, index + 1);
            return self.send(session, index, &format!("{text}\n; {note}")).await;
        }
        self.note(session, index + 1, index).await?;
        if self.script.options.lock_timeout.is_none() {
            // It waits for others without keeping anybody waiting.
            session
                .client()
                .batch_execute("SET lock_timeout = 0")
                .await
                .doing("set a migration's limits")?;
        }
        match self.send(session, index, &text).await {
            // In doubt, and already gone.
            Err(StepError::Other(Error::Migration(MigrationError::Failed {
                sqlstate, ..
            }))) if in_doubt && matches!(step, Step::DropIndex { .. }) && sqlstate == "42704" => {}
            Err(error) => {
                // It was answered, so it is in no doubt, and may be mended. A lost connection's note is
                // lost too.
                if let Err(error) = self.note(session, index, index).await {
                    tracing::debug!(error = %error, "can't note that a statement failed");
                }
                return Err(error);
            }
            Ok(()) => {}
        }
        self.settle_in(session).await?;
        Ok(self.note(session, index + 1, index + 1).await?)
    }

    async fn send(&self, session: &Session, index: usize, text: &str) -> Result<(), StepError> {
        let mut batch = Batch::new(self.schema.clone());
        if self.direction == "down" && !self.accept_data_loss {
            let statement = self.script.statements.get(index).into_iter();
            let guards = statement.flat_map(|s| loss::guards_of(&self.schema, self.script, s));
            for guard in guards {
                batch.loss_guard(&guard);
            }
        }
        // Role names stand in files of the public set only.
        let text = match self.schema == SCHEMA {
            true => with_roles(text, &self.admin.roles),
            false => text.to_owned(),
        };
        batch.statement(self.script, index, &text);
        batch.send(session.client()).await.map_err(|error| match error {
            BatchError::Loss => MigrationError::rows_came(self.schema.clone(), None).into(),
            other => other.into(),
        })
    }

    async fn note(&self, session: &Session, begun: usize, done: usize) -> Result<(), Error> {
        let text = self.note_text(begun, done);
        session.client().batch_execute(&text).await.doing("note how far a migration came")
    }

    fn note_text(&self, begun: usize, done: usize) -> String {
        let Self { schema, version, direction, .. } = self;
        let tokens = bytea(&self.checksum_of(begun));
        format!(
            "INSERT INTO public.migration_progress AS p \
             (schema_name, version, direction, token_checksum, statements_begun, statements_done) \
             VALUES ('{schema}', {version}, '{direction}', {tokens}, {begun}, {done}) \
             ON CONFLICT (schema_name, version, direction) DO UPDATE SET \
             token_checksum = {tokens}, statements_begun = {begun}, statements_done = {done}, \
             updated_at = pg_catalog.clock_timestamp()"
        )
    }
}
