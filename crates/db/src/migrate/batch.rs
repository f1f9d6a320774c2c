//! The one place that knows how migrations are sent: as one multi-statement simple query.
//!
//! Without BEGIN around it, such a query is a transaction of its own: one round trip, whole or not at
//! all, and nothing is left on the connection. Names in it come from parsed types only; the rest are
//! the files.

use std::ops::Range;

use futures_util::TryStreamExt as _;
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{MigrationError, Script};
use crate::config;
use crate::ids::SchemaName;
use crate::roles::RolePrefix;

/// Statements that are sent together, and where in them each file's own begin.
pub(crate) struct Batch<'a> {
    schema: String,
    text: String,
    chars: usize,
    statements: usize,
    settings: String,
    guard: Range<usize>,
    loss_guards: Vec<Range<usize>>,
    parts: Vec<Part<'a>>,
}

struct Part<'a> {
    script: &'a Script,
    /// Where in the file the part begins: its line, and its first statement's number.
    from_line: usize,
    from_statement: usize,
    chars: Range<usize>,
    statements: Range<usize>,
}

/// Why a batch was refused. Nothing of it was kept.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// The guard found the schema elsewhere than it was expected.
    Guard,
    /// Another transaction has the tenant's row.
    Locked,
    /// Rows would be lost.
    Loss,
    /// A statement failed, a file's own or one of ours.
    Statement(MigrationError),
}

