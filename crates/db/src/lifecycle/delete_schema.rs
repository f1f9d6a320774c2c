//! Taking a tenant's schema away again, with all that belongs to it.

use serde_json::json;
use tokio_postgres::types::Type;

use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{TenantId, TenantRef};
use crate::models::audit::{self, Action, Actor};

/// Drops a tenant's schema and role and forgets its rows, in one transaction: afterwards the tenant
/// is absent. Irreversible, and without the retention and the proof that a purge gives.
///
/// Where somebody is using the tenant's row or tables, it waits for `migrations.lock_timeout`, then
/// fails and changes nothing.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::LegalHold`]; [`Error::Database`] if the tables are in use.
pub async fn delete_tenant_schema(
    admin: &AdminDb,
    tenant: TenantId,
    actor: &Actor,
) -> Result<(), Error> {
    let schema = tenant.schema();
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    let lock_timeout =
        format!("SET LOCAL lock_timeout = {}", admin.limits.lock_timeout.as_millis());
    tx.batch_execute(&lock_timeout).await.doing("set a lock timeout")?;
    let found = tx
        .query_typed_opt(
            "SELECT legal_hold FROM public.tenants WHERE id = $1 FOR UPDATE",
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("lock the tenant")?;
    match found.map(|row| row.get::<_, bool>(0)) {
        None => return Err(Error::TenantNotFound(TenantRef::Id(tenant))),
        Some(true) => return Err(Error::LegalHold(tenant)),
        Some(false) => {}
    }
    let statements = format!(
        "SET LOCAL ROLE {owner};
         DROP SCHEMA {schema} CASCADE;
         SET LOCAL ROLE NONE;
         SELECT {control}.drop_tenant_role('{tenant}');
         DELETE FROM public.migrations WHERE schema_name = '{schema}';
         DELETE FROM public.idempotency_keys WHERE tenant_id = '{tenant}';
         DELETE FROM public.tenants WHERE id = '{tenant}';",
        owner = admin.roles.owner(),
        control = admin.roles.control_schema(),
    );
    tx.batch_execute(&statements).await.doing(format!("drop schema and role `{schema}`"))?;
    audit::record(&tx, actor, Action::SchemaDeleted, tenant, &json!({})).await?;
    tx.commit().await.doing("commit the deletion")?;
    tracing::info!(tenant.id = %tenant, "tenant schema deleted");
    Ok(())
}
