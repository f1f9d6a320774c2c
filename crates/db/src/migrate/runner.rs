//! Bringing one schema to head: each migration and its ledger entry in one transaction of its own.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::{Applied, Batch, Migration, MigrationSet, Migrations, pending};
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{TenantId, TenantRef};

/// A migration that was just applied.
#[derive(Debug, Clone)]
pub struct AppliedNow {
    /// The version.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}

/// Brings the public schema to head, or to `to`. Calls `progress` after each migration.
///
/// # Errors
/// [`Error::Busy`] if another runner is at it, [`Error::Migration`] with what stands against it.
/// What was applied before the error stays.
pub async fn migrate_public(
    admin: &AdminDb,
    set: &MigrationSet,
    to: Option<i64>,
    mut progress: impl FnMut(&AppliedNow),
) -> Result<Vec<AppliedNow>, Error> {
    let mut db = admin.connection().await?;
    let mut done = Vec::new();
    loop {
        let tx = begin(&mut db).await?;
        lock_public(&tx, admin).await?;
        let applied = applied_to(&tx, "public").await?;
        let Some(migration) = next(set, &applied, "public", to)? else {
            return Ok(done);
        };
        let batch = Batch::public(migration, &admin.roles, &admin.limits);
        let now = apply(tx, &batch, migration, "public").await?;
        progress(&now);
        done.push(now);
    }
}

/// Brings one tenant to head, or to `to`. Calls `progress` after each migration.
///
/// # Errors
/// [`Error::TenantNotFound`] for one that does not exist or is purged; [`Error::Behind`] if the public
/// schema, which tenants' files may rely on, lacks a migration; else as [`migrate_public`].
pub async fn migrate_tenant(
    admin: &AdminDb,
    migrations: &Migrations,
    tenant: TenantId,
    to: Option<i64>,
    mut progress: impl FnMut(&AppliedNow),
) -> Result<Vec<AppliedNow>, Error> {
    let mut db = admin.connection().await?;
    let schema = tenant.schema().to_string();
    let set = &migrations.tenant;
    let mut done = Vec::new();
    let tx = begin(&mut db).await?;
    require_public_head(&tx, &migrations.public).await?;
    drop(tx);
    loop {
        let tx = begin(&mut db).await?;
        lock_tenant(&tx, tenant).await?;
        let applied = applied_to(&tx, &schema).await?;
        let Some(migration) = next(set, &applied, &schema, to)? else {
            return Ok(done);
        };
        set_schema_version(&tx, tenant, migration.version).await?;
        let batch = Batch::tenant(migration, tenant.schema(), &admin.roles, &admin.limits);
        let now = apply(tx, &batch, migration, &schema).await?;
        progress(&now);
        done.push(now);
    }
}

/// Refuses to go on where the public schema is below its set's head. Above it is fine: a newer
/// program may have migrated while this one still runs.
pub(crate) async fn require_public_head(
    tx: &impl GenericClient,
    public: &MigrationSet,
) -> Result<(), Error> {
    let needed = public.head();
    let found =
        applied_to(tx, "public").await?.iter().map(|entry| entry.version).max().unwrap_or(0);
    if found < needed {
        return Err(Error::Behind { set: public.kind(), found, needed });
    }
    Ok(())
}

/// Writes ledger entries for migrations that the same transaction applied.
pub(crate) async fn record(
    tx: &impl GenericClient,
    schema: &str,
    migrations: &[Migration],
) -> Result<(), Error> {
    let versions: Vec<i64> = migrations.iter().map(|m| m.version).collect();
    let names: Vec<&str> = migrations.iter().map(|m| m.name.as_str()).collect();
    let checksums: Vec<&[u8]> = migrations.iter().map(|m| m.checksum.as_slice()).collect();
    let token_checksums: Vec<&[u8]> =
        migrations.iter().map(|m| m.token_checksum.as_slice()).collect();
    tx.execute_typed(
        "INSERT INTO public.migrations (schema_name, version, name, checksum, token_checksum, duration_ms)
         SELECT $1, u.version, u.name, u.checksum, u.token_checksum,
                (extract(epoch FROM clock_timestamp() - now()) * 1000)::integer
         FROM unnest($2::bigint[], $3::text[], $4::bytea[], $5::bytea[])
              AS u (version, name, checksum, token_checksum)",
        &[
            (&schema, Type::TEXT),
            (&versions, Type::INT8_ARRAY),
            (&names, Type::TEXT_ARRAY),
            (&checksums, Type::BYTEA_ARRAY),
            (&token_checksums, Type::BYTEA_ARRAY),
        ],
    )
    .await
    .doing("write the migration ledger")?;
    Ok(())
}

fn next<'a>(
    set: &'a MigrationSet,
    applied: &[Applied],
    schema: &str,
    to: Option<i64>,
) -> Result<Option<&'a Migration>, Error> {
    let pending = pending(set, applied, schema)?;
    Ok(pending.first().copied().filter(|m| to.is_none_or(|to| m.version <= to)))
}

