//! What a purge did: what its certificate will be made of.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::GenericClient;

use crate::error::Error;
use crate::ids::{TenantId, TenantRef};
use crate::models::purges::{self, Step};

/// What a purge did. Ids, numbers and times only.
#[derive(Debug, Clone, Serialize)]
pub struct PurgeReport {
    /// Who was purged.
    pub tenant_id: TenantId,
    /// When its purge began.
    pub begun_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The number of its entry in the erasure ledger.
    pub ledger_sequence: Option<i64>,
    /// The SHA-256 of that entry, in hex.
    pub ledger_hash: Option<String>,
    /// What there was before: tables, rows and bytes (estimates), large objects, copies of the schema.
    pub existed: Value,
    /// The steps, each with its duration and how many things it concerned.
    pub steps: Value,
}

pub(super) async fn read(db: &impl GenericClient, tenant: TenantId) -> Result<PurgeReport, Error> {
    let purge = purges::find(db, tenant).await?;
    let purge = purge.ok_or(Error::TenantNotFound(TenantRef::Id(tenant)))?;
    let (ledger_sequence, ledger_hash) = purge.ledger.unzip();
    Ok(PurgeReport {
        tenant_id: tenant,
        begun_at: purge.begun_at,
        finished_at: purge.finished_at,
        ledger_sequence,
        ledger_hash: ledger_hash.map(|hash| data_encoding::HEXLOWER.encode(&hash)),
        existed: purge.existed,
        steps: purge.steps,
    })
}

/// How far a purge came, for people.
#[derive(Debug, Clone)]
pub struct PurgeProgress(String);

impl PurgeProgress {
    pub(super) fn done(step: Step, count: u64) -> Self {
        Self(match step {
            Step::Begun => "purge begun".to_owned(),
            Step::Recorded => "entered in the erasure ledger".to_owned(),
            Step::Frozen if count == 0 => "frozen: nobody can add anything".to_owned(),
            Step::Frozen => format!("frozen: nobody can add anything; {count} transactions ended"),
            Step::Emptied => format!("schema dropped, with {count} objects"),
            Step::RoleDropped => format!("role dropped, with {count} large objects"),
            Step::Finished => "nothing is left".to_owned(),
        })
    }

    pub(super) fn dropping(dropped: u64) -> Self {
        Self(format!("{dropped} objects dropped"))
    }
}

impl fmt::Display for PurgeProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
