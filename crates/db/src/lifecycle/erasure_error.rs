//! What stands against deleting and purging.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::chained_file::ChainFault;
use crate::error::ErrorKind;
use crate::ids::TenantId;

/// Why a tenant is not deleted, or its purge does not go on. Whatever it is, calling again goes on from
/// where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The tenant's subdomain was not given, or another one was.
    #[error("nothing was done to tenant `{0}`: its subdomain is needed as a confirmation")]
    ConfirmationRequired(TenantId),
    /// The tenant can still be restored.
    #[error("tenant `{tenant}` is not due before {}", .purge_after.map_or_else(|| "it is deleted".to_owned(), |at| at.to_string()))]
    NotDue {
        /// The tenant.
        tenant: TenantId,
        /// When it will be.
        purge_after: Option<Timestamp>,
    },
    /// Somebody may still add something to the tenant's schema, or uses its tables.
    #[error("the purge of tenant `{tenant}` waits for {}", .by.join("; "))]
    Blocked {
        /// The tenant.
        tenant: TenantId,
        /// Each with what to look for.
        by: Vec<String>,
    },
    /// Objects outside of the tenant's schemas rest on what is inside. They are not Tenantry's, and
    /// dropping them could hit others than the tenant.
    #[error("the purge of tenant `{tenant}` would take with it {}", .objects.join("; "))]
    UsedOutside {
        /// The tenant.
        tenant: TenantId,
        /// What rests on the tenant's schemas.
        objects: Vec<String>,
    },
    /// The tenant's role has rights or objects beyond its schemas.
    #[error("the role of tenant `{tenant}` can't be dropped: {}", .objects.join("; "))]
    RoleUsed {
        /// The tenant.
        tenant: TenantId,
        /// What it has.
        objects: Vec<String>,
    },
    /// The check at the end found something.
    #[error("of tenant `{tenant}` there is still {}", .left.join("; "))]
    Left {
        /// The tenant.
        tenant: TenantId,
        /// What was found.
        left: Vec<String>,
    },
    /// Somebody said that a replica exists no more, and the primary knows it.
    #[error("replica `{0}` streams from the primary, or has a slot there")]
    ReplicaThere(String),
    /// A transaction that is older than the rewriting of statistics may still see what was in them.
    #[error("the statistics of purged tenants can't be written anew before {0} ends")]
    StatisticsHeld(String),
    /// The erasure ledger names tenants that this database has, as if they had never been erased.
    #[error("the erasure ledger says that {} of this database's tenants were erased: {}", .0.len(), listed(.0))]
    ErasedBefore(Vec<TenantId>),
    /// The control functions are those of an older program.
    #[error("the control functions of this database are older than this program")]
    OldControlFunctions,
    /// The erasure ledger can't be read or written.
    #[error("can't {doing} the erasure ledger `{}`", .path.display())]
    Ledger {
        /// What was being done.
        doing: &'static str,
        /// The file or its directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process writes the ledger, and does not end.
    #[error("the erasure ledger `{}` is locked by another process", .0.display())]
    LedgerLocked(PathBuf),
    /// The ledger was changed: an entry does not follow from the one before.
    #[error("the erasure ledger `{}` is damaged at line {line}: {what}", .path.display())]
    LedgerDamaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The database knows of an entry that is not in the ledger.
    #[error("the erasure ledger `{}` lacks entry {sequence}, which this database knows of", .path.display())]
    LedgerIncomplete {
        /// The file.
        path: PathBuf,
        /// The entry's number.
        sequence: i64,
    },
}

impl From<ChainFault> for ErasureError {
    /// The erasure ledger's.
    fn from(fault: ChainFault) -> Self {
        match fault {
            ChainFault::Io { doing, path, source } => Self::Ledger { doing, path, source },
            ChainFault::Locked(path) => Self::LedgerLocked(path),
            ChainFault::Damaged { path, line, what } => Self::LedgerDamaged { path, line, what },
            ChainFault::Incomplete { path, sequence } => Self::LedgerIncomplete { path, sequence },
        }
    }
}

impl ErasureError {
    /// What it means to somebody who does not know its details.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::ConfirmationRequired(_) | Self::NotDue { .. } => ErrorKind::Conflict,
            Self::Blocked { .. } | Self::StatisticsHeld(_) => ErrorKind::Busy,
            Self::UsedOutside { .. }
            | Self::RoleUsed { .. }
            | Self::ReplicaThere(_)
            | Self::ErasedBefore(_)
            | Self::OldControlFunctions => ErrorKind::Refused,
            Self::Left { .. } | Self::LedgerDamaged { .. } | Self::LedgerIncomplete { .. } => {
                ErrorKind::Internal
            }
            Self::Ledger { .. } | Self::LedgerLocked(_) => ErrorKind::Unavailable,
        }
    }

    /// Whether it concerns the installation and not this tenant only, so that the next one would fail
    /// as well.
    pub(crate) fn concerns_all(&self) -> bool {
        match self {
            Self::OldControlFunctions
            | Self::ErasedBefore(_)
            | Self::StatisticsHeld(_)
            | Self::Ledger { .. }
            | Self::LedgerLocked(_)
            | Self::LedgerDamaged { .. }
            | Self::LedgerIncomplete { .. } => true,
            Self::ConfirmationRequired(_)
            | Self::NotDue { .. }
            | Self::Blocked { .. }
            | Self::UsedOutside { .. }
            | Self::RoleUsed { .. }
            | Self::ReplicaThere(_)
            | Self::Left { .. } => false,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::ConfirmationRequired(_) => "`--confirm` takes the tenant's subdomain",
            Self::NotDue { .. } => "`--now` does not wait for it",
            Self::Blocked { .. } => {
                "end these transactions (COMMIT or ROLLBACK where they run; `SELECT pg_terminate_backend(pid)`; \
                 `ROLLBACK PREPARED 'gid'` or COMMIT PREPARED); the purge goes on at the next try"
            }
            Self::UsedOutside { .. } => {
                "drop or change these, as whoever made them would; the purge goes on at the next try"
            }
            Self::RoleUsed { .. } => {
                "in each database named, as a superuser: `REVOKE` or `REASSIGN OWNED BY … TO …`; the purge \
                 goes on at the next try"
            }
            Self::Left { .. } => {
                "see docs/runbooks/purge.md before anybody repairs a catalog by hand"
            }
            Self::ReplicaThere(_) => {
                "one that lags or is paused is waited for; if it is gone for good, stop it, drop its slot and destroy its disks first"
            }
            Self::StatisticsHeld(_) => {
                "end it where it runs; a running service tries again by itself"
            }
            Self::ErasedBefore(_) => {
                "a backup was restored without erasing them again: `tenantry tenant purge --from-ledger` does, before \
                 anybody is served"
            }
            Self::OldControlFunctions => "run `tenantry init` again, with this version",
            Self::Ledger { .. } => {
                "`erasure.ledger_dir` names its directory, which must exist and be writable for this program; \
                 nothing is dropped before the entry is on disk"
            }
            Self::LedgerLocked(_) => "another purge holds it for a moment only: try again",
            Self::LedgerDamaged { .. } | Self::LedgerIncomplete { .. } => {
                "is the right directory mounted? compare with a copy of the ledger; nothing is dropped until then"
            }
        };
        Some(hint.to_owned())
    }
}

/// The first few, by id.
fn listed(tenants: &[TenantId]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = tenants.iter().take(SHOWN).map(|id| format!("`{id}`")).collect();
    let more = if tenants.len() > SHOWN { ", …" } else { "" };
    shown.join(", ") + more
}
