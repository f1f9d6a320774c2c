//! Where tenants stand: read from `public.tenants` alone, in one query for all.

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::rollout::Tenants;
use super::tenant::{Route, Standing};
use crate::error::{Doing, Error};

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