impl<'a> Batch<'a> {
    pub(crate) fn new(schema: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            text: String::new(),
            chars: 0,
            statements: 0,
            settings: String::new(),
            guard: 0..0,
            loss_guards: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Adds one statement of a file, with whatever follows it in the text.
    pub(crate) fn statement(
        &mut self,
        script: &'a Script,
        statement: usize,
        text: &str,
    ) -> &mut Self {
        let from = self.chars;
        self.add(text);
        self.parts.push(Part {
            script,
            from_line: script.statements.get(statement).map_or(1, |s| s.line),
            from_statement: statement,
            chars: from..self.chars,
            statements: self.statements..self.statements + 1,
        });
        self
    }

    /// Adds statements of ours, each of which ends with a semicolon, and nothing else has one.
    pub(crate) fn ours(&mut self, sql: &str) -> &mut Self {
        self.statements += sql.matches(';').count();
        self.add(sql);
        self
    }

    /// Adds one statement that fails with `division_by_zero` or `invalid_schema_name` where the schema is
    /// not as expected. Where another has the tenant's row it does not wait: an UPDATE has no NOWAIT, so
    /// a millisecond stands for it.
    pub(crate) fn guard(&mut self, sql: &str) -> &mut Self {
        self.ours("SET LOCAL lock_timeout = 1;");
        self.guard = self.statements..self.statements + 1;
        self.ours(sql)
    }

    /// Adds statements that fail with `division_by_zero` where rows would be lost.
    pub(crate) fn loss_guard(&mut self, sql: &str) -> &mut Self {
        let from = self.statements;
        self.ours(sql);
        self.loss_guards.push(from..self.statements);
        self
    }

    /// What a migration's statements run with: role, path, limits. Ends with the transaction.
    pub(crate) fn settings(
        &mut self,
        roles: &RolePrefix,
        path: &str,
        limits: &config::Migrations,
    ) -> &mut Self {
        let owner = roles.owner();
        let limits =
            limits_text(limits.lock_timeout.as_millis(), limits.statement_timeout.as_millis());
        self.settings =
            format!("SET LOCAL ROLE {owner}; SET LOCAL search_path TO {path}; {limits}\n");
        self.add_settings()
    }

    fn add_settings(&mut self) -> &mut Self {
        let settings = std::mem::take(&mut self.settings);
        self.ours(&settings);
        self.settings = settings;
        self
    }

    /// Adds a file, with the limits that it asks for.
    pub(crate) fn script(&mut self, script: &'a Script, limits: &config::Migrations) -> &mut Self {
        self.script_as(script, &script.text, limits)
    }

    /// As [`script`](Self::script), with a text that has the same statements on the same lines.
    pub(crate) fn script_as(
        &mut self,
        script: &'a Script,
        text: &str,
        limits: &config::Migrations,
    ) -> &mut Self {
        if !self.parts.is_empty() {
            // As if the file had a transaction of its own: what the one before has set is gone.
            self.ours("RESET ALL;");
            self.add_settings();
        }
        let options = &script.options;
        let own = options.lock_timeout.is_some() || options.statement_timeout.is_some();
        if own {
            self.ours(&limits_text(
                options.lock_timeout.unwrap_or(limits.lock_timeout).as_millis(),
                options.statement_timeout.unwrap_or(limits.statement_timeout).as_millis(),
            ));
        }
        let from = (self.chars, self.statements);
        // A new line ends a comment in the file's last one.
        self.add(text);
        self.add("\n;");
        self.statements += script.statements.len();
        self.parts.push(Part {
            script,
            from_line: 1,
            from_statement: 0,
            chars: from.0..self.chars,
            statements: from.1..self.statements,
        });
        if own {
            self.ours(&limits_text(
                limits.lock_timeout.as_millis(),
                limits.statement_timeout.as_millis(),
            ));
        }
        self
    }

    /// Adds what is recorded of the files. Nothing of theirs reaches the names in it.
    pub(crate) fn record(&mut self, sql: &str) -> &mut Self {
        self.ours(&format!("SET LOCAL search_path TO pg_catalog, pg_temp;\n{sql}"))
    }

    fn add(&mut self, text: &str) {
        self.text.push_str(text);
        // The server counts positions in characters.
        self.chars += text.chars().count();
    }

    /// Sends it. Inside a transaction, that decides whether it stays; outside, all of it stays if this
    /// succeeds.
    pub(crate) async fn send(&self, client: &Client) -> Result<(), BatchError> {
        let mut completed = 0;
        let sent = async {
            let mut messages = std::pin::pin!(client.simple_query_raw(&self.text).await?);
            while let Some(message) = messages.try_next().await? {
                if matches!(message, SimpleQueryMessage::CommandComplete(_)) {
                    completed += 1;
                }
            }
            Ok(())
        };
        sent.await.map_err(|source| self.failed(completed, source))
    }

    fn failed(&self, completed: usize, source: tokio_postgres::Error) -> BatchError {
        if self.guard.contains(&completed) {
            match source.code() {
                Some(&SqlState::DIVISION_BY_ZERO | &SqlState::INVALID_SCHEMA_NAME) => {
                    return BatchError::Guard;
                }
                Some(&SqlState::LOCK_NOT_AVAILABLE) => return BatchError::Locked,
                _ => {}
            }
        }
        if self.loss_guards.iter().any(|guard| guard.contains(&completed))
            && source.code() == Some(&SqlState::DIVISION_BY_ZERO)
        {
            return BatchError::Loss;
        }
        let position = match source.as_db_error().and_then(|e| e.position()) {
            Some(ErrorPosition::Original(position)) => usize::try_from(*position).ok(),
            _ => None,
        };
        let at_char = position.and_then(|p| p.checked_sub(1));
        let part = self.parts.iter().find(|part| match at_char {
            // A syntax error has a position before anything has run.
            Some(at) if completed == 0 => part.chars.contains(&at),
            _ => part.statements.contains(&completed),
        });
        let line = part.zip(at_char).and_then(|(part, at)| self.line(part, at));
        let statement = part.and_then(|part| match completed.checked_sub(part.statements.start) {
            Some(index) => part.script.statements.get(part.from_statement + index),
            None => part.script.statements.iter().take_while(|s| Some(s.line) <= line).last(),
        });
        let line = line.or(statement.map(|s| s.line));
        BatchError::Statement(MigrationError::Failed {
            file: part.map_or_else(|| "the ledger".to_owned(), |part| part.script.file.clone()),
            line,
            statement: part.zip(statement).map(|(part, s)| part.script.excerpt(s)),
            schema: self.schema.clone(),
            sqlstate: sqlstate(&source),
            source,
        })
    }

    /// The line of a file that a character of the whole text stands in.
    fn line(&self, part: &Part<'_>, at_char: usize) -> Option<usize> {
        let into = part.chars.contains(&at_char).then(|| at_char - part.chars.start)?;
        let before = self.text.chars().skip(part.chars.start).take(into);
        Some(part.from_line + before.filter(|c| *c == '\n').count())
    }
}

fn limits_text(lock_ms: u128, statement_ms: u128) -> String {
    // A statement that may take a millisecond only is of no use; zero would mean no limit at all.
    format!(
        "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {};",
        lock_ms.max(1),
        statement_ms.max(1)
    )
}

pub(super) fn sqlstate(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| "no code".to_owned(), |code| code.code().to_owned())
}

/// The path of a tenant's migrations.
pub(super) fn tenant_path(schema: SchemaName) -> String {
    format!("{schema}, public, pg_temp")
}

/// The path of the public set's.
pub(super) const PUBLIC_PATH: &str = "public, pg_temp";

/// A public file's text. `:"tenant_group"` and `:"reader"` stand for role names there, which the files
/// can't know (psql's notation for a quoted identifier).
pub(super) fn with_roles(text: &str, roles: &RolePrefix) -> String {
    text.replace(":\"tenant_group\"", &roles.tenant_group()).replace(":\"reader\"", &roles.reader())
}
