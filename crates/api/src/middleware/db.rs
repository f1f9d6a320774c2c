//! Which tenant, and its database: the rule that a verified token decides.
//!
//! A token's own tenant can't be overruled. The host and the header name a tenant only for a token
//! that may act for any; whatever disagrees is refused rather than guessed at.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tenantry_db::{Subdomain, TenantDb, TenantEntry, TenantId, TenantRead};

use super::auth::{claims, require};
use super::{consistency, host};
use crate::auth::{Claims, Scope};
use crate::problem::{Code, Problem};
use crate::state::ApiState;

const TENANT_HEADER: &str = "x-tenant-id";

/// A tenant's database, for a caller who may read there: never an older state than the caller's token
/// stands for.
pub(crate) struct ReadTenant(pub(crate) TenantRead);

impl FromRequestParts<ApiState> for ReadTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let db = tenant_db(parts, state, Intent::Read).await?;
        consistency::remember(parts, &db);
        Ok(Self(consistency::read(parts, &db)))
    }
}

/// A tenant's database, for a caller who may write there.
pub(crate) struct WriteTenant(pub(crate) TenantDb);

impl FromRequestParts<ApiState> for WriteTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let db = tenant_db(parts, state, Intent::Write).await?;
        consistency::remember(parts, &db);
        Ok(Self(db))
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
    let named = Named::by(parts, state)?;
    let entry = match claims.tenant_id {
        Some(own) => {
            check_role(&claims, intent)?;
            named.agree_with(own_entry(state, own).await?)?
        }
        None => {
            require_name(&claims, &named)?;
            check_role(&claims, intent)?;
            named.find(state).await?
        }
    };
    tracing::Span::current().record("tenant.id", tracing::field::display(entry.id));
    Ok(state.installation().tenant_db(entry)?)
}

/// What a request says of its tenant beside the token.
struct Named {
    subdomain: Option<Subdomain>,
    /// `Some(None)` is a header that holds no id.
    header: Option<Option<TenantId>>,
}

impl Named {
    fn by(parts: &Parts, state: &ApiState) -> Result<Self, Problem> {
        let subdomain = host::subdomain(parts, state.http())?;
        let mut headers = parts.headers.get_all(TENANT_HEADER).iter();
        let header = headers.next().map(|value| value.to_str().ok()?.trim().parse().ok());
        if headers.next().is_some() {
            return Err(mismatch());
        }
        Ok(Self { subdomain, header })
    }

    /// Whether all of it means this tenant. Asks nobody: whoever owns any token could otherwise have
    /// names looked up at will.
    fn agree_with(&self, tenant: Arc<TenantEntry>) -> Result<Arc<TenantEntry>, Problem> {
        let header = self.header.is_none_or(|id| id == Some(tenant.id));
        let subdomain =
            self.subdomain.as_ref().is_none_or(|s| Some(s.as_str()) == tenant.subdomain.as_deref());
        if header && subdomain { Ok(tenant) } else { Err(mismatch()) }
    }

    async fn find(&self, state: &ApiState) -> Result<Arc<TenantEntry>, Problem> {
        let directory = state.installation().directory();
        let found = match (&self.subdomain, self.header.flatten()) {
            (Some(subdomain), _) => directory.find_by_subdomain(subdomain).await?,
            (None, Some(id)) => directory.find(id).await?,
            (None, None) => None,
        };
        let tenant = self.agree_with(found.ok_or_else(Problem::tenant_not_found)?)?;
        served(tenant)
    }
}

/// A token without a tenant must name one, and must be allowed to.
fn require_name(claims: &Claims, named: &Named) -> Result<(), Problem> {
    if named.subdomain.is_none() && named.header.is_none() {
        let detail = "the token belongs to no tenant, and the request names none";
        return Err(Problem::new(Code::TenantRequired, detail));
    }
    require(claims, Scope::TenantsAct)
}

fn mismatch() -> Problem {
    let detail = "token, host and `X-Tenant-ID` must all mean the same tenant";
    Problem::new(Code::TenantMismatch, detail)
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
    served(entry.ok_or_else(Problem::tenant_not_found)?)
}

fn served(tenant: Arc<TenantEntry>) -> Result<Arc<TenantEntry>, Problem> {
    Problem::of_status(tenant.status).map_or(Ok(tenant), Err)
}
