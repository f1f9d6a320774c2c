//! `public.migrations`: which schema has which version, and whether that fits the files.

use serde_json::json;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::error::Schemas;
use super::plan::{self, Applied};
use super::{MigrationError, MigrationSet, SetKind};
use crate::error::{Doing, Error};
use crate::models::audit::{self, Action, Actor};

pub(super) async fn exists(db: &impl GenericClient) -> Result<bool, Error> {
    let row = db
        .query_typed_one("SELECT to_regclass('public.migrations') IS NOT NULL", &[])
        .await
        .doing("look for the migration ledger")?;
    Ok(row.get(0))
}

/// The schema's ledger entries. No ledger yet means none: the first public migration creates it.
pub(super) async fn applied_to(
    db: &impl GenericClient,
    schema: &str,
) -> Result<Vec<Applied>, Error> {
    if !exists(db).await? {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "SELECT version, name, checksum, token_checksum FROM public.migrations
             WHERE schema_name = $1 ORDER BY version",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("read the migration ledger")?;
    Ok(rows.iter().map(|row| applied(row, Schemas::one(schema))).collect())
}

fn applied(row: &Row, schemas: Schemas) -> Applied {
    Applied {
        version: row.get(0),
        name: row.get(1),
        checksum: row.get(2),
        token_checksum: row.get(3),
        schemas,
    }
}

/// What the tenants have, those together that have the same.
pub(super) async fn applied_to_tenants(db: &impl GenericClient) -> Result<Vec<Applied>, Error> {
    let rows = db
        .query_typed(
            "SELECT m.version, m.name, m.checksum, m.token_checksum, count(*),
                    (array_agg(coalesce(t.subdomain, m.schema_name) ORDER BY t.created_at))[1:5]
             FROM public.migrations m
             JOIN public.tenants t ON m.schema_name = 'tenant_' || replace(t.id::text, '-', '')
             WHERE t.status NOT IN ('purging', 'purged')
             GROUP BY m.version, m.name, m.checksum, m.token_checksum ORDER BY m.version",
            &[],
        )
        .await
        .doing("read the migration ledger")?;
    let schemas = |row: &Row| Schemas { count: row.get(4), named: row.get(5) };
    Ok(rows.iter().map(|row| applied(row, schemas(row))).collect())
}

/// The newest version that was applied, 0 for none.
pub(super) fn newest(applied: &[Applied]) -> i64 {
    applied.iter().map(|entry| entry.version).max().unwrap_or(0)
}

/// Compares the ledger of all tenants with the files, in two queries however many there are. Yields a
/// remark for each file that was changed in comments and white space only.
///
/// # Errors
/// [`Error::Migration`] where an applied file was changed or is gone, or a new one was put before
/// the newest applied.
pub(super) async fn check_tenants(
    db: &impl GenericClient,
    set: &MigrationSet,
) -> Result<Vec<String>, Error> {
    let applied = applied_to_tenants(db).await?;
    plan::require_unchanged(set, &applied)?;
    require_order(db, set, &applied).await?;
    Ok(remarks(set, &applied))
}

pub(super) fn remarks(set: &MigrationSet, applied: &[Applied]) -> Vec<String> {
    let remark = |m: &super::Migration| {
        format!(
            "`{}` was changed in comments or white space since it was applied; that does no harm",
            m.up.file
        )
    };
    plan::touched(set, applied).into_iter().map(remark).collect()
}

/// Every tenant has all versions up to its own.
async fn require_order(
    db: &impl GenericClient,
    set: &MigrationSet,
    applied: &[Applied],
) -> Result<(), Error> {
    let rows = db
        .query_typed(
            "SELECT schema_version, count(*) FROM public.tenants
             WHERE status NOT IN ('purging', 'purged') GROUP BY schema_version",
            &[],
        )
        .await
        .doing("count tenants by version")?;
    let standing: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for migration in set.migrations() {
        let has = |entry: &&Applied| entry.version == migration.version;
        let have: i64 = applied.iter().filter(has).map(|entry| entry.schemas.count).sum();
        let reached = |at: &&(i64, i64)| at.0 >= migration.version;
        let should: i64 = standing.iter().filter(reached).map(|at| at.1).sum();
        if have < should {
            // Counted in two queries: a tenant may have come or gone in between, hence the second look.
            if let Some((head, schemas)) = lacking(db, migration.version).await? {
                let file = migration.up.file.clone();
                return Err(MigrationError::OutOfOrder { file, head, schemas }.into());
            }
        }
    }
    Ok(())
}

async fn lacking(db: &impl GenericClient, version: i64) -> Result<Option<(i64, Schemas)>, Error> {
    let row = db
        .query_typed_one(
            "SELECT max(t.schema_version), count(*),
                    (array_agg(coalesce(t.subdomain, t.id::text) ORDER BY t.created_at))[1:5]
             FROM public.tenants t
             WHERE t.status NOT IN ('purging', 'purged') AND t.schema_version >= $1
               AND NOT EXISTS (SELECT FROM public.migrations m WHERE m.version = $1
                     AND m.schema_name = 'tenant_' || replace(t.id::text, '-', ''))",
            &[(&version, Type::INT8)],
        )
        .await
        .doing("look which tenants lack a migration")?;
    let count: i64 = row.get(1);
    Ok((count > 0).then(|| (row.get(0), Schemas { count, named: row.get(2) })))
}

/// Records the files as they are now for versions whose files were changed, with an audit entry for
/// each. Yields how many entries were changed.
pub(super) async fn repair(
    tx: &impl GenericClient,
    set: &MigrationSet,
    actor: &Actor,
) -> Result<u64, Error> {
    let is_public = set.kind() == SetKind::Public;
    let mut all = 0;
    for migration in set.migrations() {
        let changed = tx
            .execute_typed(
                "UPDATE public.migrations SET name = $3, checksum = $4, token_checksum = $5
                 WHERE version = $1 AND (schema_name = 'public') = $2
                   AND (checksum <> $4 OR token_checksum <> $5 OR name <> $3)",
                &[
                    (&migration.version, Type::INT8),
                    (&is_public, Type::BOOL),
                    (&migration.name, Type::TEXT),
                    (&migration.checksum.as_slice(), Type::BYTEA),
                    (&migration.token_checksum.as_slice(), Type::BYTEA),
                ],
            )
            .await
            .doing("record a file's new checksum")?;
        if changed > 0 {
            let details = json!({
                "set": set.kind().to_string(), "version": migration.version, "schemas": changed,
                "checksum": data_encoding::HEXLOWER.encode(&migration.checksum),
            });
            audit::record_of_installation(tx, actor, Action::ChecksumRepaired, &details).await?;
        }
        all += changed;
    }
    Ok(all)
}
