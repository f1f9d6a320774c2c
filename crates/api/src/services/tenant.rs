//! Tenants' life, as the service offers it.

use tenantry_db::lifecycle::{self, NewTenant, TenantChange};
use tenantry_db::models::audit::Actor;
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Error, Installation, TenantId};

/// Creates a tenant, whole, and makes it routable here at once, also if somebody asked for it
/// before it was there.
///
/// # Errors
/// As [`lifecycle::create_tenant`].
pub(crate) async fn create_tenant(
    installation: &Installation,
    new: &NewTenant,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let tenant =
        lifecycle::create_tenant(installation.admin(), installation.migrations(), new, actor)
            .await?;
    installation.directory().learn(&tenant).await;
    Ok(tenant)
}

/// Changes a tenant, and lets go of what this process knew of it, under its former name too.
///
/// # Errors
/// As [`lifecycle::update_tenant`].
pub(crate) async fn update_tenant(
    installation: &Installation,
    tenant: TenantId,
    change: &TenantChange,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let updated = lifecycle::update_tenant(installation.admin(), tenant, change, actor).await?;
    for known in [&updated.before, &updated.now] {
        installation.directory().learn(known).await;
    }
    Ok(updated.now)
}
