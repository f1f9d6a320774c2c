//! Everything that can go wrong in the library, named for the caller.

mod meaning;

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::audit::AuditError;
use crate::ids::{InvalidName, SchemaName, TenantRef};
use crate::lifecycle::{BringBackError, ErasureError, TransferError};
use crate::migrate::{MigrationError, SetKind};
use crate::models::tenants::Status;

pub use meaning::ErrorKind;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings are missing or wrong; all of them are listed.
    #[error("{}", list_problems(.problems))]
    Config {
        /// One sentence for each problem.
        problems: Vec<String>,
    },
    /// A name does not have the form it must have.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Values for a tenant break a rule.
    #[error("{}", .problems.join("; "))]
    InvalidTenant {
        /// One sentence for each problem.
        problems: Vec<String>,
    },
    /// No tenant has this id or subdomain.
    #[error("there is no tenant `{0}`")]
    TenantNotFound(TenantRef),
    /// Another tenant has this subdomain, or had it until its retention ends.
    #[error("subdomain `{0}` is taken")]
    SubdomainTaken(String),
    /// A tenant with this id exists already.
    #[error("tenant `{0}` exists already")]
    TenantExists(crate::ids::TenantId),
    /// The tenant stands elsewhere in its life than the step needs.
    #[error("tenant `{tenant}` is {status}, so it can't be {step}")]
    InvalidState {
        /// The tenant.
        tenant: crate::ids::TenantId,
        /// Where it stands.
        status: Status,
        /// What was to be done with it, as in «suspended».
        step: &'static str,
    },
    /// After everything was revoked that Tenantry grants, a login still reaches the tenant's role.
    #[error("`{}` can still act as tenant `{tenant}`, by a grant that is not ours: nothing was changed", .members.join("`, `"))]
    StillReachable {
        /// The tenant.
        tenant: crate::ids::TenantId,
        /// Who still reaches it.
        members: Vec<String>,
    },
    /// The tenant was changed since the caller looked at it.
    #[error("tenant `{0}` was changed meanwhile")]
    ChangedMeanwhile(crate::ids::TenantId),
    /// The same idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// The request with this idempotency key is still being worked on.
    #[error("the request with this idempotency key is still under way")]
    IdempotencyInProgress,
    /// A legal hold stands against removing the tenant.
    #[error("tenant `{0}` is under a legal hold")]
    LegalHold(crate::ids::TenantId),
    /// A schema is missing where its tenant is recorded, or the other way round.
    #[error("schema `{0}` does not exist")]
    SchemaMissing(SchemaName),
    /// A deletion or a purge was refused, or can't go on.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// The audit log's head can't be anchored.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// An export or an import did not come to its end.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A tenant was not taken back to an earlier moment.
    #[error(transparent)]
    BringBack(#[from] BringBackError),
    /// Migration files, or what the ledger says of them, do not fit together.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// Another process holds what this one needs.
    #[error("{0} is being changed by another process")]
    Busy(String),
    /// The server is older than what Tenantry needs.
    #[error("the server runs PostgreSQL {found}, but {needed} or newer is needed", needed = crate::MIN_POSTGRES_MAJOR)]
    ServerTooOld {
        /// The server's own words.
        found: String,
    },
    /// The server or database can't serve as an installation.
    #[error("{0}")]
    UnsuitableServer(String),
    /// `tenantry init` has not run on this database, or not to its end.
    #[error("this database is not initialised: {0}")]
    NotInitialised(String),
    /// The public schema is older than this program.
    #[error("the {set} migrations stand at {found}, but this program needs {needed}")]
    Behind {
        /// Which set.
        set: SetKind,
        /// The newest applied version, 0 for none.
        found: i64,
        /// The newest known version.
        needed: i64,
    },
    /// The tenant has as many transactions under way as its tier allows, and more wait already.
    #[error("tenant `{0}` has too many requests under way")]
    TenantBusy(crate::ids::TenantId),
    /// The tenant is not active.
    #[error("tenant `{tenant}` is {status}")]
    TenantNotServed {
        /// The tenant.
        tenant: crate::ids::TenantId,
        /// Why it is not served.
        status: Status,
    },
    /// The tenant could not be bound; nothing ran.
    #[error("can't bind tenant `{tenant}`")]
    Bind {
        /// The tenant.
        tenant: crate::ids::TenantId,
        /// What the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement that may not run in a tenant's transaction: a bug in the program.
    #[error("a statement that begins with `{begins_with}` may not run as a tenant")]
    ForbiddenStatement {
        /// Its first word.
        begins_with: &'static str,
    },
    /// A statement that an operator may not run in a tenant.
    #[error("a statement that begins with `{begins_with}` is not run in tenants")]
    RefusedStatement {
        /// How it begins.
        begins_with: String,
    },
    /// A write through a handle for reads: a bug in the program. Nothing was written.
    #[error("a write was sent through a handle for reads")]
    WriteInRead(#[source] tokio_postgres::Error),
    /// The server that should take writes takes none.
    #[error(
        "the server takes no writes: `database.url` leads to a replica, or the primary is read-only"
    )]
    TakesNoWrites(#[source] tokio_postgres::Error),
    /// A statement took longer than it may: as the tenant's tier says, or the operator.
    #[error("the statement took longer than it may")]
    StatementTimeout(#[source] tokio_postgres::Error),
    /// A statement yielded another number of rows than its caller can use: a bug in the program.
    #[error("a statement yielded {found} rows")]
    RowCount {
        /// How many.
        found: usize,
    },
    /// An earlier statement of the transaction failed, so nothing of it was kept.
    #[error("an earlier statement of the transaction failed")]
    TransactionFailed,
    /// One failure that several callers were waiting for.
    #[error(transparent)]
    Shared(Arc<Error>),
    /// Another user of the tenant has this email address.
    #[error("another user has this email address")]
    EmailTaken,
    /// A value breaks a rule that only the database can check.
    #[error("`{field}` {rule}")]
    InvalidField {
        /// The field.
        field: &'static str,
        /// The rule, as it follows the field's name.
        rule: &'static str,
    },
    /// No connection could be had.
    #[error("can't connect to {server}")]
    Unavailable {
        /// Which server, without a password.
        server: String,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A login is unknown to the server, or its password is another.
    #[error("{server} refuses the login: {message}")]
    LoginRefused {
        /// Which server, without a password.
        server: String,
        /// What the server said.
        message: String,
    },
    /// The server refused a statement.
    #[error("can't {doing}")]
    Database {
        /// What was being done, as a verb phrase.
        doing: String,
        /// What the driver said.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// The constraint that the server saw violated, for the models that give it a name of their own.
    pub(crate) fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database { source, .. } => source.as_db_error().and_then(|e| e.constraint()),
            _ => None,
        }
    }

    /// Whether the server knows no such table or column: the public schema is older than the program.
    pub(crate) fn is_missing_relation(&self) -> bool {
        const MISSING: [SqlState; 2] = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN];
        match self {
            Self::Database { source, .. } => source.code().is_some_and(|c| MISSING.contains(c)),
            _ => false,
        }
    }

    /// Whether the server refused to take on the tenant's role: it was revoked, moved, or is gone.
    pub(crate) fn is_refused_bind(&self) -> bool {
        const REFUSED: [SqlState; 2] =
            [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::INVALID_PARAMETER_VALUE];
        match self {
            Self::Bind { source, .. } => source.code().is_some_and(|code| REFUSED.contains(code)),
            _ => false,
        }
    }

    /// What the driver said, where it said something of a statement.
    pub(crate) fn of_driver(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Bind { source, .. }
            | Self::Database { source, .. }
            | Self::StatementTimeout(source)
            | Self::TakesNoWrites(source)
            | Self::WriteInRead(source) => Some(source),
            _ => None,
        }
    }

    pub(crate) fn of_bind(tenant: crate::ids::TenantId, source: tokio_postgres::Error) -> Self {
        Self::Bind { tenant, source }
    }

    pub(crate) fn of_statement(source: tokio_postgres::Error) -> Self {
        match source.code() {
            Some(&SqlState::QUERY_CANCELED) => Self::StatementTimeout(source),
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Self::TakesNoWrites(source),
            _ => Self::Database { doing: "run a tenant's statement".to_owned(), source },
        }
    }

    pub(crate) fn config(problem: String) -> Self {
        Self::Config { problems: vec![problem] }
    }

    pub(crate) fn unset(key: &str) -> Self {
        Self::config(format!("`{key}` is not set, and this command needs it"))
    }
}

/// Whether the statement was fine and the server, or the way to it, was not.
pub(crate) fn server_is_away(error: &tokio_postgres::Error) -> bool {
    let away = |code: &SqlState| {
        let class_connection = code.code().starts_with("08");
        let closing = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
        ];
        class_connection || closing.contains(code)
    };
    error.is_closed() || error.code().is_some_and(away)
}

fn list_problems(problems: &[String]) -> String {
    match problems {
        [one] => format!("the configuration is wrong: {one}"),
        many => format!(
            "the configuration is wrong in {} places:\n  - {}",
            many.len(),
            many.join("\n  - ")
        ),
    }
}

/// Adds to a driver's error what was being done.
pub(crate) trait Doing<T> {
    /// `doing` is a verb phrase that follows «can't».
    fn doing(self, doing: impl Into<String>) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, tokio_postgres::Error> {
    fn doing(self, doing: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error::Database { doing: doing.into(), source })
    }
}
