//! Exit codes: a contract with scripts.

use std::process::ExitCode;

use tenantry_db::ErrorKind;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    Partly,
    Refused,
    Busy,
    NotFound,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partly => 3,
            Exit::Refused => 4,
            Exit::Busy => 5,
            Exit::NotFound => 6,
        })
    }
}

/// An error of the command line itself, where the libraries have none.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: Some(hint.into()) }
    }
}

impl Exit {
    /// What an error means to a script: the first cause that knows decides.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let known = |cause: &(dyn std::error::Error + 'static)| {
            if let Some(failure) = cause.downcast_ref::<Failure>() {
                Some(failure.exit)
            } else if let Some(error) = cause.downcast_ref::<tenantry_db::Error>() {
                Some(Self::of_kind(error.kind()))
            } else if let Some(error) = cause.downcast_ref::<tenantry_backup::Error>() {
                Some(Self::of_kind(error.kind()))
            } else {
                cause.downcast_ref::<tenantry_stack::Error>().map(Self::of_stack)
            }
        };
        error.chain().find_map(known).unwrap_or(Self::Failed)
    }

    fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict | ErrorKind::Refused => Self::Refused,
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::Unavailable
            | ErrorKind::TooManyRequests
            | ErrorKind::Timeout
            | ErrorKind::Internal => Self::Failed,
        }
    }

    fn of_stack(error: &tenantry_stack::Error) -> Self {
        use tenantry_stack::Error as E;
        match error {
            E::Locked { .. } => Self::Busy,
            E::InvalidOption { .. } => Self::Usage,
            E::NotADataDir { .. } => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// What to do about an error: the first cause that knows.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            failure.hint.clone()
        } else if let Some(error) = cause.downcast_ref::<tenantry_db::Error>() {
            error.hint()
        } else if let Some(error) = cause.downcast_ref::<tenantry_backup::Error>() {
            error.hint()
        } else {
            cause.downcast_ref::<tenantry_stack::Error>().and_then(tenantry_stack::Error::hint)
        }
    })
}
