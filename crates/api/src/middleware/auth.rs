//! Who asks, and what they may do on the platform. An extractor that a handler takes is the right
//! that its caller needs: without it, the handler does not run.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use tenantry_db::models::audit::Actor;
use tenantry_db::{TenantId, TenantRef};

use super::db::own_entry;
use super::request_id::RequestId;
use crate::auth::{Claims, Refusal, Role, Scope};
use crate::body::PathId;
use crate::problem::{Code, Problem};
use crate::state::ApiState;

/// What the request's token claims, once it was verified.
pub(super) async fn claims(headers: &HeaderMap, state: &ApiState) -> Result<Claims, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        let detail = "send a token with `Authorization: Bearer …`";
        return Err(Problem::new(Code::MissingToken, detail));
    };
    // Two tokens: whoever checks one may use the other.
    let only = given.next().is_none().then_some(value);
    let token = only.and_then(|value| value.to_str().ok()).and_then(bearer);
    let Some(token) = token else {
        tracing::debug!("token refused: not one `Authorization: Bearer …`");
        return Err(invalid_token());
    };
    state.verifier().verify(token).await.map_err(|refusal| {
        tracing::debug!(%refusal, "token refused");
        match refusal {
            Refusal::NoKeysYet => {
                Problem::new(Code::KeysUnavailable, "tokens can't be checked yet: try again later")
            }
            _ => invalid_token(),
        }
    })
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_start_matches(' '))
}

/// The same for every reason.
fn invalid_token() -> Problem {
    Problem::new(Code::InvalidToken, "the token is malformed, expired, or not for this service")
}

/// A scope as a type.
pub(crate) trait Needed: Send {
    const SCOPE: Scope;
}

/// `tenants:read`.
pub(crate) struct TenantsRead;

impl Needed for TenantsRead {
    const SCOPE: Scope = Scope::TenantsRead;
}

/// `tenants:write`.
pub(crate) struct TenantsWrite;

impl Needed for TenantsWrite {
    const SCOPE: Scope = Scope::TenantsWrite;
}

/// `tenants:delete`.
pub(crate) struct TenantsDelete;

impl Needed for TenantsDelete {
    const SCOPE: Scope = Scope::TenantsDelete;
}

/// `audit:read`.
pub(crate) struct AuditRead;

impl Needed for AuditRead {
    const SCOPE: Scope = Scope::AuditRead;
}

/// A caller whose token has the scope.
pub(crate) struct Platform<N> {
    claims: Claims,
    request: Option<RequestId>,
    needed: PhantomData<N>,
}

impl<N> Platform<N> {
    /// As the audit log names the caller and the request.
    pub(crate) fn actor(&self) -> Actor {
        let actor = Actor::new(format!("token:{}", self.claims.sub));
        match &self.request {
            Some(id) => actor.in_request(id.as_str()),
            None => actor,
        }
    }

    /// Who the caller is, so that no other is taken for it: in two tenants, one subject may be two people.
    pub(crate) fn identity(&self) -> String {
        let tenant = self.claims.tenant_id.map_or_else(String::new, |id| id.to_string());
        format!("{tenant} {}", self.claims.sub)
    }
}

impl<N: Needed> FromRequestParts<ApiState> for Platform<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let claims = claims(&parts.headers, state).await?;
        require(&claims, N::SCOPE)?;
        let request = parts.extensions.get().cloned();
        Ok(Self { claims, request, needed: PhantomData })
    }
}

pub(super) fn require(claims: &Claims, scope: Scope) -> Result<(), Problem> {
    if claims.scope.grant(scope) {
        return Ok(());
    }
    let detail = format!("the token lacks the scope `{}`", scope.as_str());
    Err(Problem::new(Code::InsufficientScope, detail))
}

/// The tenant in the path, for a caller who may look at it: the platform with `tenants:read`, or
/// the tenant's own owner. To other tenants it does not exist.
pub(crate) struct VisibleTenant(pub(crate) TenantRef);

impl FromRequestParts<ApiState> for VisibleTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        visible(parts, state).await.map(|(id, _)| Self(TenantRef::Id(id)))
    }
}

/// The tenant in the path, for whoever may look at it and therefore take its data along.
pub(crate) struct Exporter {
    pub(crate) tenant: TenantId,
    /// As the audit log names the caller.
    pub(crate) actor: Actor,
}

impl FromRequestParts<ApiState> for Exporter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let (tenant, claims) = visible(parts, state).await?;
        Ok(Self { tenant, actor: Actor::new(format!("token:{}", claims.sub)) })
    }
}

async fn visible(parts: &mut Parts, state: &ApiState) -> Result<(TenantId, Claims), Problem> {
    let claims = claims(&parts.headers, state).await?;
    let PathId(id) = PathId::from_request_parts(parts, state).await?;
    let id = TenantId::from(id);
    tracing::Span::current().record("tenant.id", tracing::field::display(id));
    if !claims.scope.grant(Scope::TenantsRead) {
        match claims.tenant_id {
            Some(own) if own != id => return Err(Problem::tenant_not_found()),
            Some(_) if claims.role == Some(Role::Owner) => {
                own_entry(state, id).await?;
            }
            Some(_) | None => require(&claims, Scope::TenantsRead)?,
        }
    }
    Ok((id, claims))
}
