//! `public.tenants`: one row for each tenant.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{PgLsn, Type};
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::direct::ReaderDb;
use crate::error::{Doing, Error};
use crate::ids::{LaneId, SchemaName, Subdomain, TenantId, TenantRef};
use crate::models::page::{Listed, Page, Position};

pub use crate::models::status::Status;

/// A tenant.
#[derive(Debug, Clone, Serialize)]
pub struct Tenant {
    /// Its id, from which the names of schema and role follow.
    pub id: TenantId,
    /// Its display name.
    pub name: String,
    /// Its unique human name. A purged tenant has none.
    pub subdomain: Option<String>,
    /// What it has booked.
    pub tier: String,
    /// Where it stands in its life.
    pub status: Status,
    /// Its lane.
    pub lane: LaneId,
    /// The newest tenant migration that it has.
    pub schema_version: i64,
    /// Whether it must not be purged.
    pub legal_hold: bool,
    /// Free settings of the product.
    pub settings: Value,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its row was last changed.
    pub updated_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Until when it can be restored.
    pub purge_after: Option<Timestamp>,
    /// When it was erased.
    pub purged_at: Option<Timestamp>,
}

impl Tenant {
    /// The name of its schema and role.
    pub fn schema(&self) -> SchemaName {
        self.id.schema()
    }

    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        // The column's CHECK allows no other lane.
        let lane: i16 = row.try_get("lane").doing("read a tenant's lane")?;
        let lane = LaneId::try_from(lane)?;
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Self {
                id: row.try_get::<_, Uuid>("id")?.into(),
                name: row.try_get("name")?,
                subdomain: row.try_get("subdomain")?,
                tier: row.try_get("tier")?,
                // The column's CHECK allows nothing else; a newer program's status counts as shut out.
                status: row.try_get::<_, &str>("status")?.parse().unwrap_or(Status::Purging),
                lane,
                schema_version: row.try_get("schema_version")?,
                legal_hold: row.try_get("legal_hold")?,
                settings: row.try_get("settings")?,
                created_at: row.try_get("created_at")?,
                updated_at: row.try_get("updated_at")?,
                deleted_at: row.try_get("deleted_at")?,
                purge_after: row.try_get("purge_after")?,
                purged_at: row.try_get("purged_at")?,
            })
        };
        read().doing("read a row of `public.tenants`")
    }
}

/// The columns of [`Tenant`], for every statement that yields one.
macro_rules! columns {
    () => {
        "id, name, subdomain, tier, status, lane, schema_version, legal_hold, settings, created_at, updated_at, \
         deleted_at, purge_after, purged_at"
    };
}
pub(super) use columns;

/// Evaluated while the row is read, and so after the moment as of which it is read. What was inserted, not
/// what is flushed: a change is seen before it is flushed where its COMMIT did not wait for that.
macro_rules! position {
    () => {
        ", CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END AS known_at"
    };
}

pub(crate) use columns as tenant_columns;

/// Finds a tenant that people may see: `ready` ones and tombstones count as absent by subdomain,
/// tombstones are found by id.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn find_tenant(reader: &ReaderDb, tenant: &TenantRef) -> Result<Option<Tenant>, Error> {
    Ok(find_tenant_at(reader, tenant).await?.map(|(tenant, _)| tenant))
}

/// As [`find_tenant`], and yields where the primary's WAL stood: whatever is in the row lies before it.
pub(crate) async fn find_tenant_at(
    reader: &ReaderDb,
    tenant: &TenantRef,
) -> Result<Option<(Tenant, PgLsn)>, Error> {
    let db = reader.connection().await?;
    let row = match tenant {
        TenantRef::Id(id) => {
            db.query_typed_opt(
                concat!(
                    "SELECT ",
                    columns!(),
                    position!(),
                    " FROM public.tenants WHERE id = $1 AND status <> 'ready'"
                ),
                &[(id.as_uuid(), Type::UUID)],
            )
            .await
        }
        TenantRef::Subdomain(subdomain) => {
            db.query_typed_opt(
                concat!(
                    "SELECT ",
                    columns!(),
                    position!(),
                    " FROM public.tenants WHERE subdomain = $1 AND status <> 'ready'"
                ),
                &[(&subdomain.as_str(), Type::TEXT)],
            )
            .await
        }
    };
    let Some(row) = row.doing("look up a tenant")? else { return Ok(None) };
    // Unknown on a server in recovery: then nothing that is known here can be relied on elsewhere.
    let at: Option<PgLsn> = row.try_get("known_at").doing("read where the WAL stood")?;
    Ok(Some((Tenant::from_row(&row)?, at.unwrap_or(PgLsn::from(u64::MAX)))))
}

