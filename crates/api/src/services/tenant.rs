//! Tenants' life, as the service offers it.

use tenantry_db::lifecycle::{self, NewTenant};
use tenantry_db::models::audit::Actor;
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Error, Installation};

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
