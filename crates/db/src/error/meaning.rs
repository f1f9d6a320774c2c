//! What an error means to somebody who does not know its details, and what to do about it.

use super::{Error, server_is_away};

/// What an error means to somebody who does not know its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was named is not there.
    NotFound,
    /// What is there already stands against it.
    Conflict,
    /// The input is wrong.
    Invalid,
    /// A guard refused.
    Refused,
    /// Somebody else is at it; later it may work.
    Busy,
    /// Too much at once; later it may work.
    TooManyRequests,
    /// It took too long.
    Timeout,
    /// A server does not answer; later it may work.
    Unavailable,
    /// A bug, or something that nobody foresaw.
    Internal,
}

impl Error {
    /// What the error means to somebody who does not know its details.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } | Self::Name(_) | Self::InvalidTenant { .. } => ErrorKind::Invalid,
            Self::TenantNotFound(_) | Self::SchemaMissing(_) => ErrorKind::NotFound,
            Self::SubdomainTaken(_) | Self::TenantExists(_) | Self::LegalHold(_) => {
                ErrorKind::Conflict
            }
            Self::Erasure(error) => error.kind(),
            Self::Audit(error) => error.kind(),
            Self::Transfer(error) => error.kind(),
            Self::BringBack(error) => error.kind(),
            Self::Migration(error) => error.kind(),
            Self::ChangedMeanwhile(_) => ErrorKind::Conflict,
            Self::IdempotencyMismatch => ErrorKind::Invalid,
            Self::Busy(_) | Self::IdempotencyInProgress => ErrorKind::Busy,
            Self::ServerTooOld { .. }
            | Self::UnsuitableServer(_)
            | Self::NotInitialised(_)
            | Self::Behind { .. } => ErrorKind::Refused,
            Self::EmailTaken => ErrorKind::Conflict,
            Self::InvalidField { .. } => ErrorKind::Invalid,
            Self::TenantBusy(_) => ErrorKind::TooManyRequests,
            Self::TenantNotServed { .. } => ErrorKind::Refused,
            Self::StatementTimeout(_) => ErrorKind::Timeout,
            Self::Shared(error) => error.kind(),
            Self::ForbiddenStatement { .. }
            | Self::RowCount { .. }
            | Self::TransactionFailed
            | Self::WriteInRead(_) => ErrorKind::Internal,
            Self::TakesNoWrites(_) => ErrorKind::Unavailable,
            Self::InvalidState { .. } => ErrorKind::Conflict,
            Self::RefusedStatement { .. } => ErrorKind::Refused,
            Self::StillReachable { .. } => ErrorKind::Refused,
            Self::Bind { source, .. } if server_is_away(source) => ErrorKind::Unavailable,
            Self::Bind { .. } => ErrorKind::Internal,
            Self::Unavailable { .. } | Self::LoginRefused { .. } => ErrorKind::Unavailable,
            Self::Database { source, .. } if server_is_away(source) => ErrorKind::Unavailable,
            Self::Database { .. } => ErrorKind::Internal,
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Config { .. } => "`tenantry config show --defaults` describes every setting",
            Self::LoginRefused { .. } => {
                "passwords must be those that `tenantry init` was run with: `lanes.secret`, the one in \
                 `database.direct_url`, and for PgBouncer the output of `tenantry lanes userlist`"
            }
            Self::NotInitialised(_) => {
                "run `tenantry init` once (TENANTRY_INIT__SUPERUSER_URL names a superuser), then `tenantry migrate run`"
            }
            Self::Behind { .. } => "run `tenantry migrate run`",
            Self::TenantNotFound(_) => "`tenantry tenant list` shows all tenants",
            Self::StillReachable { .. } => {
                "find the grant (`\\drg` in psql shows memberships), revoke it as whoever made it, then try again"
            }
            Self::Erasure(error) => return error.hint(),
            Self::Audit(error) => return error.hint(),
            Self::Transfer(error) => return error.hint(),
            Self::BringBack(error) => return error.hint(),
            Self::LegalHold(_) => "`tenantry tenant unhold` lifts it",
            Self::Migration(error) => return error.hint(),
            Self::TakesNoWrites(_) => {
                "after a promotion, point PgBouncer's entry for the primary to the new one"
            }
            Self::Shared(error) => return error.hint(),
            Self::RefusedStatement { .. } => {
                "one statement that reads or writes rows: SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES, \
                 TABLE or EXPLAIN; changes of tables belong in a migration"
            }
            Self::Busy(_) => "wait for it to end, then try again",
            Self::Unavailable { .. } => {
                "is it running? `tenantry up` starts servers for development, `tenantry doctor` checks all"
            }
            Self::ServerTooOld { .. } => {
                "upgrade the server, or point `database.direct_url` to a newer one"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
