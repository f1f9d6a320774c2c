//! Importing an archive: a new tenant with the archive's rows, all in one transaction.
//!
//! The schema is built at the archive's version by the files of this installation, the rows are loaded, and
//! then it is migrated to head, as every other tenant was. Whatever is wrong with the archive, the
//! transaction is rolled back: the tenant is whole or absent (invariant 5), and nobody has seen it.

use serde_json::json;
use tokio_postgres::Transaction;

use super::load::{self, Loading};
use super::manifest::Manifest;
use super::shape::{self, Shape};
use super::snapshot::snapshot;
use super::{Archive, TransferError, TransferProgress};
use crate::config::Config;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::create::{NewTenant, insert_new, role_and_schema};
use crate::migrate::{self, Migrations};
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::Tenant;

/// Whom an archive becomes. What is not given is as in the archive.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportAs<'a> {
    /// The display name.
    pub name: Option<&'a str>,
    /// The unique human name. The archive's own must be free.
    pub subdomain: Option<&'a str>,
    /// What it books.
    pub tier: Option<&'a str>,
}

/// What an import made.
#[derive(Debug)]
pub struct Imported {
    /// The new tenant.
    pub tenant: Tenant,
    /// Whose data it was.
    pub source: TenantId,
    /// The version at which the rows were loaded.
    pub from_version: i64,
    /// How many rows.
    pub rows: u64,
}

