//! Freezing: afterwards nobody adds anything to the tenant's schemas.
//!
//! PostgreSQL lets a transaction create a function or a type in a schema that another one drops, and then
//! its catalog rows point to nothing: every pg_dump of the database fails. So membership and rights go
//! first, and the schema gets another name, which nobody knows; then all transactions that could have begun
//! with the old one are waited for. What lanes began is ended when it takes too long. Other people's
//! transactions are never ended: the purge says whom it waits for, and goes on another time.

use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::blockers::{self, Blocker};
use super::inventory;
use super::session::PurgeSession;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::{ErasureError, access};
use crate::models::tenants;

/// Yields how many transactions of lanes were ended.
pub(super) async fn freeze(session: &mut PurgeSession<'_>) -> Result<u64, Error> {
    let (admin, tenant) = (session.admin, session.tenant);
    let (schema, copies) = session.names();
    let tx = session.begin_dropping().await?;
    let row = tenants::lock(&tx, tenant).await?;
    let mut lanes = access::shut_out(&tx, &admin.roles, tenant).await?.lanes;
    lanes.push(row.lane);
    tx.batch_execute(&format!("SET LOCAL ROLE {}", admin.roles.owner()))
        .await
        .doing("act as the owner")?;
    close(&tx, admin, tenant, &schema, &copies).await?;
    tx.batch_execute("SET LOCAL ROLE NONE").await.doing("act as the admin")?;
    inventory::note(&tx, tenant, &schema, &copies).await?;
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
