//! The moment of an export: the tables locked, the snapshot taken, and everything of the manifest that is
//! known before the rows.

use jiff::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use super::TransferError;
use super::manifest::{
    AppliedFile, CsvForm, ExportedColumn, ExportedTable, ExportedTenant, Manifest, file_of,
};
use super::shape::{self, Shape};
use crate::config::OmittedColumn;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::{TenantId, TenantRef};
use crate::models::tenants::{Status, Tenant, tenant_columns};

/// Locks the tables, then takes the snapshot, so that it sees them as they stay.
///
/// # Errors
/// [`Error::Busy`] where migrations come in between again and again.
pub(super) async fn snapshot(
    client: &Client,
    admin: &AdminDb,
    tenant: TenantId,
) -> Result<(Tenant, Shape), Error> {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        if let Some(taken) = try_snapshot(client, admin, tenant).await? {
            return Ok(taken);
        }
    }
    Err(Error::Busy(format!("the schema of tenant `{tenant}`")))
}

/// None if a migration came in between.
async fn try_snapshot(
    client: &Client,
    admin: &AdminDb,
    tenant: TenantId,
) -> Result<Option<(Tenant, Shape)>, Error> {
    let schema = tenant.schema();
    let lock_ms = admin.limits.lock_timeout.as_millis().max(1);
    let settings = shape::settings(&admin.roles.owner(), schema, lock_ms);
    client.batch_execute(&format!("BEGIN; {settings}")).await.doing("begin a transaction")?;
    require_status(client, tenant).await?;
    shape::require_own_tables(client, tenant, &admin.roles.owner()).await?;
    let before = Shape::read(client, schema).await?;
    client.batch_execute("COMMIT").await.doing("end a transaction")?;
    let mut opening = format!("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; {settings}; ");
    if !before.tables.is_empty() {
        opening += &format!("LOCK TABLE {} IN ACCESS SHARE MODE; ", before.list(schema));
    }
    match client.batch_execute(&opening).await {
        Ok(()) => {}
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(Error::Busy(format!("the schema of tenant `{tenant}`")));
        }
        // Renamed or dropped since we looked.
        Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => return roll_back(client).await,
        Err(e) => return Err(e).doing("lock the tenant's tables"),
    }
    let row = require_status(client, tenant).await?;
    let shape = Shape::read(client, schema).await?;
    if shape == before { Ok(Some((row, shape))) } else { roll_back(client).await }
}

async fn roll_back<T>(client: &Client) -> Result<Option<T>, Error> {
    client.batch_execute("ROLLBACK").await.doing("end a transaction")?;
    Ok(None)
}

async fn require_status(db: &impl GenericClient, tenant: TenantId) -> Result<Tenant, Error> {
    let row = db
        .query_typed_opt(
            concat!(
                "SELECT ",
                tenant_columns!(),
                " FROM public.tenants WHERE id = $1 AND status <> 'ready'"
            ),
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("look up the tenant")?;
    let missing = || Error::TenantNotFound(TenantRef::Id(tenant));
    let row = Tenant::from_row(&row.ok_or_else(missing)?)?;
    match row.status {
        Status::Active | Status::Suspended | Status::Deleted => Ok(row),
        Status::Ready => Err(missing()),
        status @ (Status::Purging | Status::Purged) => {
            Err(Error::InvalidState { tenant, status, step: "exported" })
        }
    }
}

/// Where the tenant stands, if that forbids an export.
pub(super) async fn status(
    db: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<Status>, Error> {
    match require_status(db, tenant).await {
        Err(Error::InvalidState { status, .. }) => Ok(Some(status)),
        other => other.map(|_| None),
    }
}

/// Everything of the manifest that is known before the rows.
pub(super) async fn describe(
    db: &impl GenericClient,
    tenant: &Tenant,
    shape: &Shape,
    omit: &[OmittedColumn],
) -> Result<Manifest, Error> {
    let schema = tenant.schema().to_string();
    let now = db
        .query_typed_one(
            "SELECT now(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
                    (SELECT max(version) FROM public.migration_progress WHERE schema_name = $1)",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("look where the server stands")?;
    let exported_at: Timestamp = now.get(0);
    let applied = db
        .query_typed(
            "SELECT version, name, encode(checksum, 'hex'), encode(token_checksum, 'hex') FROM public.migrations
             WHERE schema_name = $1 ORDER BY version",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("read the migration ledger")?;
    let migrations = applied
        .iter()
        .map(|row| AppliedFile {
            version: row.get(0),
            name: row.get(1),
            checksum: row.get(2),
            token_checksum: row.get(3),
        })
        .collect();
    let (tables, omitted) = tables(shape, omit)?;
    let (format, format_version) = Manifest::format();
    let settings = tenant.settings.as_object().cloned().unwrap_or_default();
    Ok(Manifest {
        format,
        format_version,
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        tenant: ExportedTenant {
            id: tenant.id,
            name: tenant.name.clone(),
            subdomain: tenant.subdomain.clone(),
            tier: tenant.tier.clone(),
            settings,
            created_at: tenant.created_at,
        },
        exported_at,
        snapshot_lsn: now.get(1),
        schema_version: tenant.schema_version,
        half_way_to: now.get(2),
        migrations,
        csv: CsvForm::ours(),
        omitted,
        tables,
        sequences: shape.sequences(db).await?,
    })
}

fn tables(
    shape: &Shape,
    omit: &[OmittedColumn],
) -> Result<(Vec<ExportedTable>, Vec<String>), Error> {
    let mut used = vec![false; omit.len()];
    let mut tables = Vec::new();
    for (number, table) in shape.tables.iter().enumerate() {
        let mut columns = Vec::new();
        for column in &table.columns {
            let rule = omit.iter().position(|o| o.table == table.name && o.column == column.name);
            match rule {
                Some(rule) => used[rule] = true,
                None => columns.push(ExportedColumn {
                    name: column.name.clone(),
                    r#type: column.r#type.clone(),
                }),
            }
        }
        if columns.is_empty() {
            let why = "it has no column of its own that may leave";
            return Err(TransferError::Unexportable { table: table.name.clone(), why }.into());
        }
        tables.push(ExportedTable {
            name: table.name.clone(),
            file: file_of(&table.name, number + 1),
            rows: 0,
            bytes: 0,
            sha256: String::new(),
            columns,
        });
    }
    let (found, missed): (Vec<_>, Vec<_>) = omit.iter().zip(used).partition(|(_, used)| *used);
    for (rule, _) in missed {
        tracing::warn!(%rule, "`export.omit` names a column that this tenant does not have");
    }
    Ok((tables, found.into_iter().map(|(rule, _)| rule.to_string()).collect()))
}
