//! `/api/tenants`: the platform's view of its tenants.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tenantry_db::lifecycle::{self, NewTenant};
use tenantry_db::models::idempotency::IdempotentRequest;
use tenantry_db::models::tenants::{self as rows, Status, Tenant, TenantFilter};
use tenantry_db::{Config, Subdomain, TenantId};

use super::list::{self, List};
use crate::body::{JsonBody, PathId, Query};
use crate::fields::{Fields, object, one_of, text};
use crate::headers::{self, IdempotencyKey};
use crate::middleware::auth::{Platform, TenantsRead, TenantsWrite, VisibleTenant};
use crate::problem::Problem;
use crate::services;
use crate::state::ApiState;

pub(super) const MAX_NAME_CHARS: usize = 255;
const MAX_TIER_CHARS: usize = 50;
pub(super) const MAX_SETTINGS_BYTES: usize = 64 * 1024;

/// Those that people may see: `ready` is the pool's own.
const STATUSES: &[Status] =
    &[Status::Active, Status::Suspended, Status::Deleted, Status::Purging, Status::Purged];

/// A tenant, as the platform sees one.
#[derive(Serialize)]
pub(super) struct TenantJson {
    id: TenantId,
    name: String,
    subdomain: Option<String>,
    tier: String,
    status: Status,
    settings: Value,
    schema_version: i64,
    legal_hold: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    purge_after: Option<Timestamp>,
    purged_at: Option<Timestamp>,
}

impl From<Tenant> for TenantJson {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name,
            subdomain: tenant.subdomain,
            tier: tenant.tier,
            status: tenant.status,
            settings: tenant.settings,
            schema_version: tenant.schema_version,
            legal_hold: tenant.legal_hold,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
            deleted_at: tenant.deleted_at,
            purge_after: tenant.purge_after,
            purged_at: tenant.purged_at,
        }
    }
}

pub(super) async fn list(
    _: Platform<TenantsRead>,
    State(state): State<ApiState>,
    Query(mut fields): Query,
) -> Result<Json<List>, Problem> {
    let page = list::page(&mut fields);
    let filter = TenantFilter {
        status: fields.optional("status", one_of(STATUSES, Status::as_str)),
        tier: fields.optional("tier", text(MAX_TIER_CHARS)),
        text: fields.optional("q", text(MAX_NAME_CHARS)),
    };
    fields.finish()?;
    Ok(List::page::<TenantJson, _>(
        rows::list_tenants(state.installation().reader(), &filter, &page).await?,
    ))
}

pub(super) async fn show(
    VisibleTenant(tenant): VisibleTenant,
    State(state): State<ApiState>,
) -> Result<([(HeaderName, String); 1], Json<TenantJson>), Problem> {
    let tenant = rows::get_tenant(state.installation().reader(), &tenant).await?;
    Ok(([etag(&tenant)], Json(tenant.into())))
}

/// With an `Idempotency-Key`, the same request sent again gets the same answer.
pub(super) async fn create(
    caller: Platform<TenantsWrite>,
    State(state): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(fields): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 2], Json<TenantJson>), Problem> {
    let installation = state.installation();
    let request =
        key.map(|key| IdempotentRequest::new(&caller.identity(), &key, &fields.canonical()));
    let mut new = new_tenant(installation.config(), fields)?;
    if let Some(request) = request {
        new = new.once(request);
    }
    let tenant = services::tenant::create_tenant(installation, &new, &caller.actor()).await?;
    let location = (header::LOCATION, format!("/api/tenants/{}", tenant.id));
    Ok((StatusCode::CREATED, [location, etag(&tenant)], Json(tenant.into())))
}

/// What `If-Match` compares.
pub(super) fn etag(tenant: &Tenant) -> (HeaderName, String) {
    (header::ETAG, headers::etag(tenant.updated_at))
}

/// With `?now=true` it also waits for the transactions under way, and ends those that take too long.
pub(super) async fn suspend(
    caller: Platform<TenantsWrite>,
    State(state): State<ApiState>,
    PathId(id): PathId,
    Query(mut fields): Query,
) -> Result<Json<TenantJson>, Problem> {
    let now =
        fields.optional("now", one_of(&[true, false], |now| if now { "true" } else { "false" }));
    fields.finish()?;
    let (admin, tenant) = (state.installation().admin(), TenantId::from(id));
    let suspended = match now {
        Some(true) => lifecycle::suspend_tenant_now(admin, tenant, &caller.actor()).await?.0,
        Some(false) | None => lifecycle::suspend_tenant(admin, tenant, &caller.actor()).await?,
    };
    Ok(Json(suspended.into()))
}

pub(super) async fn resume(
    caller: Platform<TenantsWrite>,
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<Json<TenantJson>, Problem> {
    let admin = state.installation().admin();
    let resumed = lifecycle::resume_tenant(admin, TenantId::from(id), &caller.actor()).await?;
    Ok(Json(resumed.into()))
}

/// The library checks all of this again, but does not say which field it means.
fn new_tenant(config: &Config, mut fields: Fields) -> Result<NewTenant, Problem> {
    let name = fields.required("name", text(MAX_NAME_CHARS));
    let subdomain = fields.required("subdomain", |value| usable_subdomain(config, value));
    let tier = fields.optional("tier", |value| known_tier(config, value));
    let settings = fields.optional("settings", object(MAX_SETTINGS_BYTES)).unwrap_or_default();
    fields.finish()?;
    Ok(NewTenant::new(config, &name, &subdomain, tier.as_deref(), settings)?)
}

pub(super) fn usable_subdomain(config: &Config, value: Value) -> Result<String, String> {
    let text = text(Subdomain::MAX_BYTES)(value)?;
    let reserved = config.tenants.reserved_subdomains.contains(&text);
    match text.parse::<Subdomain>() {
        Ok(_) if reserved => Err("must not be a reserved name".to_owned()),
        Ok(_) => Ok(text),
        Err(_) if Subdomain::RESERVED.contains(&text.as_str()) => {
            Err("must not be a reserved name".to_owned())
        }
        Err(_) => {
            Err("must be a DNS label: `a-z`, `0-9` and `-` inside, not digits only".to_owned())
        }
    }
}

pub(super) fn known_tier(config: &Config, value: Value) -> Result<String, String> {
    let known = value.as_str().filter(|tier| config.tiers.contains_key(*tier));
    known.map(str::to_owned).ok_or_else(|| {
        let tiers: Vec<_> = config.tiers.keys().map(|tier| format!("`{tier}`")).collect();
        format!("must be one of {}", tiers.join(", "))
    })
}
