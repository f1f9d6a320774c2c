//! `PATCH /api/tenants/{id}`: another name, subdomain, tier or settings.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use tenantry_db::lifecycle::TenantChange;
use tenantry_db::{Config, TenantId};

use super::tenants::{self, TenantJson};
use crate::body::{JsonBody, PathId};
use crate::fields::{Fields, object, text};
use crate::headers::IfMatch;
use crate::middleware::auth::{Platform, TenantsWrite};
use crate::problem::{Code, Problem};
use crate::services;
use crate::state::ApiState;

/// With `If-Match`, only if it still is as the caller saw it.
pub(super) async fn update(
    caller: Platform<TenantsWrite>,
    State(state): State<ApiState>,
    PathId(id): PathId,
    IfMatch(seen): IfMatch,
    JsonBody(fields): JsonBody,
) -> Result<([(HeaderName, String); 1], Json<TenantJson>), Problem> {
    let installation = state.installation();
    let mut change = change(installation.config(), fields)?;
    if let Some(seen) = seen {
        change = change.if_unchanged_since(seen);
    }
    let id = TenantId::from(id);
    let tenant =
        services::tenant::update_tenant(installation, id, &change, &caller.actor()).await?;
    Ok(([tenants::etag(&tenant)], Json(tenant.into())))
}

/// The same rules as for a new one. `settings` replace the former ones as a whole.
fn change(config: &Config, mut fields: Fields) -> Result<TenantChange, Problem> {
    if fields.is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "the body names nothing to change"));
    }
    let name = fields.optional("name", text(tenants::MAX_NAME_CHARS));
    let subdomain = fields.optional("subdomain", |value| tenants::usable_subdomain(config, value));
    let tier = fields.optional("tier", |value| tenants::known_tier(config, value));
    let settings = fields.optional("settings", object(tenants::MAX_SETTINGS_BYTES));
    fields.finish()?;
    let change =
        TenantChange::new(config, name.as_deref(), subdomain.as_deref(), tier.as_deref(), settings);
    Ok(change?)
}
