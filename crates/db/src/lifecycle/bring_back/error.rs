//! What stands against bringing one tenant back.

use jiff::Timestamp;

use crate::error::ErrorKind;
use crate::ids::TenantId;

/// Why a tenant was not taken back to an earlier moment. Whatever it is, nothing of the tenant was changed.
#[derive(Debug, thiserror::Error)]
pub enum BringBackError {
    /// It was purged, or its purge has begun.
    #[error("tenant `{0}` was erased")]
    Erased(TenantId),
    /// There was no such tenant then.
    #[error("tenant `{tenant}` was not there{}", .moment.map_or_else(String::new, |at| format!(" at {at}")))]
    NotThen {
        /// The tenant.
        tenant: TenantId,
        /// The moment.
        moment: Option<Timestamp>,
    },
    /// It was at a newer version then than it is now.
    #[error("tenant `{tenant}` was at version {then} then, and is at {now}")]
    Ahead {
        /// The tenant.
        tenant: TenantId,
        /// Its version at the moment.
        then: i64,
        /// Its version now.
        now: i64,
    },
    /// A migration ran half way in it.
    #[error("a migration ran half way in tenant `{0}`")]
    HalfWay(TenantId),
    /// Objects outside of its schema rest on its tables. They are not Tenantry's, and would go on reading what is
    /// replaced.
    #[error("outside of the schema of tenant `{tenant}` rest on its tables {}", .objects.join("; "))]
    UsedOutside {
        /// The tenant.
        tenant: TenantId,
        /// What rests on them.
        objects: Vec<String>,
    },
    /// The earlier state could not be brought to the version of now.
    #[error(
        "the earlier state of tenant `{tenant}` could not be migrated to version {to}: {reason}"
    )]
    NotForward {
        /// The tenant.
        tenant: TenantId,
        /// The version.
        to: i64,
        /// Why not.
        reason: String,
    },
    /// What was loaded is not what was read.
    #[error("what was loaded of tenant `{tenant}` is not what it was: {what}")]
    Differs {
        /// The tenant.
        tenant: TenantId,
        /// In what.
        what: String,
    },
    /// Somebody uses the tenant's tables and does not end.
    #[error("the tables of tenant `{tenant}` are in use{}", listed(by))]
    InUse {
        /// The tenant.
        tenant: TenantId,
        /// By whom.
        by: Vec<String>,
    },
    /// Nothing is kept of what it was before.
    #[error("no former state of tenant `{0}` is kept")]
    NothingKept(TenantId),
}

fn listed(by: &[String]) -> String {
    if by.is_empty() { String::new() } else { format!(": {}", by.join("; ")) }
}

impl BringBackError {
    /// What the error means to somebody who does not know its details.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Erased(_) | Self::NothingKept(_) => ErrorKind::NotFound,
            Self::NotThen { .. }
            | Self::Ahead { .. }
            | Self::HalfWay(_)
            | Self::UsedOutside { .. } => ErrorKind::Refused,
            Self::InUse { .. } => ErrorKind::Busy,
            Self::NotForward { .. } | Self::Differs { .. } => ErrorKind::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Erased(_) => {
                "what was erased is not brought back; `tenantry tenant certificate` says when it was"
            }
            Self::NotThen { .. } => {
                "`tenantry tenant show` says when it was created: name a later moment"
            }
            Self::Ahead { .. } => {
                "migrations were taken back since: `tenantry migrate run --tenant` brings it to that version \
                 again first, or `--as` makes a new tenant of the earlier state"
            }
            Self::HalfWay(_) => "`tenantry migrate run --tenant` goes on with it: do that first",
            Self::UsedOutside { .. } => {
                "nothing was changed; drop them and make them anew afterwards, or use `--as`"
            }
            Self::NotForward { .. } => {
                "nothing was changed; `--as` makes a new tenant of the earlier state instead"
            }
            Self::Differs { .. } => {
                "nothing was changed; try again, and tell us if it happens twice"
            }
            Self::InUse { .. } => {
                "nothing was changed; end these transactions or wait for them, then try again"
            }
            Self::NothingKept(_) => {
                "it is dropped after `backup.keep_replaced`; `tenantry backup restore-tenant --to` reaches \
                 every moment of the backups"
            }
        };
        Some(hint.to_owned())
    }
}
