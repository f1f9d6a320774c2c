//! What a token says of its bearer, once it was verified.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tenantry_db::TenantId;

/// What a token says of its bearer. Issuer, audience and times are checked and then of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who it is: an account's name, which the audit log keeps.
    pub sub: String,
    /// The tenant that the bearer belongs to; none for the platform's own people and services.
    pub tenant_id: Option<TenantId>,
    /// What the bearer may do in that tenant.
    pub role: Option<Role>,
    /// What the bearer may do on the platform.
    pub scope: Scopes,
}

impl Claims {
    /// What [`is_subject`](Self::is_subject) asks for.
    pub const SUBJECT_RULE: &str = "1 to 255 characters without line breaks are expected";

    /// Whether a text can be a token's `sub`: it is kept in the audit log, and shown there.
    pub fn is_subject(text: &str) -> bool {
        const MAX_CHARS: usize = 255;
        !text.trim().is_empty()
            && text.chars().count() <= MAX_CHARS
            && !text.chars().any(char::is_control)
    }
}

/// What somebody may do in a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, and reads the tenant's own entry on the platform.
    Owner,
    /// Reads and writes.
    Admin,
    /// Reads and writes.
    Member,
    /// Only reads.
    Viewer,
}

impl Role {
    const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Member, Self::Viewer];

    /// As tokens spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    /// Whether the role may change anything.
    pub fn may_write(self) -> bool {
        match self {
            Self::Owner | Self::Admin | Self::Member => true,
            Self::Viewer => false,
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| "one of owner, admin, member, viewer is expected".to_owned())
    }
}

/// One right on the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look at tenants.
    TenantsRead,
    /// Create and change tenants.
    TenantsWrite,
    /// Delete tenants.
    TenantsDelete,
    /// Act as any tenant.
    TenantsAct,
    /// Read the audit log.
    AuditRead,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::TenantsRead,
        Self::TenantsWrite,
        Self::TenantsDelete,
        Self::TenantsAct,
        Self::AuditRead,
    ];

    /// As tokens spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TenantsRead => "tenants:read",
            Self::TenantsWrite => "tenants:write",
            Self::TenantsDelete => "tenants:delete",
            Self::TenantsAct => "tenants:act",
            Self::AuditRead => "audit:read",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|scope| scope.as_str()).collect();
            format!("one of {} is expected", known.join(", "))
        })
    }
}

/// The rights that a token grants on the platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Reads a token's `scope`. What means nothing here may mean something to another service.
    pub(crate) fn of_token(text: &str) -> Self {
        text.split(' ').filter_map(|word| word.parse().ok()).collect()
    }

    /// Whether the scope is among them.
    pub fn grant(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|scope| scope.as_str()).collect();
        f.write_str(&words.join(" "))
    }
}

/// Claims as they stand in a token.
#[derive(Serialize, Deserialize)]
pub(super) struct TokenClaims {
    pub(super) sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tenant_id: Option<TenantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<String>,
}
