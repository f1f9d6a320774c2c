//! Which tenant, and its database: the rule that a verified token decides.
//!
//! A token's own tenant can't be overruled; the header names a tenant only for a token that may act
//! for any, and where the two disagree the request is refused rather than guessed at.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use tenantry_db::{TenantDb, TenantEntry, TenantId};

use super::auth::{claims, require};
use crate::auth::{Claims, Scope};
use crate::problem::{Code, Problem};
use crate::state::ApiState;

const TENANT_HEADER: &str = "x-tenant-id";

/// A tenant's database, for a caller who may read there.
pub(crate) struct ReadTenant(pub(crate) TenantDb);

impl FromRequestParts<ApiState> for ReadTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        tenant_db(parts, state, Intent::Read).await.map(Self)
    }
}

/// A tenant's database, for a caller who may write there.
pub(crate) struct WriteTenant(pub(crate) TenantDb);

impl FromRequestParts<ApiState> for WriteTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        tenant_db(parts, state, Intent::Write).await.map(Self)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    Read,
    Write,
}

async fn tenant_db(
    parts: &mut Parts,
    state: &ApiState,
    intent: Intent,
) -> Result<TenantDb, Problem> {
    let claims = claims(&parts.headers, state).await?;
    let id = named_tenant(&claims, &parts.headers)?;
    check_role(&claims, intent)?;
    tracing::Span::current().record("tenant.id", tracing::field::display(id));
    let entry = own_entry(state, id).await?;
    Ok(state.installation().tenant_db(entry)?)
}

/// The tenant that the request is for.
fn named_tenant(claims: &Claims, headers: &HeaderMap) -> Result<TenantId, Problem> {
    let mut named = headers.get_all(TENANT_HEADER).iter().map(|value| {
        let text = value.to_str().ok();
        text.and_then(|text| text.trim().parse::<TenantId>().ok())
    });
    if let Some(own) = claims.tenant_id {
        return if named.all(|named| named == Some(own)) { Ok(own) } else { Err(mismatch()) };
    }
    match (named.next(), named.next()) {
        (None, _) => {
            let detail = "the token belongs to no tenant, and `X-Tenant-ID` names none";
            Err(Problem::new(Code::TenantRequired, detail))
        }
        (Some(_), Some(_)) => Err(mismatch()),
        (Some(named), None) => {
            require(claims, Scope::TenantsAct)?;
            named.ok_or_else(Problem::tenant_not_found)
        }
    }
}

fn mismatch() -> Problem {
    Problem::new(Code::TenantMismatch, "`X-Tenant-ID` must be the token's own tenant, once")
}

/// The role counts in the token's own tenant. Who acts for any tenant needs none, but one that may
/// only read does not write anywhere.
fn check_role(claims: &Claims, intent: Intent) -> Result<(), Problem> {
    let allowed = match (claims.role, claims.tenant_id) {
        (Some(role), _) => intent == Intent::Read || role.may_write(),
        (None, Some(_)) => false,
        (None, None) => true,
    };
    if allowed {
        return Ok(());
    }
    let detail = match claims.role {
        Some(_) => "the token's role may only read",
        None => "the token names no role in its tenant",
    };
    Err(Problem::new(Code::InsufficientScope, detail))
}

/// The directory's entry of a tenant that is served.
pub(super) async fn own_entry(state: &ApiState, id: TenantId) -> Result<Arc<TenantEntry>, Problem> {
    let entry = state.installation().directory().find(id).await?;
    let entry = entry.ok_or_else(Problem::tenant_not_found)?;
    match Problem::of_status(entry.status) {
        Some(problem) => Err(problem),
        None => Ok(entry),
    }
}
