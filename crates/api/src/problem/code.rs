//! The names of problems, with their HTTP status and title.

use axum::http::StatusCode;

/// The stable names of problems: clients match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    MissingToken,
    InvalidToken,
    InsufficientScope,
    TenantMismatch,
    TenantRequired,
    TenantSuspended,
    TenantNotFound,
    TenantDeleted,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    BadRequest,
    HeadersTooLarge,
    PayloadTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    SubdomainTaken,
    EmailTaken,
    InvalidState,
    LegalHold,
    ConfirmationRequired,
    ErasureUnavailable,
    PreconditionFailed,
    IdempotencyMismatch,
    IdempotencyInProgress,
    TenantBusy,
    ExportBusy,
    KeysUnavailable,
    DatabaseUnavailable,
    Internal,
}

impl Code {
    /// Its name, its status, and what it says to people.
    pub(super) fn parts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::MissingToken => ("missing_token", S::UNAUTHORIZED, "A token is needed"),
            Self::InvalidToken => ("invalid_token", S::UNAUTHORIZED, "The token is not valid"),
            Self::InsufficientScope => {
                ("insufficient_scope", S::FORBIDDEN, "The token does not allow this")
            }
            Self::TenantMismatch => {
                ("tenant_mismatch", S::FORBIDDEN, "The request names another tenant than the token")
            }
            Self::TenantRequired => ("tenant_required", S::FORBIDDEN, "No tenant is named"),
            Self::TenantSuspended => ("tenant_suspended", S::FORBIDDEN, "The tenant is suspended"),
            Self::TenantNotFound => ("tenant_not_found", S::NOT_FOUND, "There is no such tenant"),
            Self::TenantDeleted => ("tenant_deleted", S::GONE, "The tenant was deleted"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "There is nothing here"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", S::METHOD_NOT_ALLOWED, "This can't be done here")
            }
            Self::RequestTimeout => {
                ("request_timeout", S::REQUEST_TIMEOUT, "The request took too long")
            }
            Self::BadRequest => ("bad_request", S::BAD_REQUEST, "The request is not proper HTTP"),
            Self::HeadersTooLarge => (
                "headers_too_large",
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The headers are too large",
            ),
            Self::PayloadTooLarge => {
                ("payload_too_large", S::PAYLOAD_TOO_LARGE, "The body is too large")
            }
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "The body must be JSON")
            }
            Self::InvalidRequest => {
                ("invalid_request", S::UNPROCESSABLE_ENTITY, "The request is not valid")
            }
            Self::SubdomainTaken => ("subdomain_taken", S::CONFLICT, "The subdomain is taken"),
            Self::EmailTaken => ("email_taken", S::CONFLICT, "The email address is taken"),
            Self::InvalidState => ("invalid_state", S::CONFLICT, "It can't be done at the moment"),
            Self::LegalHold => ("legal_hold", S::CONFLICT, "The tenant is under a legal hold"),
            Self::ConfirmationRequired => {
                ("confirmation_required", S::CONFLICT, "It was not confirmed")
            }
            Self::ErasureUnavailable => {
                ("erasure_unavailable", S::SERVICE_UNAVAILABLE, "Nothing can be purged")
            }
            Self::PreconditionFailed => {
                ("precondition_failed", S::PRECONDITION_FAILED, "It was changed meanwhile")
            }
            Self::IdempotencyMismatch => (
                "idempotency_mismatch",
                S::UNPROCESSABLE_ENTITY,
                "The key belongs to another request",
            ),
            Self::IdempotencyInProgress => {
                ("idempotency_in_progress", S::CONFLICT, "The request is still under way")
            }
            Self::TenantBusy => ("tenant_busy", S::TOO_MANY_REQUESTS, "Too many requests at once"),
            Self::ExportBusy => ("export_busy", S::TOO_MANY_REQUESTS, "Too many exports at once"),
            Self::KeysUnavailable => {
                ("keys_unavailable", S::SERVICE_UNAVAILABLE, "Tokens can't be checked")
            }
            Self::DatabaseUnavailable => {
                ("database_unavailable", S::SERVICE_UNAVAILABLE, "The database does not answer")
            }
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Something went wrong here"),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.parts().0
    }

    pub(crate) fn status(self) -> StatusCode {
        self.parts().1
    }

    /// When it may be worth another try, in seconds.
    pub(super) fn retry_after_s(self) -> Option<u16> {
        match self {
            Self::TenantBusy | Self::IdempotencyInProgress => Some(1),
            Self::ExportBusy => Some(30),
            Self::KeysUnavailable | Self::DatabaseUnavailable | Self::ErasureUnavailable => Some(5),
            _ => None,
        }
    }
}
