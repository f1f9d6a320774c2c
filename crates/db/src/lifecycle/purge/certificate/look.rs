//! Looking again at what was not seen yet, until the certificate is complete.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::{GenericClient, Transaction};

use super::super::verify::{self, Looked};
use super::document::{self, BackupsHold, CertificateStatus, Seen};
use super::{Certificate, issue, replicas, require_purged};
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{TenantId, TenantRef};
use crate::lifecycle::ErasureError;
use crate::models::audit::{self, Action, Actor};
use crate::models::certificates::{self, CertificateRow, End};

/// Looks again at what a purge's certificate says is open, and yields it as it is then. Makes the
/// certificate of a purge that ended under an earlier version.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::InvalidState`] for a tenant that is not purged;
/// [`crate::lifecycle::ErasureError::Left`] if something of a tenant is found that was purged under an
/// earlier version.
pub async fn refresh_certificate(
    admin: &AdminDb,
    tenant: TenantId,
    actor: &Actor,
) -> Result<Certificate, Error> {
    require_purged(admin, tenant).await?;
    look(admin, tenant, actor).await
}

/// Looks at all that are open, the one that was not looked at for the longest first. Yields how many are
/// incomplete still, of a hundred.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`]. What concerns one tenant is logged.
pub async fn look_at_certificates(admin: &AdminDb, actor: &Actor) -> Result<usize, Error> {
    const PER_ROUND: i64 = 100;
    let open = certificates::list_open(&**admin.connection().await?, PER_ROUND).await?;
    let mut incomplete = 0;
    for tenant in open {
        match look(admin, tenant, actor).await {
            Ok(certificate) if certificate.is_complete() => {
                tracing::info!(tenant.id = %tenant, "erasure certificate complete");
            }
            Ok(_) => incomplete += 1,
            Err(error) if error.kind() == crate::error::ErrorKind::Unavailable => {
                return Err(error);
            }
            Err(error) => {
                incomplete += 1;
                tracing::warn!(tenant.id = %tenant, %error, "the erasure certificate stays incomplete");
            }
        }
    }
    Ok(incomplete)
}

/// Notes that a replica exists no more, and its disks neither: it will not be waited for. The certificate
/// says who said so.
///
/// # Errors
/// As [`refresh_certificate`]; [`Error::InvalidField`] if the certificate names no such replica;
/// [`crate::lifecycle::ErasureError::ReplicaThere`] for one that the primary still knows.
pub async fn declare_replica_gone(
    admin: &AdminDb,
    tenant: TenantId,
    replica: &str,
    actor: &Actor,
) -> Result<Certificate, Error> {
    look(admin, tenant, actor).await?;
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    let row = certificates::lock(&tx, tenant).await?;
    let row = row.ok_or(Error::TenantNotFound(TenantRef::Id(tenant)))?;
    let mut seen = seen_in(&row.document);
    let Some(server) = seen.replicas.servers.get_mut(replica) else {
        let rule = "names no replica of this certificate";
        return Err(Error::InvalidField { field: "replica-gone", rule });
    };
    if row.is_complete() {
        return Ok(Certificate::of_row(row));
    }
    if replicas::is_there(&tx, replica).await? {
        return Err(ErasureError::ReplicaThere(replica.to_owned()).into());
    }
    server.declared_gone_by = Some(actor.to_string());
    let details = json!({ "replica": replica });
    audit::record(&tx, actor, Action::ReplicaDeclaredGone, tenant, &details).await?;
    let certificate = store(&tx, tenant, row, &seen, None, actor).await?;
    tx.commit().await.doing("commit what was said of the replica")?;
    Ok(certificate)
}

/// One look, in one transaction. Of a complete one, only reads it.
pub(in crate::lifecycle::purge) async fn look(
    admin: &AdminDb,
    tenant: TenantId,
    actor: &Actor,
) -> Result<Certificate, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    let mut row = certificates::lock(&tx, tenant).await?;
    if row.is_none() {
        let looked = verify::look(&tx, admin, tenant, None).await?;
        looked.require_nothing(tenant)?;
        issue(&tx, admin, tenant, looked, true).await?;
        row = certificates::lock(&tx, tenant).await?;
    }
    let row = row.ok_or(Error::TenantNotFound(TenantRef::Id(tenant)))?;
    if row.is_complete() {
        return Ok(Certificate::of_row(row));
    }
    let verified = verify_again(&tx, admin, tenant, &row).await?;
    let End { position, statistics_rewritten_at, now } =
        certificates::end_of_purge(&tx, tenant).await?;
    let mut seen = seen_in(&row.document);
    seen.looked_at = Some(now);
    seen.statistics_rewritten_at = statistics_rewritten_at;
    seen.replicas.look(&tx, position, admin.replicas).await?;
    let certificate = store(&tx, tenant, row, &seen, verified, actor).await?;
    tx.commit().await.doing("commit the certificate")?;
    Ok(certificate)
}

/// Where a place could not be read, or statements were left, all places are looked at once more: then the
/// certificate says when it was.
async fn verify_again(
    tx: &Transaction<'_>,
    admin: &AdminDb,
    tenant: TenantId,
    row: &CertificateRow,
) -> Result<Option<Looked>, Error> {
    let before = &row.document["verification"];
    let unread = before["unread"].as_array().is_some_and(|unread| !unread.is_empty());
    if !unread && before["statements"].as_i64().unwrap_or_default() == 0 {
        return Ok(None);
    }
    let looked = verify::look(tx, admin, tenant, None).await?;
    looked.require_nothing(tenant)?;
    Ok(Some(looked))
}

async fn store(
    tx: &impl GenericClient,
    tenant: TenantId,
    row: CertificateRow,
    seen: &Seen,
    verified: Option<Looked>,
    actor: &Actor,
) -> Result<Certificate, Error> {
    let before = data_encoding::HEXLOWER.encode(&row.sha256);
    let mut document = row.document;
    if let Some(verified) = verified {
        document["verification"] = serde_json::to_value(verified).unwrap_or_default();
    }
    let document = document::complete(document, seen, BackupsHold::Unknown, Some(&before));
    let sha256 = document::digest(&document);
    let complete = document["status"] == CertificateStatus::Complete.as_str();
    let row = CertificateRow { document, sha256: sha256.to_vec() };
    certificates::update(
        tx,
        tenant,
        &row,
        complete,
        seen.looked_at.unwrap_or(Timestamp::UNIX_EPOCH),
    )
    .await?;
    let certificate = Certificate::of_row(row);
    if complete {
        let details = json!({
            "certificate": certificate.document["certificate_id"], "sha256": certificate.sha256,
        });
        audit::record(tx, actor, Action::Certified, tenant, &details).await?;
    }
    Ok(certificate)
}

fn seen_in(document: &Value) -> Seen {
    serde_json::from_value(document["seen"].clone()).unwrap_or_default()
}
