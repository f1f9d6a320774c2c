//! Checking a certificate that was filed: against itself, the erasure ledger and the register.

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::Value;

use super::document;
use crate::direct::ReaderDb;
use crate::error::Error;
use crate::ids::TenantId;
use crate::lifecycle::purge::ErasureLedger;
use crate::models::certificates;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FiledCheck {
    /// What it is about.
    pub name: &'static str,
    /// Whether it holds; none if it could not be checked.
    pub holds: Option<bool>,
    /// What was found.
    pub detail: String,
}

/// Checks a certificate as it was filed, in JSON. Without a ledger or a database, says what was not checked.
///
/// # Errors
/// [`Error::Erasure`] for a ledger that is damaged; [`Error::Unavailable`] or [`Error::Database`] if the
/// register can't be read.
pub async fn check_certificate(
    filed: &Value,
    ledger: Option<&ErasureLedger>,
    reader: Option<&ReaderDb>,
) -> Result<Vec<FiledCheck>, Error> {
    let mut document = filed.clone();
    let digest = document.as_object_mut().and_then(|fields| fields.remove("sha256"));
    let digest = digest.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut checks = vec![itself(&document, &digest)];
    let tenant: Option<TenantId> = document["tenant_id"].as_str().and_then(|id| id.parse().ok());
    checks.push(match (ledger, tenant) {
        (Some(ledger), Some(tenant)) => in_ledger(&document, tenant, ledger)?,
        _ => unchecked("ledger", "there is no ledger, or no tenant, to compare with"),
    });
    checks.push(match (reader, tenant) {
        // The register is asked by the digest, which says nothing of a document that is not its own.
        _ if checks.iter().any(|check| check.name == "document" && check.holds == Some(false)) => {
            unchecked("register", "the document was changed, so it is none that was issued")
        }
        (Some(reader), Some(tenant)) => in_register(&document, tenant, &digest, reader).await?,
        _ => unchecked("register", "there is no database, or no tenant, to compare with"),
    });
    Ok(checks)
}

fn unchecked(name: &'static str, detail: &str) -> FiledCheck {
    FiledCheck { name, holds: None, detail: detail.to_owned() }
}

fn found(name: &'static str, holds: bool, detail: impl Into<String>) -> FiledCheck {
    FiledCheck { name, holds: Some(holds), detail: detail.into() }
}

fn itself(document: &Value, digest: &str) -> FiledCheck {
    if HEXLOWER.encode(&document::digest(document)) == digest {
        return found("document", true, "it is as it was issued: its SHA-256 is its own");
    }
    found("document", false, "it was changed: its SHA-256 is another one")
}

fn in_ledger(
    document: &Value,
    tenant: TenantId,
    ledger: &ErasureLedger,
) -> Result<FiledCheck, Error> {
    let (Some(sequence), Some(sha256)) =
        (document["ledger"]["sequence"].as_i64(), document["ledger"]["sha256"].as_str())
    else {
        return Ok(found("ledger", false, "the certificate names no entry"));
    };
    let Some((entry, recorded)) = ledger.find(sequence)? else {
        return Ok(found("ledger", false, format!("it has no entry {sequence}")));
    };
    Ok(match (entry.tenant_id == tenant, HEXLOWER.encode(&recorded.hash) == sha256) {
        (true, true) => {
            found("ledger", true, format!("entry {sequence} names this tenant, with this hash"))
        }
        (true, false) => found("ledger", false, format!("entry {sequence} has another hash")),
        (false, _) => found("ledger", false, format!("entry {sequence} names another tenant")),
    })
}

async fn in_register(
    document: &Value,
    tenant: TenantId,
    digest: &str,
    reader: &ReaderDb,
) -> Result<FiledCheck, Error> {
    let stored = certificates::find(&**reader.connection().await?, tenant).await?;
    let Some(stored) = stored else {
        return Ok(found("register", false, "this database has no certificate for the tenant"));
    };
    if stored.document["certificate_id"] != document["certificate_id"] {
        let detail = "this database has another certificate for the tenant: was it restored since?";
        return Ok(found("register", false, detail));
    }
    Ok(match (HEXLOWER.encode(&stored.sha256) == digest, stored.is_complete()) {
        (true, true) => found("register", true, "it is the certificate that this database has"),
        (true, false) => {
            found("register", true, "it is the newest state; the certificate is incomplete")
        }
        (false, _) if document["status"] == "incomplete" => {
            found("register", true, "it is an earlier state of this certificate: get the newest")
        }
        (false, _) => found("register", false, "this database has it with another SHA-256"),
    })
}