/// As [`find_tenant`], where the tenant must exist.
///
/// # Errors
/// [`Error::TenantNotFound`] beside those of [`find_tenant`].
pub async fn get_tenant(reader: &ReaderDb, tenant: &TenantRef) -> Result<Tenant, Error> {
    find_tenant(reader, tenant).await?.ok_or_else(|| Error::TenantNotFound(tenant.clone()))
}

/// Which tenants to list.
#[derive(Debug, Clone, Default)]
pub struct TenantFilter {
    /// Only of this status.
    pub status: Option<Status>,
    /// Only of this tier.
    pub tier: Option<String>,
    /// Only those with this text in their name or subdomain, whatever its case.
    pub text: Option<String>,
}

/// Lists tenants, oldest first. `ready` ones never appear.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn list_tenants(
    reader: &ReaderDb,
    filter: &TenantFilter,
    page: &Page,
) -> Result<Listed<Tenant>, Error> {
    let db = reader.connection().await?;
    let rows = db
        .query_typed(
            concat!(
                "SELECT ",
                columns!(),
                " FROM public.tenants
                 WHERE status <> 'ready'
                   AND ($1::text IS NULL OR status = $1)
                   AND ($2::text IS NULL OR tier = $2)
                   AND ($3::text IS NULL OR strpos(lower(name), lower($3)) > 0
                        OR strpos(subdomain, lower($3)) > 0)
                   AND ($4::timestamptz IS NULL OR (created_at, id) > ($4, $5))
                 ORDER BY created_at, id
                 LIMIT $6"
            ),
            &[
                (&filter.status.map(Status::as_str), Type::TEXT),
                (&filter.tier, Type::TEXT),
                (&filter.text, Type::TEXT),
                (&page.created_at(), Type::TIMESTAMPTZ),
                (&page.id(), Type::UUID),
                (&page.rows_to_read(), Type::INT8),
            ],
        )
        .await
        .doing("list tenants")?;
    let tenants = rows.iter().map(Tenant::from_row).collect::<Result<_, _>>()?;
    Ok(page.listed(tenants, |t| Position { created_at: t.created_at, id: *t.id.as_uuid() }))
}

/// How many tenants each lane has, tombstones and those of the ready pool aside.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn count_by_lane(reader: &ReaderDb) -> Result<Vec<(LaneId, i64)>, Error> {
    let db = reader.connection().await?;
    let rows = db
        .query_typed(
            "SELECT lane, count(*) FROM public.tenants WHERE status NOT IN ('ready', 'purged') GROUP BY lane ORDER BY lane",
            &[],
        )
        .await
        .doing("count tenants by lane")?;
    rows.iter()
        .map(|row| {
            let lane: i16 = row.try_get(0).doing("read a lane")?;
            Ok((LaneId::try_from(lane)?, row.try_get(1).doing("read a lane")?))
        })
        .collect()
}

/// How many tenants have each status.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn count_by_status(reader: &ReaderDb) -> Result<Vec<(String, i64)>, Error> {
    let db = reader.connection().await?;
    let rows = db
        .query_typed(
            "SELECT status, count(*) FROM public.tenants GROUP BY status ORDER BY status",
            &[],
        )
        .await
        .doing("count tenants by status")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Locks a tenant's row until the transaction ends. Waits as long as its `lock_timeout` allows.
pub(crate) async fn lock(tx: &impl GenericClient, tenant: TenantId) -> Result<Tenant, Error> {
    let row = tx
        .query_typed_opt(
            concat!("SELECT ", columns!(), " FROM public.tenants WHERE id = $1 FOR UPDATE"),
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await;
    let row = match row {
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(Error::Busy(format!("tenant `{tenant}`")));
        }
        row => row.doing("lock the tenant")?,
    };
    row.as_ref().map_or(Err(Error::TenantNotFound(TenantRef::Id(tenant))), Tenant::from_row)
}

