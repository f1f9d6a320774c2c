//! `tenant exec`: one statement of an operator's, in one tenant after another.
//!
//! On a connection of its own for each, as the tenant's lane and bound like every other transaction: what
//! one tenant's statement leaves behind goes with its connection, and no row can appear under another's
//! name. Takes one statement that reads or writes rows; the server itself says whether it is one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::bind::{self, COMMIT};
use crate::config::Config;
use crate::direct::{AdminDb, ReaderDb, connect_once};
use crate::door;
use crate::error::Error;
use crate::models::audit::{self, Actor};
use crate::models::tenants::{self, Status, Tenant};

/// A statement that an operator typed, after a look at how it begins.
#[derive(Debug, Clone)]
pub struct OperatorStatement {
    text: Arc<str>,
}

impl OperatorStatement {
    /// Admits a statement that reads or writes rows, as the library's own door does.
    ///
    /// # Errors
    /// [`Error::RefusedStatement`] with how it begins.
    pub fn new(text: &str) -> Result<Self, Error> {
        door::admit_typed(text)?;
        Ok(Self { text: text.into() })
    }

    fn digest(&self) -> String {
        data_encoding::HEXLOWER.encode(&Sha256::digest(self.text.as_bytes()))
    }
}

/// How a statement is run.
#[derive(Debug, Clone, Copy)]
pub struct ExecOptions {
    /// How long it may take; else as long as the tenant's tier allows.
    pub timeout: Option<Duration>,
    /// In a transaction that changes nothing.
    pub read_only: bool,
    /// How many rows are kept.
    pub max_rows: usize,
}

/// What a statement yielded in one tenant.
#[derive(Debug, Clone, Default)]
pub struct ExecResult {
    /// The names of its columns; none for a statement that yields no rows.
    pub columns: Vec<String>,
    /// The first rows, values as PostgreSQL writes them.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many rows it yielded or changed.
    pub rows_affected: u64,
    /// Whether there were more rows than were kept.
    pub truncated: bool,
}

/// All tenants that are served, oldest first.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn active_tenants(reader: &ReaderDb) -> Result<Vec<Tenant>, Error> {
    const PAGE: u16 = 1000;
    let filter = tenants::TenantFilter { status: Some(Status::Active), ..Default::default() };
    let mut page = crate::models::page::Page::first(PAGE);
    let mut all = Vec::new();
    loop {
        let listed = tenants::list_tenants(reader, &filter, &page).await?;
        all.extend(listed.rows);
        page.after = listed.next;
        if page.after.is_none() {
            return Ok(all);
        }
    }
}

/// A statement, by whom it is run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Exec<'a> {
    /// For the audit log.
    pub admin: &'a AdminDb,
    /// Servers, lanes, tiers.
    pub config: &'a Config,
    /// What is run.
    pub statement: &'a OperatorStatement,
    /// How.
    pub options: &'a ExecOptions,
    /// By whom.
    pub actor: &'a Actor,
}

impl Exec<'_> {
    /// Runs it as the tenant, in a transaction of its own. The audit log says so before: who, where, and the
    /// statement's SHA-256. Not its text, which may name people.
    ///
    /// # Errors
    /// [`Error::TenantNotServed`] for one that is not active; [`Error::Bind`] if it has been shut out since;
    /// [`Error::StatementTimeout`]; else what the server says.
    pub async fn in_tenant(&self, tenant: &Tenant) -> Result<ExecResult, Error> {
        let Self { config, statement, options, .. } = *self;
        if tenant.status != Status::Active {
            return Err(Error::TenantNotServed { tenant: tenant.id, status: tenant.status });
        }
        self.record(tenant).await?;
        let login = config.roles.lane(tenant.lane);
        let password = config.lanes.secret()?.password(&login);
        let server = config.database.direct_as(&login, &password)?;
        let client = connect_once(&server, config.database.connect_timeout).await?;
        let mut tier = *config.tier(&tenant.tier);
        tier.statement_timeout = options.timeout.unwrap_or(tier.statement_timeout);
        let mut bind = bind::statement(tenant.schema(), &tier);
        if options.read_only {
            bind += "; SET TRANSACTION READ ONLY";
        }
        client.batch_execute(&bind).await.map_err(|source| Error::of_bind(tenant.id, source))?;
        require_one(&client, &statement.text).await?;
        let result = read(&client, statement, options.max_rows).await?;
        client.batch_execute(COMMIT).await.map_err(of_statement)?;
        Ok(result)
    }

    async fn record(&self, tenant: &Tenant) -> Result<(), Error> {
        let details = json!({
            "statement_sha256": self.statement.digest(), "read_only": self.options.read_only,
        });
        let db = self.admin.connection().await?;
        audit::record(&**db, self.actor, audit::Action::StatementRun, tenant.id, &details).await
    }
}

/// Has the server parse it as one message of the extended protocol, which takes one statement: behind a
/// semicolon could stand another role.
#[expect(clippy::disallowed_methods, reason = "a direct connection of this statement alone")]
async fn require_one(client: &Client, text: &str) -> Result<(), Error> {
    client.prepare(text).await.map(drop).map_err(of_statement)
}

/// As text, whatever the types, which only the simple protocol gives. The text is one statement: the same
/// session has parsed it a moment ago.
async fn read(
    client: &Client,
    statement: &OperatorStatement,
    max_rows: usize,
) -> Result<ExecResult, Error> {
    let messages = client.simple_query_raw(&statement.text).await.map_err(of_statement)?;
    let mut messages = std::pin::pin!(messages);
    let mut result = ExecResult::default();
    while let Some(message) = messages.try_next().await.map_err(of_statement)? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                result.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(_) if result.rows.len() >= max_rows => result.truncated = true,
            SimpleQueryMessage::Row(row) => {
                let value = |at| row.get(at).map(str::to_owned);
                result.rows.push((0..row.len()).map(value).collect());
            }
            SimpleQueryMessage::CommandComplete(rows) => result.rows_affected = rows,
            _ => {}
        }
    }
    Ok(result)
}

fn of_statement(source: tokio_postgres::Error) -> Error {
    match Error::of_statement(source) {
        Error::Database { source, .. } => {
            Error::Database { doing: "run the statement".to_owned(), source }
        }
        other => other,
    }
}
