//! The certificate of an erasure: one for each purge, made in the transaction that ends it.
//!
//! It says what was looked at and what was found, and nothing that was not. While something is still to be
//! seen (a replica that has not replayed the purge, statistics that were not written anew) it is incomplete
//! and names that; `look` looks again. Once complete it never changes. Refuses personal data: ids, times,
//! numbers, names of tables and servers.

mod backups;
mod check;
mod document;
mod issue;
mod look;
mod replicas;
mod text;

use serde::Serialize;
use serde_json::Value;

use crate::direct::{AdminDb, ReaderDb};
use crate::error::Error;
use crate::ids::{TenantId, TenantRef};
use crate::models::certificates;
use crate::models::tenants::{Status, get_tenant};

pub use check::{FiledCheck, check_certificate};
pub use document::{BackupsHold, CertificateStatus};
pub use look::{declare_replica_gone, look_at_certificates, refresh_certificate};

pub(super) use issue::issue;
pub(super) use look::look;

/// A certificate as it is filed: the document, and its digest.
#[derive(Debug, Clone, Serialize)]
pub struct Certificate {
    /// The document, as JSON. `docs/concepts/certificate.md` says what each field means.
    #[serde(flatten)]
    document: Value,
    /// The SHA-256 of the document without this field, in the canonical form of RFC 8785, in hex.
    sha256: String,
}

impl Certificate {
    /// The document without its digest.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The SHA-256 of the document, in hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether nothing is left to be seen.
    pub fn is_complete(&self) -> bool {
        self.document["status"] == CertificateStatus::Complete.as_str()
    }

    /// Whether nothing is left in the backups either, seen to be so.
    pub fn is_erased(&self) -> bool {
        self.document["erased"] == true
    }

    fn of_row(row: certificates::CertificateRow) -> Self {
        Self { document: row.document, sha256: data_encoding::HEXLOWER.encode(&row.sha256) }
    }
}

/// The certificate of a tenant's purge.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::InvalidState`] for a tenant that is not purged, or, for a moment, one
/// that was purged by an earlier version: [`refresh_certificate`] makes its certificate, and so does a
/// service.
pub async fn get_certificate(reader: &ReaderDb, tenant: TenantId) -> Result<Certificate, Error> {
    let row = get_tenant(reader, &TenantRef::Id(tenant)).await?;
    let refused = Error::InvalidState { tenant, status: row.status, step: "certified" };
    if row.status != Status::Purged {
        return Err(refused);
    }
    let db = reader.connection().await?;
    let found = certificates::find(&**db, tenant).await?.ok_or(refused)?;
    Ok(Certificate::of_row(backups::newest(&**db, tenant, found).await?))
}

/// How many purges and certificates there are, for the numbers that somebody watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasureCounts {
    /// Purges that began.
    pub begun: i64,
    /// Of these, those that came to their end.
    pub finished: i64,
    /// Of these, those whose last try failed.
    pub failing: i64,
    /// Certificates that are incomplete.
    pub incomplete: i64,
}

/// Counts them.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn count_erasures(reader: &ReaderDb) -> Result<ErasureCounts, Error> {
    certificates::count(&**reader.connection().await?).await
}

/// For [`refresh_certificate`] and its like: the tenant is purged.
async fn require_purged(admin: &AdminDb, tenant: TenantId) -> Result<(), Error> {
    let db = admin.connection().await?;
    match certificates::status_of(&**db, tenant).await? {
        Some(Status::Purged) => Ok(()),
        Some(Status::Ready) | None => Err(Error::TenantNotFound(TenantRef::Id(tenant))),
        Some(status) => Err(Error::InvalidState { tenant, status, step: "certified" }),
    }
}