/// As [`lock`], for one that somebody has: a tenant of the ready pool is nobody's, and nobody may know of
/// it.
pub(crate) async fn lock_taken(tx: &impl GenericClient, tenant: TenantId) -> Result<Tenant, Error> {
    let row = lock(tx, tenant).await?;
    match row.status {
        Status::Ready => Err(Error::TenantNotFound(TenantRef::Id(tenant))),
        _ => Ok(row),
    }
}

/// Suspends or resumes: `suspended_at` follows the status.
pub(crate) async fn set_suspended(
    tx: &impl GenericClient,
    tenant: TenantId,
    suspended: bool,
) -> Result<Tenant, Error> {
    let row = tx
        .query_typed_one(
            concat!(
                "UPDATE public.tenants
                 SET status = CASE WHEN $2 THEN 'suspended' ELSE 'active' END,
                     suspended_at = CASE WHEN $2 THEN now() END
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ),
            &[(tenant.as_uuid(), Type::UUID), (&suspended, Type::BOOL)],
        )
        .await
        .doing("record the tenant's status")?;
    Tenant::from_row(&row)
}

/// Records the tenant's lane.
pub(crate) async fn set_lane(
    tx: &impl GenericClient,
    tenant: TenantId,
    lane: LaneId,
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.tenants SET lane = $2 WHERE id = $1",
        &[(tenant.as_uuid(), Type::UUID), (&i16::from(lane.number()), Type::INT2)],
    )
    .await
    .doing("record the tenant's lane")?;
    Ok(())
}

/// Every tenant with its lane, `ready` ones too, tombstones aside.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub(crate) async fn lanes_of_all(
    db: &impl GenericClient,
) -> Result<Vec<(TenantId, LaneId)>, Error> {
    let rows = db
        .query_typed(
            "SELECT id, lane FROM public.tenants WHERE status <> 'purged' ORDER BY id",
            &[],
        )
        .await
        .doing("list the tenants' lanes")?;
    rows.iter()
        .map(|row| Ok((row.get::<_, Uuid>(0).into(), LaneId::try_from(row.get::<_, i16>(1))?)))
        .collect()
}

/// A row to be inserted.
pub(crate) struct TenantInsert<'a> {
    pub(crate) id: TenantId,
    pub(crate) name: &'a str,
    pub(crate) subdomain: &'a Subdomain,
    pub(crate) tier: &'a str,
    pub(crate) settings: &'a Map<String, Value>,
    pub(crate) lane: LaneId,
    pub(crate) schema_version: i64,
}

/// Inserts a row. Where another transaction is about to take the same subdomain, waits for its end.
pub(crate) async fn insert(
    tx: &impl GenericClient,
    row: &TenantInsert<'_>,
) -> Result<Tenant, Error> {
    let inserted = tx
        .query_typed_one(
            concat!(
                "INSERT INTO public.tenants (id, name, subdomain, tier, settings, lane, schema_version)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 RETURNING ", columns!()
            ),
            &[
                (row.id.as_uuid(), Type::UUID),
                (&row.name, Type::TEXT),
                (&row.subdomain.as_str(), Type::TEXT),
                (&row.tier, Type::TEXT),
                (&Value::Object(row.settings.clone()), Type::JSONB),
                (&i16::from(row.lane.number()), Type::INT2),
                (&row.schema_version, Type::INT8),
            ],
        )
        .await;
    match inserted {
        Ok(inserted) => Tenant::from_row(&inserted),
        Err(e) if is_taken_subdomain(&e) => Err(Error::SubdomainTaken(row.subdomain.to_string())),
        Err(e) if violates(&e, "tenants_pkey") => Err(Error::TenantExists(row.id)),
        Err(e) => Err(e).doing("record the tenant").map_err(busy_subdomain),
    }
}

/// Somebody else has been about to take the subdomain for long.
pub(crate) fn busy_subdomain(error: Error) -> Error {
    match &error {
        Error::Database { source, .. } if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Error::Busy("the subdomain".to_owned())
        }
        _ => error,
    }
}

/// Whether another tenant has the subdomain, also a deleted one that may be restored.
pub(crate) fn is_taken_subdomain(error: &tokio_postgres::Error) -> bool {
    violates(error, "tenants_subdomain_key")
}

fn violates(error: &tokio_postgres::Error, constraint: &str) -> bool {
    error.as_db_error().is_some_and(|e| {
        e.code() == &SqlState::UNIQUE_VIOLATION && e.constraint() == Some(constraint)
    })
}
