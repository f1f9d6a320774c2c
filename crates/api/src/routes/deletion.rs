//! Deleting, restoring and purging tenants: `DELETE /api/tenants/{id}` and what follows from it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use tenantry_db::config::parse_retention;
use tenantry_db::lifecycle::{self, Authority, Certificate, Deletion, ErasureLedger};
use tenantry_db::{Subdomain, TenantId};

use super::tenants::TenantJson;
use crate::body::{MaybeJsonBody, PathId, Query};
use crate::fields::{any_text, boolean};
use crate::middleware::auth::{Platform, TenantsDelete, TenantsRead, TenantsWrite};
use crate::problem::Problem;
use crate::services;
use crate::state::ApiState;

type Accepted = (StatusCode, Json<TenantJson>);

/// The confirmation stands in the body or in the query string: not every client sends a body with DELETE.
pub(super) async fn delete(
    caller: Platform<TenantsDelete>,
    State(state): State<ApiState>,
    PathId(id): PathId,
    Query(mut query): Query,
    MaybeJsonBody(mut body): MaybeJsonBody,
) -> Result<Accepted, Problem> {
    let confirm = body.optional("confirm", confirmation);
    let confirm = confirm.or_else(|| query.optional("confirm", confirmation));
    let retention = body.optional("retention", retention);
    let retention = retention.or_else(|| query.optional("retention", self::retention));
    body.finish()?;
    query.finish()?;
    let installation = state.installation();
    let how = Deletion { confirm: confirm.as_deref(), retention };
    let (admin, config) = (installation.admin(), installation.config());
    let deleted =
        lifecycle::delete_tenant(admin, config, TenantId::from(id), how, &caller.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(deleted.into())))
}

pub(super) async fn restore(
    caller: Platform<TenantsWrite>,
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<Json<TenantJson>, Problem> {
    let admin = state.installation().admin();
    let restored = lifecycle::restore_tenant(admin, TenantId::from(id), &caller.actor()).await?;
    Ok(Json(restored.into()))
}

/// Answers when the purge has begun, after which there is no way back; the rest goes on beside.
pub(super) async fn purge(
    caller: Platform<TenantsDelete>,
    State(state): State<ApiState>,
    PathId(id): PathId,
    Query(mut query): Query,
    MaybeJsonBody(mut body): MaybeJsonBody,
) -> Result<Accepted, Problem> {
    let confirm = body.optional("confirm", confirmation);
    let confirm = confirm.or_else(|| query.optional("confirm", confirmation));
    let now = body.optional("now", boolean).unwrap_or(false);
    body.finish()?;
    query.finish()?;
    let installation = state.installation();
    let ledger = ErasureLedger::new(installation.config()).map_err(Problem::no_ledger)?;
    let authority = Authority::Confirmed { confirm: confirm.as_deref(), now };
    let purging = services::tenant::purge_tenant(
        installation,
        ledger,
        TenantId::from(id),
        authority,
        caller.actor(),
    );
    Ok((StatusCode::ACCEPTED, Json(purging.await?.into())))
}

/// The proof of a purge, as it is at the moment: what is still open is looked at beside.
pub(super) async fn certificate(
    _: Platform<TenantsRead>,
    State(state): State<ApiState>,
    PathId(id): PathId,
) -> Result<Json<Certificate>, Problem> {
    let reader = state.installation().reader();
    Ok(Json(lifecycle::get_certificate(reader, TenantId::from(id)).await?))
}

/// Whatever it is, it is compared with the tenant's own.
fn confirmation(value: Value) -> Result<String, String> {
    any_text(Subdomain::MAX_BYTES)(value)
}

fn retention(value: Value) -> Result<std::time::Duration, String> {
    const MAX_CHARS: usize = 50;
    parse_retention(&any_text(MAX_CHARS)(value)?)
        .map_err(|_| "must be a duration such as `0s`, `12h` or `30days`".to_owned())
}
