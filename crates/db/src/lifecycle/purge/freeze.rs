//! Freezing: afterwards nobody adds anything to the tenant's schemas.
//!
//! PostgreSQL lets a transaction create a function or a type in a schema that another one drops, and then
//! its catalog rows point to nothing: every pg_dump of the database fails. So membership and rights go
//! first, and the schema gets another name, which nobody knows; then all transactions that could have begun
//! with the old one are waited for. What lanes began is ended when it takes too long. Other people's
//! transactions are never ended: the purge says whom it waits for, and goes on another time.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::blockers::{self, Blocker};
use super::session::PurgeSession;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::{ErasureError, access};
use crate::models::{purges, tenants};
use crate::operate::{close_shells_of, end_sessions};

/// Yields how many transactions of lanes were ended.
pub(super) async fn freeze(session: &mut PurgeSession<'_>) -> Result<u64, Error> {
    let (admin, tenant) = (session.admin, session.tenant);
    let (schema, copies) = session.names();
    let tx = session.begin_dropping().await?;
    let row = tenants::lock(&tx, tenant).await?;
    let mut lanes = access::revoke(&tx, &admin.roles, tenant, None).await?;
    let shells = close_shells_of(&tx, &admin.roles, tenant).await?;
    access::require_nobody(&tx, &admin.roles, tenant).await?;
    end_sessions(&tx, &shells).await?;
    lanes.push(row.lane);
    tx.batch_execute(&format!("SET LOCAL ROLE {}", admin.roles.owner()))
        .await
        .doing("act as the owner")?;
    close(&tx, admin, tenant, &schema, &copies).await?;
    tx.batch_execute("SET LOCAL ROLE NONE").await.doing("act as the admin")?;
    inventory(&tx, tenant, &schema, &copies).await?;
    tx.commit().await.doing("commit the freeze")?;
    let ended = access::settle(admin, &lanes).await?;
    wait(session, &schema, &copies).await?;
    Ok(ended as u64)
}

/// Takes everybody's rights on the schemas, and gives the tenant's another name.
async fn close(
    tx: &Transaction<'_>,
    admin: &AdminDb,
    tenant: TenantId,
    schema: &str,
    copies: &str,
) -> Result<(), Error> {
    let statements = tx
        .query_typed(
            "SELECT format('REVOKE ALL ON SCHEMA %I FROM %s CASCADE', n.nspname,
                           CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
             FROM pg_namespace n, LATERAL (SELECT DISTINCT grantee FROM aclexplode(n.nspacl)) a
             WHERE (n.nspname = $1 OR starts_with(n.nspname, $2)) AND a.grantee <> n.nspowner
             UNION ALL
             SELECT format('ALTER SCHEMA %I RENAME TO %I', $1, $2 || 'purging')
             WHERE EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)
               AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = $2 || 'purging')",
            &[(&schema, Type::TEXT), (&copies, Type::TEXT)],
        )
        .await
        .doing("look at the tenant's schemas")?;
    for row in statements {
        tx.batch_execute(row.get(0)).await.doing("close the tenant's schemas")?;
    }
    // A REVOKE of what somebody else granted may do nothing and only warn.
    let left = tx
        .query_typed(
            "SELECT r.rolname::text FROM pg_namespace n, pg_roles r
             WHERE (n.nspname = $1 OR starts_with(n.nspname, $2))
               AND NOT r.rolsuper AND has_schema_privilege(r.oid, n.oid, 'CREATE')
               AND NOT pg_has_role(r.oid, n.nspowner, 'MEMBER')
               AND NOT pg_has_role(r.oid, $3::text::regrole, 'MEMBER')
             ORDER BY 1",
            &[(&schema, Type::TEXT), (&copies, Type::TEXT), (&admin.roles.owner(), Type::TEXT)],
        )
        .await
        .doing("look who could add to the tenant's schemas")?;
    if left.is_empty() {
        return Ok(());
    }
    let members = left.iter().map(|row| row.get(0)).collect();
    Err(Error::StillReachable { tenant, members })
}

/// Notes what there is, before anything of it goes: for the report, and to find what points to it later.
async fn inventory(
    tx: &impl GenericClient,
    tenant: TenantId,
    schema: &str,
    copies: &str,
) -> Result<(), Error> {
    let row = tx
        .query_typed_one(
            "WITH spaces AS (
                 SELECT oid, nspname FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $2)
             ), relations AS (
                 SELECT c.relkind, greatest(c.reltuples, 0) AS rows, c.relpages, t.relpages AS toast_pages
                 FROM spaces s
                 JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
                 JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
                 LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
             )
             SELECT (SELECT coalesce(array_agg(oid ORDER BY oid), '{}') FROM spaces),
                    (SELECT count(*) FROM spaces WHERE nspname NOT IN ($1, $2 || 'purging')),
                    count(*) FILTER (WHERE relkind IN ('r', 'p', 'f')),
                    coalesce(sum(rows) FILTER (WHERE relkind = 'r'), 0)::float8,
                    coalesce(sum(relpages::bigint + coalesce(toast_pages, 0)), 0)::bigint
                        * current_setting('block_size')::bigint,
                    (SELECT count(*) FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner
                      WHERE r.rolname = $1)
             FROM relations",
            &[(&schema, Type::TEXT), (&copies, Type::TEXT)],
        )
        .await
        .doing("look what the tenant has")?;
    let existed = json!({
        "copies": row.get::<_, i64>(1),
        "tables": row.get::<_, i64>(2),
        "rows_estimate": row.get::<_, f64>(3),
        "bytes_estimate": row.get::<_, i64>(4),
        "large_objects": row.get::<_, i64>(5),
    });
    purges::set_existed(tx, tenant, &existed).await?;
    purges::add_schema_oids(tx, tenant, &row.get::<_, Vec<u32>>(0)).await
}

/// Waits for the transactions that are older than the freeze and could have added something, as long as
/// for those of lanes.
async fn wait(session: &PurgeSession<'_>, schema: &str, copies: &str) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(50);
    let owner = session.admin.roles.owner();
    let older = blockers::that_could_create(&session.client, &owner).await?;
    let deadline = tokio::time::Instant::now() + session.admin.settle_timeout;
    loop {
        let now = blockers::that_could_create(&session.client, &owner).await?;
        let left: Vec<&Blocker> = older.iter().filter(|blocker| now.contains(blocker)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            let mut by: Vec<String> = left.iter().map(ToString::to_string).collect();
            let holders = blockers::that_hold_locks(&session.client, schema, copies).await?;
            by.extend(
                holders.iter().filter(|holder| !left.contains(holder)).map(ToString::to_string),
            );
            return Err(ErasureError::Blocked { tenant: session.tenant, by }.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
