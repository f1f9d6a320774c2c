//! Creating a tenant: role, schema, rights, all tables and the ledger in one transaction.
//!
//! The schema is either whole or absent (invariant 5): nothing here commits halfway, and nothing
//! outside the transaction needs to be undone, since roles are transactional in PostgreSQL too.

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{LaneId, SchemaName, Subdomain, TenantId, is_invisible};
use crate::migrate::{self, MigrationSet, Migrations};
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::{self, Tenant, TenantInsert};
use crate::roles::RolePrefix;

/// A tenant to be created, checked against the configuration.
#[derive(Debug, Clone)]
pub struct NewTenant {
    id: TenantId,
    name: String,
    subdomain: Subdomain,
    tier: String,
    settings: Map<String, Value>,
    lane: LaneId,
}

impl NewTenant {
    const MAX_NAME_CHARS: usize = 255;
    const MAX_SETTINGS_BYTES: usize = 64 * 1024;

    /// Checks the values for a new tenant, and gives it an id and a lane.
    ///
    /// # Errors
    /// [`Error::InvalidTenant`] with every problem found.
    pub fn new(
        config: &Config,
        name: &str,
        subdomain: &str,
        tier: Option<&str>,
        settings: Map<String, Value>,
    ) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let name = name.trim();
        if let Some(problem) = name_problem(name) {
            problems.push(problem);
        }
        let parsed = subdomain.parse::<Subdomain>().map_err(|e| problems.push(e.to_string())).ok();
        if config.tenants.reserved_subdomains.iter().any(|reserved| reserved == subdomain) {
            problems
                .push(format!("`{subdomain}` is not a usable subdomain: it is a reserved name"));
        }
        let tier = tier.unwrap_or(&config.tenants.default_tier);
        if !config.tiers.contains_key(tier) {
            let known: Vec<_> = config.tiers.keys().map(|known| format!("`{known}`")).collect();
            problems.push(format!(
                "`{}` is not a tier: there are {}",
                crate::ids::excerpt(tier),
                known.join(", ")
            ));
        }
        if Value::Object(settings.clone()).to_string().len() > Self::MAX_SETTINGS_BYTES {
            problems
                .push(format!("settings are larger than {} KiB", Self::MAX_SETTINGS_BYTES / 1024));
        }
        match parsed {
            Some(subdomain) if problems.is_empty() => {
                let id = TenantId::random();
                let lane = config.lanes.for_new_tenant(id);
                Ok(Self {
                    id,
                    name: name.to_owned(),
                    subdomain,
                    tier: tier.to_owned(),
                    settings,
                    lane,
                })
            }
            _ => Err(Error::InvalidTenant { problems }),
        }
    }
}

fn name_problem(name: &str) -> Option<String> {
    let max = NewTenant::MAX_NAME_CHARS;
    if name.is_empty() {
        Some("the name is empty".to_owned())
    } else if name.chars().count() > max {
        Some(format!("the name is longer than {max} characters"))
    } else if name.chars().any(is_invisible) {
        Some("the name holds control or invisible characters".to_owned())
    } else {
        None
    }
}

/// Creates a tenant, whole and at the head of the tenant set.
///
/// Cancel-safe: a dropped call leaves a whole tenant or none.
///
/// # Errors
/// [`Error::SubdomainTaken`] for a name in use; [`Error::Behind`] if the public schema lacks a
/// migration of its set.
pub async fn create_tenant(
    admin: &AdminDb,
    migrations: &Migrations,
    new: &NewTenant,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let set = &migrations.tenant;
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    migrate::require_public_head(&tx, &migrations.public).await?;
    // First, so that a taken subdomain costs nothing but this statement.
    let row = TenantInsert {
        id: new.id,
        name: &new.name,
        subdomain: &new.subdomain,
        tier: &new.tier,
        settings: &new.settings,
        lane: new.lane,
        schema_version: set.head(),
    };
    let tenant = tenants::insert(&tx, &row).await?;
    create_tenant_schema(&tx, admin, set, new.id, new.lane).await?;
    let details = json!({ "tier": new.tier, "schema_version": set.head() });
    audit::record(&tx, actor, Action::Created, new.id, &details).await?;
    tx.commit().await.doing("commit the new tenant")?;
    tracing::info!(tenant.id = %new.id, lane = %new.lane, "tenant created");
    Ok(tenant)
}

/// Makes a tenant's role and schema with all tables at head, in the caller's transaction, which
/// acts as the owner from then on.
async fn create_tenant_schema(
    tx: &tokio_postgres::Transaction<'_>,
    admin: &AdminDb,
    set: &MigrationSet,
    tenant: TenantId,
    lane: LaneId,
) -> Result<(), Error> {
    let making = role_and_schema(tenant.schema(), lane, &admin.roles);
    migrate::fill_new_schema(tx.client(), admin, set, tenant, &making).await
}

/// The role, then the empty schema.
fn role_and_schema(schema: SchemaName, lane: LaneId, roles: &RolePrefix) -> String {
    let (control, tenant) = (roles.control_schema(), schema.tenant());
    format!(
        "SELECT {control}.create_tenant_role('{tenant}'), {control}.grant_tenant_role('{tenant}', {lane});
         {}",
        empty_schema(schema, &schema.to_string(), roles),
        lane = lane.number(),
    )
}

/// The empty schema with all that later tables inherit, and its rights for the tenant's role (or what
/// stands for one).
///
/// Rights go to the tenant's role inside its own schema only: an ACL holds some 2,400 entries, so
/// what is granted on a shared object to each tenant ends in `54000 row is too big`.
pub(crate) fn empty_schema(schema: SchemaName, role: &str, roles: &RolePrefix) -> String {
    let (owner, tenant) = (roles.owner(), schema.tenant());
    format!(
        "SET LOCAL ROLE {owner};
         CREATE SCHEMA {schema};
         GRANT USAGE ON SCHEMA {schema} TO {role};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
             GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {role};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {role};
         CREATE FUNCTION {schema}.this_tenant() RETURNS uuid
             LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN '{tenant}'::uuid;\n",
    )
}
