//! One tenant brought back alone: its schema replaced by what it was at an earlier moment, and the way back.
//!
//! The earlier state comes from a copy of the database that nobody reaches. `copy` brings the tenant's schema
//! forward there, under its own name, where what it does to others does no harm; `load` makes the same schema
//! here beside the tenant's own, in one transaction; `swap` changes their names in another, which waits for
//! nobody for long, and keeps the one that was replaced; `keep` drops it some day. Whatever is killed, the
//! tenant's schema is the former one or the other, whole. Refuses tenants that were erased.

mod copy;
mod error;
mod keep;
mod load;
mod swap;

use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::ErasureLedger;
use super::purge::list_outside;
use super::transfer::require_own_tables;
use crate::direct::{AdminDb, ReaderDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{TenantId, TenantRef};
use crate::migrate::{Migrations, require_public_head};
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::{Status, Tenant, get_tenant};

pub use copy::{Earlier, bring_forward};
pub use error::BringBackError;
pub use keep::{drop_what_is_nobodys, keep_dropping_kept};
pub use load::{Loaded, SchemaText, load_earlier};
pub use swap::{Replaced, Undone, undo_bring_back};

/// Refuses a tenant that was erased, or is about to be: what the backups still have of it stays there.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`BringBackError::Erased`]; those of the ledger.
pub async fn require_not_erased(
    reader: &ReaderDb,
    ledger: Option<&ErasureLedger>,
    tenant: &TenantRef,
) -> Result<Tenant, Error> {
    let row = get_tenant(reader, tenant).await?;
    let gone = matches!(row.status, Status::Purging | Status::Purged);
    let named = match ledger {
        Some(ledger) => ledger.entries()?.iter().any(|entry| entry.tenant_id == row.id),
        None => false,
    };
    if gone || named { Err(BringBackError::Erased(row.id).into()) } else { Ok(row) }
}

/// Refuses a tenant whose own state can't be replaced, before anything is copied.
///
/// # Errors
/// [`Error::InvalidState`] for one that is deleted; [`Error::Behind`]; [`BringBackError::HalfWay`],
/// [`BringBackError::UsedOutside`] and [`TransferError::ForeignOwner`].
///
/// [`TransferError::ForeignOwner`]: crate::lifecycle::TransferError::ForeignOwner
pub async fn require_replaceable(
    admin: &AdminDb,
    migrations: &Migrations,
    tenant: &Tenant,
) -> Result<(), Error> {
    require_served(tenant)?;
    let db = admin.connection().await?;
    require_public_head(&**db, &migrations.public).await?;
    require_whole(&**db, tenant.id).await?;
    require_own_tables(&**db, tenant.id, &admin.roles.owner()).await?;
    let schema = tenant.schema().to_string();
    // Of the copies' names none begins with two underscores more.
    let objects = list_outside(&**db, &schema, &format!("{schema}____")).await?;
    if !objects.is_empty() {
        return Err(BringBackError::UsedOutside { tenant: tenant.id, objects }.into());
    }
    Ok(())
}

/// What the tenant's tables take on disk now, with indexes and all.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn size_on_disk(admin: &AdminDb, tenant: TenantId) -> Result<u64, Error> {
    let db = admin.connection().await?;
    size_of(&**db, &tenant.schema().to_string()).await
}

/// What the tables of a schema take.
async fn size_of(db: &impl GenericClient, schema: &str) -> Result<u64, Error> {
    let row = db
        .query_typed_one(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'm')",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("look how large the tenant is")?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// Suspended ones may be brought back, and stay suspended.
fn require_served(tenant: &Tenant) -> Result<(), Error> {
    match tenant.status {
        Status::Active | Status::Suspended => Ok(()),
        Status::Purging | Status::Purged => Err(BringBackError::Erased(tenant.id).into()),
        status @ (Status::Ready | Status::Deleted) => {
            Err(Error::InvalidState { tenant: tenant.id, status, step: "taken back" })
        }
    }
}

/// What a migration has begun statement by statement belongs to the schema that it was begun in.
async fn require_whole(db: &impl GenericClient, tenant: TenantId) -> Result<(), Error> {
    let half = db
        .query_typed_opt(
            "SELECT FROM public.migration_progress WHERE schema_name = $1 AND statements_begun > 0 LIMIT 1",
            &[(&tenant.schema().to_string(), Type::TEXT)],
        )
        .await
        .doing("look whether a migration ran half way")?;
    half.map_or(Ok(()), |_| Err(BringBackError::HalfWay(tenant).into()))
}

/// Writes down that a new tenant is an earlier state of another one.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn record_bring_back_as(
    admin: &AdminDb,
    tenant: TenantId,
    source: TenantId,
    moment: Option<Timestamp>,
    actor: &Actor,
) -> Result<(), Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    let details = json!({ "to": moment, "source_tenant_id": source });
    audit::record(&tx, actor, Action::TenantRewound, tenant, &details).await?;
    tx.commit().await.doing("commit the audit entry")
}
