//! The earlier state, in a copy of the database that nobody reaches: found there, brought forward, and given
//! the name under which it is loaded.
//!
//! Brought forward before it is renamed: what a migration calls by the tenant's name is then the schema that it
//! belongs to, and in the wrong case only the copy's.

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_postgres::types::Type;

use super::{BringBackError, size_of};
use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{CopyName, TenantId};
use crate::migrate::{
    Direction, Migrations, Rollout, RolloutOptions, Stop, Tenants, migrate_public,
};
use crate::models::audit::Actor;
use crate::models::kept_schemas::{self, Standing};
use crate::models::tenants::Tenant;

/// A tenant as it was, ready to be read from the copy.
#[derive(Debug)]
pub struct Earlier {
    pub(super) copy: AdminDb,
    pub(super) tenant: TenantId,
    pub(super) standing: Standing,
    /// The version that it had at the moment.
    pub from_version: i64,
    /// What it takes on disk.
    pub bytes: u64,
}

impl Earlier {
    /// The name that its schema has now in the copy.
    pub fn schema(&self) -> String {
        CopyName::Restoring(self.tenant).to_string()
    }
}

/// Brings the tenant's earlier state to the version that the tenant is at now, in the copy.
///
/// # Errors
/// [`BringBackError::NotThen`], [`BringBackError::Ahead`], [`BringBackError::NotForward`]; those of migrations.
pub async fn bring_forward(
    copy: &Config,
    migrations: &Migrations,
    tenant: &Tenant,
    moment: Option<Timestamp>,
    actor: &Actor,
) -> Result<Earlier, Error> {
    let admin = AdminDb::new(copy)?;
    let (id, to) = (tenant.id, tenant.schema_version);
    let from_version =
        find(&admin, id).await?.ok_or(BringBackError::NotThen { tenant: id, moment })?;
    if from_version > to {
        return Err(BringBackError::Ahead { tenant: id, then: from_version, now: to }.into());
    }
    // The ledger there may have the columns of an older program.
    migrate_public(&admin, &migrations.public, None, |_| {}).await?;
    let options = RolloutOptions {
        direction: Direction::Up { to: Some(to) },
        public: false,
        tenants: Tenants::Only(vec![id]),
        // Checksums may have been repaired since.
        repair: true,
        lint: false,
        ..RolloutOptions::to_head(&copy.migrations)
    };
    let rollout = Rollout { admin: &admin, migrations, actor, options: &options };
    let (_never, stop) = watch::channel(Stop::Go);
    let report = rollout.run(stop, |_| {}).await?;
    if let Some(error) = report.error {
        return Err(error);
    }
    let standing = {
        let db = admin.connection().await?;
        kept_schemas::standing_of(&**db, id).await?
    };
    if standing.version != to || !report.failures.is_empty() {
        let why = report.failures.first().map(|failure| failure.message.clone());
        let reason = why.unwrap_or_else(|| format!("it came to version {}", standing.version));
        return Err(BringBackError::NotForward { tenant: id, to, reason }.into());
    }
    let bytes = rename(&admin, id).await?;
    Ok(Earlier { copy: admin, tenant: id, standing, from_version, bytes })
}

/// Its version, if it was there and whole.
async fn find(admin: &AdminDb, tenant: TenantId) -> Result<Option<i64>, Error> {
    let db = admin.connection().await?;
    let row = db
        .query_typed_opt(
            "SELECT t.schema_version FROM public.tenants t
             JOIN pg_namespace n ON n.nspname = $2
             WHERE t.id = $1 AND t.status IN ('active', 'suspended', 'deleted')",
            &[(tenant.as_uuid(), Type::UUID), (&tenant.schema().to_string(), Type::TEXT)],
        )
        .await
        .doing("look for the tenant in the copy")?;
    Ok(row.map(|row| row.get(0)))
}

async fn rename(admin: &AdminDb, tenant: TenantId) -> Result<u64, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    let (owner, schema, name) = (admin.roles.owner(), tenant.schema(), CopyName::Restoring(tenant));
    tx.batch_execute(&format!("SET LOCAL ROLE {owner}; ALTER SCHEMA {schema} RENAME TO {name}"))
        .await
        .doing("rename the schema in the copy")?;
    let bytes = size_of(&tx, &name.to_string()).await?;
    tx.commit().await.doing("commit the new name in the copy")?;
    Ok(bytes)
}
