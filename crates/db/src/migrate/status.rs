//! Who is where: from `public.tenants` and the ledger alone, never by asking each schema.

use serde::Serialize;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::runner::applied_to;
use super::{Applied, Migration, MigrationSet, Migrations, pending};
use crate::direct::{ReaderDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// Where the sets and the fleet stand.
#[derive(Debug, Clone, Serialize)]
pub struct FleetStatus {
    /// The public set.
    pub public: SetStatus,
    /// The newest version of the tenant set.
    pub tenant_head: i64,
    /// How many tenants stand at each version, ascending.
    pub tenants_by_version: Vec<TenantsAtVersion>,
    /// Tenants below the head, the furthest behind first.
    pub behind: Vec<TenantBehind>,
    /// Whether more tenants are behind than listed.
    pub behind_truncated: bool,
}

/// Where a set stands on a schema.
#[derive(Debug, Clone, Serialize)]
pub struct SetStatus {
    /// The newest applied version, 0 for none.
    pub applied: i64,
    /// The newest known version.
    pub head: i64,
    /// Files still to be applied, oldest first.
    pub pending: Vec<PendingFile>,
}

/// A file that a schema still lacks.
#[derive(Debug, Clone, Serialize)]
pub struct PendingFile {
    /// Its version.
    pub version: i64,
    /// Where it is.
    pub file: String,
}

/// How many tenants stand at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantsAtVersion {
    /// The version.
    pub version: i64,
    /// How many.
    pub tenants: i64,
}

/// A tenant below the head.
#[derive(Debug, Clone, Serialize)]
pub struct TenantBehind {
    /// Its id.
    pub id: TenantId,
    /// Its human name, if it has one.
    pub subdomain: Option<String>,
    /// The newest version that it has.
    pub version: i64,
}

const BEHIND_LISTED: usize = 100;

/// Reads where a set stands on a schema.
///
/// # Errors
/// [`Error::Migration`] where the ledger and the files do not fit together.
pub async fn set_status(
    reader: &ReaderDb,
    set: &MigrationSet,
    schema: &str,
) -> Result<SetStatus, Error> {
    let mut db = reader.connection().await?;
    let applied = applied_to(&begin(&mut db).await?, schema).await?;
    let pending = pending(set, &applied, schema)?;
    let file = |m: &&Migration| PendingFile { version: m.version, file: m.up.file.clone() };
    Ok(SetStatus {
        applied: applied.iter().map(|entry| entry.version).max().unwrap_or(0),
        head: set.head(),
        pending: pending.iter().map(file).collect(),
    })
}

/// Compares the tenants' ledger with the files: all tenants in one query.
///
/// # Errors
/// [`Error::Migration`] where an applied file was changed or is gone, or a new one was put before
/// the newest applied.
pub async fn check_tenant_ledger(reader: &ReaderDb, set: &MigrationSet) -> Result<(), Error> {
    let db = reader.connection().await?;
    let rows = db
        .query_typed(
            "SELECT version, name, token_checksum, min(schema_name) FROM public.migrations
             WHERE schema_name <> 'public' GROUP BY version, name, token_checksum ORDER BY version",
            &[],
        )
        .await
        .doing("read the migration ledger")?;
    let applied: Vec<Applied> = rows
        .iter()
        .map(|row| Applied { version: row.get(0), name: row.get(1), token_checksum: row.get(2) })
        .collect();
    // The schema is for the message: the newest entry's stands for all.
    let schema = rows.last().map_or_else(String::new, |row| row.get(3));
    pending(set, &applied, &schema)?;
    Ok(())
}

/// Reads where everything stands.
///
/// # Errors
/// [`Error::Migration`] where a ledger and the files do not fit together.
pub async fn fleet_status(
    reader: &ReaderDb,
    migrations: &Migrations,
) -> Result<FleetStatus, Error> {
    let public = set_status(reader, &migrations.public, "public").await?;
    let tenant_head = migrations.tenant.head();
    if public.applied == 0 {
        return Ok(FleetStatus {
            public,
            tenant_head,
            tenants_by_version: Vec::new(),
            behind: Vec::new(),
            behind_truncated: false,
        });
    }
    check_tenant_ledger(reader, &migrations.tenant).await?;
    let db = reader.connection().await?;
    let histogram = db
        .query_typed(
            "SELECT schema_version, count(*) FROM public.tenants
             WHERE status <> 'purged' GROUP BY schema_version ORDER BY schema_version",
            &[],
        )
        .await
        .doing("count tenants by version")?;
    let behind = db
        .query_typed(
            "SELECT id, subdomain, schema_version FROM public.tenants
             WHERE status <> 'purged' AND schema_version < $1
             ORDER BY schema_version, id LIMIT $2",
            &[(&tenant_head, Type::INT8), (&(BEHIND_LISTED as i64 + 1), Type::INT8)],
        )
        .await
        .doing("list tenants that are behind")?;
    Ok(FleetStatus {
        public,
        tenant_head,
        tenants_by_version: histogram
            .iter()
            .map(|row| TenantsAtVersion { version: row.get(0), tenants: row.get(1) })
            .collect(),
        behind: behind
            .iter()
            .take(BEHIND_LISTED)
            .map(|row| TenantBehind {
                id: row.get::<_, Uuid>(0).into(),
                subdomain: row.get(1),
                version: row.get(2),
            })
            .collect(),
        behind_truncated: behind.len() > BEHIND_LISTED,
    })
}
