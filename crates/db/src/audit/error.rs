//! What stands against anchoring the audit log.

use std::path::PathBuf;

use crate::chained_file::ChainFault;
use crate::error::ErrorKind;

/// Why the chain's head is not anchored.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file can't be read or written.
    #[error("can't {doing} the audit anchor `{}`", .path.display())]
    Anchor {
        /// What was being done.
        doing: &'static str,
        /// The file or its directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process writes the file, and does not end.
    #[error("the audit anchor `{}` is locked by another process", .0.display())]
    AnchorLocked(PathBuf),
    /// The file was changed: a line does not follow from the one before.
    #[error("the audit anchor `{}` is damaged at line {line}: {what}", .path.display())]
    AnchorDamaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The database knows of a line that is not in the file.
    #[error("the audit anchor `{}` lacks line {sequence}, which this database knows of", .path.display())]
    AnchorIncomplete {
        /// The file.
        path: PathBuf,
        /// The line's number.
        sequence: i64,
    },
    /// The log does not have the head any more that was anchored last.
    #[error("the audit log no longer has the seal at position {position} that `{}` names", .path.display())]
    Rewritten {
        /// The file.
        path: PathBuf,
        /// The seal's place.
        position: i64,
    },
}

impl AuditError {
    /// What it means to somebody who does not know its details.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Anchor { .. } | Self::AnchorLocked(_) => ErrorKind::Unavailable,
            Self::AnchorDamaged { .. } | Self::AnchorIncomplete { .. } | Self::Rewritten { .. } => {
                ErrorKind::Internal
            }
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Anchor { .. } => {
                "`erasure.ledger_dir` names its directory, which must exist and be writable for this program"
            }
            Self::AnchorLocked(_) => "another service holds it for a moment only: try again",
            Self::AnchorDamaged { .. } | Self::AnchorIncomplete { .. } => {
                "is the right directory mounted? compare with a copy of the file; docs/runbooks/audit-verify.md"
            }
            Self::Rewritten { .. } => {
                "was this database restored to an earlier time? else somebody removed or changed entries: \
                 `tenantry audit verify` and docs/runbooks/audit-verify.md"
            }
        };
        Some(hint.to_owned())
    }
}

impl From<ChainFault> for AuditError {
    /// The anchor's.
    fn from(fault: ChainFault) -> Self {
        match fault {
            ChainFault::Io { doing, path, source } => Self::Anchor { doing, path, source },
            ChainFault::Locked(path) => Self::AnchorLocked(path),
            ChainFault::Damaged { path, line, what } => Self::AnchorDamaged { path, line, what },
            ChainFault::Incomplete { path, sequence } => Self::AnchorIncomplete { path, sequence },
        }
    }
}
