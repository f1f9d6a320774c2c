//! Where tenants stand: read from `public.tenants` alone, in one query for all.

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::rollout::Tenants;
use super::session::Session;
use super::tenant::Route;
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// Where a tenant stands.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) id: TenantId,
    pub(super) subdomain: Option<String>,
    pub(super) version: i64,
    pub(super) repeatables: Vec<u8>,
}

/// The tenants that have some way to go, oldest first.
pub(super) async fn concerned(
    db: &impl GenericClient,
    route: Route<'_>,
    tenants: &Tenants,
) -> Result<Vec<Standing>, Error> {
    let mut standing = all(db, tenants).await?;
    standing.retain(|standing| route.concerns(standing));
    Ok(standing)
}

/// All tenants that have a schema, or those named, oldest first.
pub(super) async fn all(
    db: &impl GenericClient,
    tenants: &Tenants,
) -> Result<Vec<Standing>, Error> {
    let only: Option<Vec<Uuid>> = match tenants {
        Tenants::All => None,
        Tenants::Only(ids) => Some(ids.iter().map(|id| *id.as_uuid()).collect()),
        Tenants::None => return Ok(Vec::new()),
    };
    let rows = db
        .query_typed(
            "SELECT id, subdomain, schema_version, repeatable_digest FROM public.tenants
             WHERE status NOT IN ('purging', 'purged') AND ($1::uuid[] IS NULL OR id = ANY ($1))
             ORDER BY created_at, id",
            &[(&only, Type::UUID_ARRAY)],
        )
        .await
        .doing("read where the tenants stand")?;
    let standing = |row: &Row| Standing {
        id: row.get::<_, Uuid>(0).into(),
        subdomain: row.get(1),
        version: row.get(2),
        repeatables: row.get(3),
    };
    Ok(rows.iter().map(standing).collect())
}

/// Reads where a tenant stands; `None` for one that is being purged, or gone.
pub(super) async fn look(session: &Session, tenant: TenantId) -> Result<Option<Standing>, Error> {
    let row = session
        .client()
        .query_typed_opt(
            "SELECT subdomain, schema_version, repeatable_digest,
                    EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $2)
             FROM public.tenants WHERE id = $1 AND status NOT IN ('purging', 'purged')",
            &[(tenant.as_uuid(), Type::UUID), (&tenant.schema().to_string(), Type::TEXT)],
        )
        .await
        .doing("read where the tenant stands")?;
    let Some(row) = row else { return Ok(None) };
    if !row.get::<_, bool>(3) {
        return Err(Error::SchemaMissing(tenant.schema()));
    }
    Ok(Some(Standing {
        id: tenant,
        subdomain: row.get(0),
        version: row.get(1),
        repeatables: row.get(2),
    }))
}
