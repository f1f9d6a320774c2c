//! Everything that can be wrong with a request, as RFC 9457 tells it.
//!
//! A problem is written and logged once, at the edge, where the request's id is known. What a client
//! reads is composed here, from our own words: never a driver's message, a statement or a value of
//! another tenant.

mod code;

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tenantry_db::lifecycle::{ErasureError, TransferError};
use tenantry_db::models::tenants::Status;
use tenantry_db::{Error, ErrorKind};

pub(crate) use self::code::Code;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) message: String,
}

/// What is wrong with a request.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    detail: String,
    errors: Vec<FieldError>,
    cause: Option<Arc<Error>>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), cause: None }
    }

    /// A body may hold thousands of unknown fields; nobody reads more complaints than this.
    pub(crate) const MAX_FIELDS: usize = 50;

    /// Every field that is wrong, of the first [`MAX_FIELDS`](Self::MAX_FIELDS).
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "one field is not as it must be".to_owned(),
            n if n >= Self::MAX_FIELDS => {
                format!("{n} fields are not as they must be; there may be more")
            }
            n => format!("{n} fields are not as they must be"),
        };
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }

    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }

    /// What is wrong, by name: for readiness.
    pub(crate) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "there is nothing at this address")
    }

    pub(crate) fn tenant_not_found() -> Self {
        Self::new(Code::TenantNotFound, "no tenant has this id")
    }

    /// This service was not told where the erasure ledger is.
    pub(crate) fn no_ledger(error: Error) -> Self {
        let detail = "this service has no erasure ledger, and purges nothing without one";
        Self { cause: Some(Arc::new(error)), ..Self::new(Code::ErasureUnavailable, detail) }
    }

    /// Why a tenant of this status is not served; none for one that is.
    pub(crate) fn of_status(status: Status) -> Option<Self> {
        match status {
            Status::Active => None,
            Status::Ready => Some(Self::tenant_not_found()),
            Status::Suspended => {
                Some(Self::new(Code::TenantSuspended, "the tenant is shut out until it is resumed"))
            }
            Status::Deleted | Status::Purging | Status::Purged => {
                Some(Self::new(Code::TenantDeleted, "the tenant is no longer served"))
            }
        }
    }

    /// Writes it, for the request with this id.
    pub(crate) fn render(&self, request_id: &str) -> Response {
        let (code, status, title) = self.code.parts();
        let body = Body {
            r#type: format!("urn:tenantry:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code,
            request_id,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.code.retry_after_s() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        let challenge = match self.code {
            Code::MissingToken => Some("Bearer"),
            Code::InvalidToken => Some("Bearer error=\"invalid_token\""),
            _ => None,
        };
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }

    /// Logs it, in the span of its request. Ours to mend is an error, a server that does not answer a
    /// warning; what clients do wrong or too much of is theirs, and would drown the rest.
    pub(crate) fn log(&self) {
        let code = self.code.as_str();
        let cause = Causes(self.cause.as_deref());
        match self.code {
            Code::Internal => tracing::error!(code, %cause, "request failed"),
            Code::KeysUnavailable | Code::DatabaseUnavailable | Code::ErasureUnavailable => {
                tracing::warn!(code, %cause, detail = self.detail, "request failed");
            }
            _ => tracing::debug!(code, %cause, detail = self.detail, "request refused"),
        }
    }
}

/// An error and what is behind it. Of each only the first line: what PostgreSQL adds below it
/// (DETAIL) repeats values.
struct Causes<'a>(Option<&'a Error>);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = self.0.map(|e| e as &dyn std::error::Error);
        let mut separator = "";
        while let Some(error) = next {
            let text = error.to_string();
            write!(f, "{separator}{}", text.lines().next().unwrap_or_default())?;
            separator = ": ";
            next = error.source();
        }
        Ok(())
    }
}

impl IntoResponse for Problem {
    /// An empty response that carries the problem to the edge, which writes it.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = of_error(&error);
        Self { cause: Some(Arc::new(error)), ..problem }
    }
}

const CHANGED: &str = "it is no longer as `If-Match` says: read it again";
const OTHER_BODY: &str = "this `Idempotency-Key` was used for a request with another body";
const UNDER_WAY: &str = "a request with this `Idempotency-Key` is being worked on: ask again";

