//! Tenants' life, as the service offers it.

use tenantry_db::lifecycle::{self, Authority, ErasureLedger, NewTenant, TenantChange};
use tenantry_db::models::audit::Actor;
use tenantry_db::models::tenants::{Status, Tenant};
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
    installation.require_erased_stay_erased().await?;
    let tenant =
        lifecycle::create_tenant(installation.admin(), installation.migrations(), new, actor)
            .await?;
    installation.directory().learn(&tenant).await;
    Ok(tenant)
}

/// Begins a tenant's purge, and goes on with it when the answer is out. If this process ends before, or
/// the purge has to wait, another round of `run_due_purges` does the rest.
///
/// # Errors
/// As [`lifecycle::begin_purge`].
pub(crate) async fn purge_tenant(
    installation: &Installation,
    ledger: ErasureLedger,
    tenant: TenantId,
    authority: Authority<'_>,
    actor: Actor,
) -> Result<Tenant, Error> {
    let begun =
        lifecycle::begin_purge(installation.admin(), &ledger, tenant, authority, &actor).await?;
    let installation = installation.clone();
    tokio::spawn(async move {
        let admin = installation.admin();
        match lifecycle::continue_purge(admin, &ledger, tenant, &actor, |_| {}).await {
            // It is done, here or by somebody else.
            Ok(_) | Err(Error::InvalidState { status: Status::Purged, .. }) => {}
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                tracing::warn!(tenant.id = %tenant, %error, hint, "the purge stopped: it will be tried again");
            }
        }
    });
    Ok(begun)
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
