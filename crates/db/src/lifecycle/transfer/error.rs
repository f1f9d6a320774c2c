//! What stands against handing a tenant's data over, and against taking it in.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::ids::TenantId;

/// Why an export or an import did not come to its end. An import that fails leaves nothing.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A table that can't stand in an archive.
    #[error("table `{table}` can't be exported: {why}")]
    Unexportable {
        /// The table.
        table: String,
        /// Why not.
        why: &'static str,
    },
    /// The archive could not be written: a full disk, or a client that went away.
    #[error("can't write the archive")]
    Output(#[source] std::io::Error),
    /// It took longer than it may.
    #[error("the export of tenant `{tenant}` took longer than {} s", .limit.as_secs())]
    TimeLimit {
        /// The tenant.
        tenant: TenantId,
        /// How long it may take.
        limit: Duration,
    },
    /// The archive can't be read from where it is.
    #[error("can't read `{}`", .path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The archive is not as it was written, or never was an archive.
    #[error("the archive is damaged: {place}: {what}")]
    Damaged {
        /// The file in it, or the part.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The archive was made by a newer program, or from a schema that this one does not know yet.
    #[error("the archive is newer than this program: {0}")]
    Newer(String),
    /// The archive's schema was made by other migration files than the ones in use here.
    #[error("the archive was made by other migrations: {0}")]
    OtherMigrations(String),
    /// The archive's tables are not those that the migrations make.
    #[error("the archive does not fit the schema: {0}")]
    OtherShape(String),
    /// The tenant has what no migration made, and a new tenant would lack it.
    #[error("tenant `{tenant}` has {what}, which no migration made")]
    MadeByHand {
        /// The tenant.
        tenant: TenantId,
        /// What it has.
        what: String,
    },
    /// A table of the tenant's schema belongs to somebody else, who made it by hand.
    #[error("tenant `{tenant}` has table `{table}`, which belongs to `{owner}`")]
    ForeignOwner {
        /// The tenant.
        tenant: TenantId,
        /// The table.
        table: String,
        /// Whose it is.
        owner: String,
    },
    /// The archive would grow beyond all measure.
    #[error(
        "the archive of {compressed} bytes says that it holds {bytes} bytes, more than {} times as many",
        Self::MAX_RATIO
    )]
    TooMuch {
        /// What the archive takes on disk.
        compressed: u64,
        /// What it says that it holds.
        bytes: u64,
    },
    /// A row breaks a rule of the schema.
    #[error("the rows of the archive break a rule: {0}")]
    Rule(String),
}

impl TransferError {
    /// How much more an archive may hold than its own size. Text shrinks to a tenth, repeated rows to a
    /// fiftieth; beyond that, somebody has built it.
    pub const MAX_RATIO: u64 = 250;

    pub(crate) fn damaged(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged { place: place.into(), what: what.into() }
    }

    /// What it means to somebody who does not know its details.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unexportable { .. }
            | Self::Damaged { .. }
            | Self::Newer(_)
            | Self::OtherMigrations(_)
            | Self::OtherShape(_)
            | Self::MadeByHand { .. }
            | Self::ForeignOwner { .. }
            | Self::TooMuch { .. }
            | Self::Rule(_) => ErrorKind::Refused,
            Self::TimeLimit { .. } => ErrorKind::Timeout,
            Self::Output(_) | Self::Input { .. } => ErrorKind::Internal,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unexportable { .. } => "a migration can give it a column of its own, or drop it",
            Self::Output(_) => {
                "is there room? nothing of it can be used: an archive is whole or refused"
            }
            Self::TimeLimit { .. } => "`export.max_duration` sets the limit",
            Self::Input { .. } => return None,
            Self::Damaged { .. } => {
                "nothing was imported; make a new export, or copy the archive again and compare its size"
            }
            Self::Newer(_) => "upgrade this installation first, then `tenantry migrate run`",
            Self::OtherMigrations(_) => {
                "`migrations.dir` must hold the files that the exporting installation had"
            }
            Self::OtherShape(_) => {
                "was the exporting tenant changed by hand? `tenantry migrate status --drift` says so there"
            }
            Self::MadeByHand { .. } => {
                "move it to a schema of your own, with `ALTER … SET SCHEMA`, or take the tenant back in its place, \
                 without `--as`"
            }
            Self::ForeignOwner { .. } => {
                "move it to a schema of your own, with `ALTER TABLE … SET SCHEMA`, or give it to the owner of the \
                 others, with `ALTER TABLE … OWNER TO`"
            }
            Self::TooMuch { .. } => "`--any-size` imports it all the same",
            Self::Rule(_) => "nothing was imported",
        };
        Some(hint.to_owned())
    }
}