fn of_error(error: &Error) -> Problem {
    let unavailable = || Problem::new(Code::DatabaseUnavailable, "try again later");
    let internal =
        || Problem::new(Code::Internal, "the request's id helps to find out what it was");
    match error {
        Error::Shared(error) => of_error(error),
        Error::InvalidTenant { problems } => Problem::fields(
            problems
                .iter()
                .map(|problem| FieldError { field: "tenant".to_owned(), message: problem.clone() })
                .collect(),
        ),
        Error::InvalidField { field, rule } => Problem::field(field, *rule),
        Error::TenantNotFound(_) => Problem::tenant_not_found(),
        Error::TenantNotServed { status, .. } => {
            Problem::of_status(*status).unwrap_or_else(internal)
        }
        Error::SubdomainTaken(_) => {
            Problem::new(Code::SubdomainTaken, "another tenant has this subdomain")
        }
        Error::EmailTaken => Problem::new(Code::EmailTaken, "another user has this email address"),
        Error::InvalidState { status, .. } => {
            Problem::new(Code::InvalidState, format!("the tenant is {status}"))
        }
        Error::Erasure(error) => of_erasure(error),
        Error::Transfer(error) => of_transfer(error),
        Error::ChangedMeanwhile(_) => Problem::new(Code::PreconditionFailed, CHANGED),
        Error::IdempotencyMismatch => Problem::new(Code::IdempotencyMismatch, OTHER_BODY),
        Error::IdempotencyInProgress => Problem::new(Code::IdempotencyInProgress, UNDER_WAY),
        Error::LegalHold(_) => Problem::new(Code::LegalHold, "lift the hold first"),
        Error::Busy(_) => Problem::new(Code::InvalidState, "it is being changed by somebody else"),
        Error::TenantBusy(_) => {
            Problem::new(Code::TenantBusy, "the tenant has as many requests under way as it may")
        }
        Error::StatementTimeout(_) => Problem::new(
            Code::DatabaseUnavailable,
            "a statement took longer than the tenant's tier allows",
        ),
        Error::Unavailable { .. }
        | Error::LoginRefused { .. }
        | Error::ServerTooOld { .. }
        | Error::UnsuitableServer(_)
        | Error::NotInitialised(_)
        | Error::TakesNoWrites(_)
        | Error::Behind { .. } => unavailable(),
        Error::Bind { .. } | Error::Database { .. } => match error.kind() {
            ErrorKind::Unavailable => unavailable(),
            ErrorKind::TooManyRequests
            | ErrorKind::Timeout
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Invalid
            | ErrorKind::Refused
            | ErrorKind::Busy
            | ErrorKind::Internal => internal(),
        },
        Error::Config { .. }
        // A tenant is taken back on the command line only.
        | Error::BringBack(_)
        | Error::Audit(_)
        | Error::Name(_)
        | Error::TenantExists(_)
        | Error::StillReachable { .. }
        | Error::SchemaMissing(_)
        | Error::Migration(_)
        | Error::ForbiddenStatement { .. }
        | Error::RefusedStatement { .. }
        | Error::RowCount { .. }
        | Error::WriteInRead(_)
        | Error::TransactionFailed => internal(),
    }
}

fn of_transfer(error: &TransferError) -> Problem {
    match error {
        // What has begun to be sent breaks off instead, and archives are not taken in over HTTP.
        TransferError::Unexportable { .. }
        | TransferError::Output(_)
        | TransferError::TimeLimit { .. }
        | TransferError::Input { .. }
        | TransferError::Damaged { .. }
        | TransferError::Newer(_)
        | TransferError::OtherMigrations(_)
        | TransferError::OtherShape(_)
        | TransferError::MadeByHand { .. }
        | TransferError::ForeignOwner { .. }
        | TransferError::TooMuch { .. }
        | TransferError::Rule(_) => {
            Problem::new(Code::Internal, "the request's id helps to find out what it was")
        }
    }
}

fn of_erasure(error: &ErasureError) -> Problem {
    match error {
        ErasureError::ConfirmationRequired(_) => {
            Problem::new(Code::ConfirmationRequired, "`confirm` must be the tenant's subdomain")
        }
        ErasureError::NotDue { purge_after, .. } => {
            let when = purge_after.map_or_else(String::new, |at| format!(" until {at}"));
            Problem::new(
                Code::InvalidState,
                format!("it can be restored{when}; `now` does not wait"),
            )
        }
        ErasureError::ErasedBefore(_) => Problem::new(
            Code::ErasureUnavailable,
            "a restored database has tenants that were erased: nobody is served before they are gone again",
        ),
        ErasureError::Ledger { .. }
        | ErasureError::LedgerLocked(_)
        | ErasureError::LedgerDamaged { .. }
        | ErasureError::LedgerIncomplete { .. } => Problem::new(
            Code::ErasureUnavailable,
            "the erasure ledger can't be written, so nothing was purged",
        ),
        // A request only begins a purge; these stop it later.
        ErasureError::Blocked { .. }
        | ErasureError::UsedOutside { .. }
        | ErasureError::RoleUsed { .. }
        | ErasureError::Left { .. }
        | ErasureError::StatisticsHeld(_)
        | ErasureError::ReplicaThere(_)
        | ErasureError::OldControlFunctions => {
            Problem::new(Code::Internal, "the request's id helps to find out what it was")
        }
    }
}
