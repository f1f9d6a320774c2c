//! Making the certificate, in the transaction that ends the purge.

use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::super::verify::Looked;
use super::document::{
    BackupsHold, Facts, Installation, LedgerEntry, Lifetime, Purge, Seen, Software, digest,
};
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::certificates;
use crate::models::purges::Ground;

/// Makes it, if there is none. `later` says that the purge ended before.
pub(in crate::lifecycle::purge) async fn issue(
    tx: &impl GenericClient,
    admin: &AdminDb,
    tenant: TenantId,
    looked: Looked,
    later: bool,
) -> Result<(), Error> {
    let row = tx
        .query_typed_one(
            "SELECT t.created_at, t.deleted_at, p.begun_at, p.finished_at, p.actor, p.ground, p.existed, p.steps,
                    p.ledger_sequence, p.ledger_hash, clock_timestamp() AS now,
                    (SELECT system_identifier::text FROM pg_control_system()) AS system,
                    current_database()::text AS database, current_setting('server_version') AS version
             FROM public.purges p JOIN public.tenants t ON t.id = p.tenant_id WHERE p.tenant_id = $1",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("read what the certificate is to say")?;
    let facts =
        facts(&row, admin, tenant, looked, later).doing("read what the certificate is to say")?;
    let document = facts.document(&Seen::default(), BackupsHold::Unknown);
    certificates::insert(tx, tenant, facts.certificate_id, &document, &digest(&document)).await
}

fn facts(
    row: &Row,
    admin: &AdminDb,
    tenant: TenantId,
    looked: Looked,
    later: bool,
) -> Result<Facts, tokio_postgres::Error> {
    let sequence: Option<i64> = row.try_get("ledger_sequence")?;
    let hash: Option<Vec<u8>> = row.try_get("ledger_hash")?;
    let now: Timestamp = row.try_get("now")?;
    Ok(Facts {
        certificate_id: Uuid::new_v4(),
        tenant_id: tenant,
        issued_at: now,
        issued_later: later,
        installation: Installation {
            database_system_identifier: row.try_get("system")?,
            database: row.try_get("database")?,
            role_prefix: admin.roles.to_string(),
        },
        software: Software {
            tenantry: env!("CARGO_PKG_VERSION"),
            postgresql: row.try_get("version")?,
        },
        tenant: Lifetime {
            created_at: row.try_get("created_at")?,
            deleted_at: row.try_get("deleted_at")?,
        },
        purge: Purge {
            begun_at: row.try_get("begun_at")?,
            finished_at: row.try_get("finished_at")?,
            actor: row.try_get("actor")?,
            ground: Ground::of_column(row.try_get("ground")?),
            existed: whole_numbers(row.try_get("existed")?),
            steps: row.try_get("steps")?,
        },
        ledger: sequence.zip(hash).map(|(sequence, hash)| LedgerEntry {
            sequence,
            sha256: data_encoding::HEXLOWER.encode(&hash),
        }),
        verification: looked,
    })
}

/// An earlier version estimated rows with a decimal point, which can be written in more than one way.
fn whole_numbers(mut existed: serde_json::Value) -> serde_json::Value {
    for value in existed.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
        if let Some(number) = value.as_f64().filter(|_| value.as_i64().is_none()) {
            // An estimate, far below what a double can't hold.
            #[expect(clippy::cast_possible_truncation, reason = "an estimate of rows")]
            let whole = number.round() as i64;
            *value = whole.into();
        }
    }
    existed
}
