//! The one place that knows how a migration is sent: as a multi-statement simple query, inside the
//! caller's transaction, as the owner and with the schema's search path.

use tokio_postgres::error::ErrorPosition;

use super::{Migration, MigrationError};
use crate::config;
use crate::roles::RolePrefix;

/// A migration made ready for one schema.
pub(crate) struct Batch<'a> {
    migration: &'a Migration,
    schema: String,
    text: String,
    /// Characters before the file's own text: the server counts positions in characters.
    preamble_chars: usize,
}

impl<'a> Batch<'a> {
    /// For the public schema. `:"tenant_group"` and `:"reader"` stand for role names there, which
    /// the files can't know (psql's notation for a quoted identifier).
    pub(crate) fn public(
        migration: &'a Migration,
        roles: &RolePrefix,
        limits: &config::Migrations,
    ) -> Self {
        let body = migration
            .up
            .text
            .replace(":\"tenant_group\"", &roles.tenant_group())
            .replace(":\"reader\"", &roles.reader());
        let path = "public, pg_temp";
        Self::new(migration, "public".to_owned(), path, &body, roles, limits)
    }

    /// For a tenant's schema.
    pub(crate) fn tenant(
        migration: &'a Migration,
        schema: crate::ids::SchemaName,
        roles: &RolePrefix,
        limits: &config::Migrations,
    ) -> Self {
        let path = format!("{schema}, public, pg_temp");
        Self::new(migration, schema.to_string(), &path, &migration.up.text, roles, limits)
    }

    fn new(
        migration: &'a Migration,
        schema: String,
        path: &str,
        body: &str,
        roles: &RolePrefix,
        limits: &config::Migrations,
    ) -> Self {
        let preamble = format!(
            "SET LOCAL ROLE {owner}; SET LOCAL search_path TO {path}; \
             SET LOCAL lock_timeout = {lock_ms}; SET LOCAL statement_timeout = {statement_ms};\n",
            owner = roles.owner(),
            lock_ms = limits.lock_timeout.as_millis(),
            statement_ms = limits.statement_timeout.as_millis(),
        );
        // Last, so that nothing of the file reaches the statements that follow in the transaction.
        let text = format!("{preamble}{body}\n;SET LOCAL search_path TO public, pg_temp");
        Self { migration, schema, text, preamble_chars: preamble.chars().count() }
    }

    /// Sends the batch. The caller's transaction decides whether it stays.
    pub(crate) async fn send(
        &self,
        tx: &tokio_postgres::Transaction<'_>,
    ) -> Result<(), MigrationError> {
        tx.batch_execute(&self.text).await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: tokio_postgres::Error) -> MigrationError {
        let db_error = source.as_db_error();
        let position = match db_error.and_then(|e| e.position()) {
            Some(ErrorPosition::Original(position)) => usize::try_from(*position).ok(),
            _ => None,
        };
        let line = position.and_then(|p| p.checked_sub(self.preamble_chars + 1)).map(|chars| {
            let before = self.text.chars().skip(self.preamble_chars).take(chars);
            1 + before.filter(|c| *c == '\n').count()
        });
        MigrationError::Failed {
            file: self.migration.up.file.clone(),
            line,
            schema: self.schema.clone(),
            sqlstate: db_error.map_or_else(|| "no code".to_owned(), |e| e.code().code().to_owned()),
            source,
        }
    }
}