/// Imports an archive into a new tenant with a new id. Calls `progress` as rows are loaded.
///
/// Cancel-safe: a dropped call leaves a whole tenant or none.
///
/// # Errors
/// [`TransferError`] with what is wrong with the archive: nothing was imported then. As `create_tenant` for
/// the rest: [`Error::InvalidTenant`], [`Error::SubdomainTaken`], [`Error::Behind`], [`Error::Busy`].
pub async fn import_tenant(
    admin: &AdminDb,
    config: &Config,
    migrations: &Migrations,
    archive: Archive,
    wanted: ImportAs<'_>,
    actor: &Actor,
    mut progress: impl FnMut(&TransferProgress<'_>) + Send,
) -> Result<Imported, Error> {
    let manifest = archive.manifest().clone();
    manifest.require_migrations(&migrations.tenant)?;
    let new = new_tenant(config, &manifest, wanted)?;
    let mut client = admin.session().await?;
    let tx = client.transaction().await.doing("begin a transaction")?;
    let (tenant, shape) = build(&tx, admin, migrations, &new, manifest.schema_version).await?;
    let id = tenant.id;
    fits(&manifest, &shape)?;
    let loading = Loading { tx: &tx, tenant: id, manifest: &manifest, shape: &shape };
    load::load(&loading, archive, &mut progress).await?;
    let rest = migrations.tenant.after(manifest.schema_version);
    migrate::fill_new_schema(tx.client(), admin, &rest, id, "").await?;
    let details = json!({
        "source_tenant_id": manifest.tenant.id,
        "exported_at": manifest.exported_at,
        "archive_version": manifest.schema_version,
        "schema_version": migrations.tenant.head(),
        "tier": tenant.tier,
        "rows": manifest.rows(),
    });
    audit::record(&tx, actor, Action::Imported, id, &details).await?;
    tx.commit().await.doing("commit the import")?;
    tracing::info!(tenant.id = %id, rows = manifest.rows(), "tenant imported");
    let (source, from_version) = (manifest.tenant.id, manifest.schema_version);
    Ok(Imported { tenant, source, from_version, rows: manifest.rows() })
}

/// The new tenant, with its tables as the files make them at a version, and no rows yet.
async fn build(
    tx: &Transaction<'_>,
    admin: &AdminDb,
    migrations: &Migrations,
    new: &NewTenant,
    version: i64,
) -> Result<(Tenant, Shape), Error> {
    let tenant = insert_new(tx, admin, migrations, new).await?;
    let schema = tenant.schema();
    let built = migrations.tenant.up_to(version);
    let making = role_and_schema(schema, tenant.lane, &admin.roles);
    migrate::fill_new_schema(tx.client(), admin, &built, tenant.id, &making).await?;
    let lock_ms = admin.limits.lock_timeout.as_millis().max(1);
    let settings = shape::settings(&admin.roles.owner(), schema, lock_ms);
    tx.batch_execute(&settings).await.doing("prepare the import")?;
    let shape = Shape::read(tx, schema).await?;
    Ok((tenant, shape))
}

/// Refuses a tenant that has now what no migration made, and a subdomain that can't be had: an import of its
/// earlier state would be refused for it, after a copy of the whole server. What it lacks now, it may have had.
/// Changes nothing.
///
/// # Errors
/// [`TransferError::MadeByHand`] and [`TransferError::Unexportable`]; [`Error::InvalidTenant`],
/// [`Error::SubdomainTaken`], [`Error::Behind`], [`Error::Busy`].
pub async fn require_importable(
    admin: &AdminDb,
    config: &Config,
    migrations: &Migrations,
    tenant: &Tenant,
    subdomain: &str,
) -> Result<(), Error> {
    let new = NewTenant::new(config, &tenant.name, subdomain, None, serde_json::Map::new())?;
    let mut client = admin.session().await?;
    let (row, shape) = snapshot(&client, admin, tenant.id).await?;
    client.batch_execute("ROLLBACK").await.doing("end a transaction")?;
    let tx = client.transaction().await.doing("begin a transaction")?;
    let (_, made) = build(&tx, admin, migrations, &new, row.schema_version).await?;
    tx.rollback().await.doing("end a transaction")?;
    match shape.beyond(&made) {
        Some(what) => Err(TransferError::MadeByHand { tenant: tenant.id, what }.into()),
        None => Ok(()),
    }
}

/// Whom it becomes, by the same rules as for a sign-up.
fn new_tenant(
    config: &Config,
    manifest: &Manifest,
    wanted: ImportAs<'_>,
) -> Result<NewTenant, Error> {
    let was = &manifest.tenant;
    let name = wanted.name.unwrap_or(&was.name);
    let subdomain = wanted.subdomain.or(was.subdomain.as_deref()).unwrap_or_default();
    let tier = wanted.tier.unwrap_or(&was.tier);
    NewTenant::new(config, name, subdomain, Some(tier), was.settings.clone())
}

/// Whether each table of the archive is one of the schema's, with the same columns, and none is lacking.
fn fits(manifest: &Manifest, shape: &Shape) -> Result<(), TransferError> {
    let other = |what: String| Err(TransferError::OtherShape(what));
    for table in &manifest.tables {
        let name = crate::ids::excerpt(&table.name);
        let Some(here) = shape.tables.iter().find(|here| here.name == table.name) else {
            return other(format!("version {} has no table `{name}`", manifest.schema_version));
        };
        for column in &table.columns {
            let shown = crate::ids::excerpt(&column.name);
            match here.columns.iter().find(|known| known.name == column.name) {
                None => return other(format!("table `{name}` has no column `{shown}`")),
                Some(known) if known.r#type != column.r#type => {
                    let found = crate::ids::excerpt(&column.r#type);
                    return other(format!(
                        "column `{shown}` of table `{name}` is `{}`, in the archive `{found}`",
                        known.r#type
                    ));
                }
                Some(_) => {}
            }
        }
        for known in &here.columns {
            if table.columns.iter().any(|column| column.name == known.name) {
                continue;
            }
            let omitted = format!("{name}.{}", known.name);
            if !manifest.omitted.contains(&omitted) {
                return other(format!("column `{omitted}` is not in the archive"));
            }
            if !known.optional {
                return other(format!(
                    "column `{omitted}` was left out of the archive, and no row can be without it"
                ));
            }
        }
    }
    let known = |name: &str| manifest.tables.iter().any(|table| table.name == name);
    if let Some(table) = shape.tables.iter().find(|table| !known(&table.name)) {
        return other(format!("table `{}` is not in the archive", table.name));
    }
    let said: Vec<&str> = manifest.sequences.iter().map(|s| s.name.as_str()).collect();
    let lacking = shape.sequence_names().find(|name| !said.contains(name));
    let unknown = said.iter().find(|name| shape.sequence(name).is_none());
    match (lacking, unknown) {
        (Some(name), _) => other(format!("sequence `{name}` is not in the archive")),
        (None, Some(name)) => {
            let name = crate::ids::excerpt(name);
            other(format!("version {} has no sequence `{name}`", manifest.schema_version))
        }
        (None, None) => Ok(()),
    }
}
