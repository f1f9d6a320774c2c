//! Changing what a tenant is called and has: name, subdomain, tier, settings.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::suspend::limit_waiting;
use super::values;
use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{Subdomain, TenantId};
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::{self, Status, Tenant, is_taken_subdomain, tenant_columns};

/// What is to be changed of a tenant, checked against the configuration. What is left out stays.
#[derive(Debug, Clone, Default)]
pub struct TenantChange {
    name: Option<String>,
    subdomain: Option<Subdomain>,
    tier: Option<String>,
    settings: Option<Value>,
    /// When the row was last changed, as the caller saw it.
    seen: Option<Timestamp>,
}

impl TenantChange {
    /// Checks the new values. Settings replace the former ones as a whole.
    ///
    /// # Errors
    /// [`Error::InvalidTenant`] with every problem found.
    pub fn new(
        config: &Config,
        name: Option<&str>,
        subdomain: Option<&str>,
        tier: Option<&str>,
        settings: Option<Map<String, Value>>,
    ) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let change = Self {
            name: name.and_then(|name| values::name(name, &mut problems)),
            subdomain: subdomain.and_then(|s| values::subdomain(config, s, &mut problems)),
            tier: tier.and_then(|tier| values::tier(config, tier, &mut problems)),
            settings: settings.map(|settings| {
                values::check_settings(&settings, &mut problems);
                Value::Object(settings)
            }),
            seen: None,
        };
        if problems.is_empty() { Ok(change) } else { Err(Error::InvalidTenant { problems }) }
    }

    /// Only if the tenant's `updated_at` still is what the caller saw.
    #[must_use]
    pub fn if_unchanged_since(mut self, seen: Timestamp) -> Self {
        self.seen = Some(seen);
        self
    }

    /// The fields whose value becomes another.
    fn changed(&self, row: &Tenant) -> Vec<&'static str> {
        let differs = [
            ("name", self.name.as_ref().is_some_and(|name| *name != row.name)),
            (
                "subdomain",
                self.subdomain
                    .as_ref()
                    .is_some_and(|s| Some(s.as_str()) != row.subdomain.as_deref()),
            ),
            ("tier", self.tier.as_ref().is_some_and(|tier| *tier != row.tier)),
            ("settings", self.settings.as_ref().is_some_and(|s| *s != row.settings)),
        ];
        differs.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }
}

/// A tenant before and after a change.
#[derive(Debug, Clone)]
pub struct UpdatedTenant {
    /// As it was.
    pub before: Tenant,
    /// As it is now.
    pub now: Tenant,
}

/// Changes a tenant's name, subdomain, tier or settings. Where nothing becomes different, changes and
/// records nothing. Every running service hears of a new subdomain or tier at once.
///
/// Cancel-safe: a dropped call did all of it or nothing.
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::InvalidState`] for one that is deleted;
/// [`Error::SubdomainTaken`]; [`Error::ChangedMeanwhile`] if it was to be unchanged;
/// [`Error::Busy`] where somebody else has the tenant's row for long.
pub async fn update_tenant(
    admin: &AdminDb,
    tenant: TenantId,
    change: &TenantChange,
    actor: &Actor,
) -> Result<UpdatedTenant, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    let before = tenants::lock_taken(&tx, tenant).await?;
    match before.status {
        Status::Active | Status::Suspended => {}
        status @ (Status::Ready | Status::Deleted | Status::Purging | Status::Purged) => {
            return Err(Error::InvalidState { tenant, status, step: "changed" });
        }
    }
    if change.seen.is_some_and(|seen| seen != before.updated_at) {
        return Err(Error::ChangedMeanwhile(tenant));
    }
    let fields = change.changed(&before);
    if fields.is_empty() {
        return Ok(UpdatedTenant { now: before.clone(), before });
    }
    let now = write(&tx, tenant, change).await?;
    audit::record(&tx, actor, Action::Changed, tenant, &json!({ "fields": fields })).await?;
    tx.commit().await.doing("commit the change")?;
    tracing::info!(tenant.id = %tenant, fields = fields.join(","), "tenant changed");
    Ok(UpdatedTenant { before, now })
}

async fn write(
    tx: &impl GenericClient,
    tenant: TenantId,
    change: &TenantChange,
) -> Result<Tenant, Error> {
    let subdomain = change.subdomain.as_ref().map(Subdomain::as_str);
    let written = tx
        .query_typed_one(
            concat!(
                "UPDATE public.tenants
                 SET name = coalesce($2, name), subdomain = coalesce($3, subdomain),
                     tier = coalesce($4, tier), settings = coalesce($5, settings)
                 WHERE id = $1
                 RETURNING ",
                tenant_columns!()
            ),
            &[
                (tenant.as_uuid(), Type::UUID),
                (&change.name, Type::TEXT),
                (&subdomain, Type::TEXT),
                (&change.tier, Type::TEXT),
                (&change.settings, Type::JSONB),
            ],
        )
        .await;
    match written {
        Ok(row) => Tenant::from_row(&row),
        Err(e) if is_taken_subdomain(&e) => {
            Err(Error::SubdomainTaken(subdomain.unwrap_or_default().to_owned()))
        }
        // Somebody is about to take the subdomain, or two tenants swap theirs.
        Err(e)
            if matches!(
                e.code(),
                Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED)
            ) =>
        {
            Err(Error::Busy(format!("tenant `{tenant}`")))
        }
        Err(e) => Err(e).doing("change the tenant"),
    }
}