async fn apply(
    tx: Transaction<'_>,
    batch: &Batch<'_>,
    migration: &Migration,
    schema: &str,
) -> Result<AppliedNow, Error> {
    let started = Instant::now();
    batch.send(&tx).await?;
    record(&tx, schema, std::slice::from_ref(migration)).await?;
    tx.commit().await.doing(format!("commit `{}` in `{schema}`", migration.up.file))?;
    let took = started.elapsed();
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        db.schema = schema,
        migration.version = migration.version,
        duration_ms,
        "migration applied"
    );
    Ok(AppliedNow { version: migration.version, name: migration.name.clone(), took })
}

/// One runner at a time. It never waits inside PostgreSQL: a waiting backend holds a snapshot, and
/// CREATE INDEX CONCURRENTLY elsewhere would wait for that.
async fn lock_public(tx: &Transaction<'_>, admin: &AdminDb) -> Result<(), Error> {
    let key = format!("{}:migrate:public", admin.roles);
    let row = tx
        .query_typed_one(
            "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))",
            &[(&key, Type::TEXT)],
        )
        .await
        .doing("lock the public migrations")?;
    if row.get::<_, bool>(0) { Ok(()) } else { Err(Error::Busy("the public schema".to_owned())) }
}

async fn lock_tenant(tx: &Transaction<'_>, tenant: TenantId) -> Result<(), Error> {
    let locked = tx
        .query_typed_opt(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $2) FROM public.tenants
             WHERE id = $1 AND status NOT IN ('purging', 'purged') FOR UPDATE NOWAIT",
            &[(tenant.as_uuid(), Type::UUID), (&tenant.schema().to_string(), Type::TEXT)],
        )
        .await;
    match locked {
        Ok(Some(row)) if row.get(0) => Ok(()),
        // With the schema gone, the next in the path would take the tables: `public`.
        Ok(Some(_)) => Err(Error::SchemaMissing(tenant.schema())),
        Ok(None) => Err(Error::TenantNotFound(TenantRef::Id(tenant))),
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(Error::Busy(format!("tenant `{tenant}`")))
        }
        Err(e) => Err(e).doing("lock the tenant"),
    }
}

async fn set_schema_version(
    tx: &Transaction<'_>,
    tenant: TenantId,
    version: i64,
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.tenants SET schema_version = $2 WHERE id = $1",
        &[(tenant.as_uuid(), Type::UUID), (&version, Type::INT8)],
    )
    .await
    .doing("record the tenant's schema version")?;
    Ok(())
}

/// The schema's ledger entries. No ledger yet means none: the first public migration creates it.
pub(super) async fn applied_to(
    db: &impl GenericClient,
    schema: &str,
) -> Result<Vec<Applied>, Error> {
    let exists = db
        .query_typed_one("SELECT to_regclass('public.migrations') IS NOT NULL", &[])
        .await
        .doing("look for the migration ledger")?;
    if !exists.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "SELECT version, name, token_checksum FROM public.migrations
             WHERE schema_name = $1 ORDER BY version",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("read the migration ledger")?;
    Ok(rows
        .iter()
        .map(|row| Applied { version: row.get(0), name: row.get(1), token_checksum: row.get(2) })
        .collect())
}
