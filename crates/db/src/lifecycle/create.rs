//! Creating a tenant: from the ready pool in one statement, or role, schema, rights, all tables and the
//! ledger in one transaction.
//!
//! The schema is either whole or absent (invariant 5): nothing here commits halfway, and nothing
//! outside the transaction needs to be undone, since roles are transactional in PostgreSQL too.

use deadpool_postgres::Object;
use futures_util::future::{join, join3};
use serde_json::{Map, Value, json};
use tokio_postgres::GenericClient;

use super::suspend::limit_waiting;
use super::values;
use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::{LaneId, SchemaName, Subdomain, TenantId};
use crate::migrate::{self, MigrationSet, Migrations};
use crate::models::audit::{self, Action, Actor};
use crate::models::idempotency::{self, IdempotentRequest};
use crate::models::ready::{self, Claim, Heads};
use crate::models::tenants::{self, Tenant, TenantInsert};
use crate::roles::RolePrefix;

/// A tenant to be created, checked against the configuration.
#[derive(Debug, Clone)]
pub struct NewTenant {
    pub(super) id: TenantId,
    pub(super) name: String,
    pub(super) subdomain: Subdomain,
    pub(super) tier: String,
    pub(super) settings: Map<String, Value>,
    lane: LaneId,
    request: Option<IdempotentRequest>,
}

impl NewTenant {
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
        let name = values::name(name, &mut problems);
        let subdomain = values::subdomain(config, subdomain, &mut problems);
        let tier =
            values::tier(config, tier.unwrap_or(&config.tenants.default_tier), &mut problems);
        values::check_settings(&settings, &mut problems);
        match (name, subdomain, tier) {
            (Some(name), Some(subdomain), Some(tier)) if problems.is_empty() => {
                let id = TenantId::random();
                let lane = config.lanes.for_new_tenant(id);
                Ok(Self { id, name, subdomain, tier, settings, lane, request: None })
            }
            _ => Err(Error::InvalidTenant { problems }),
        }
    }

    /// Creates it once, however often the request is sent.
    #[must_use]
    pub fn once(mut self, request: IdempotentRequest) -> Self {
        self.request = Some(request);
        self
    }
}

/// Creates a tenant, whole and at the head of the tenant set: takes one of the ready pool, or
/// provisions one if there is none to be had.
///
/// Without an idempotency key, one from the pool costs one round trip. With a key that was used for the
/// same request before, yields the tenant as it was created then.
///
/// Cancel-safe: a dropped call leaves a whole tenant or none.
///
/// # Errors
/// [`Error::SubdomainTaken`] for a name in use; [`Error::Behind`] if the public schema lacks a
/// migration of its set; [`Error::IdempotencyMismatch`] and [`Error::IdempotencyInProgress`];
/// [`Error::Busy`] where another sign-up holds the subdomain for `migrations.lock_timeout`.
pub async fn create_tenant(
    admin: &AdminDb,
    migrations: &Migrations,
    new: &NewTenant,
    actor: &Actor,
) -> Result<Tenant, Error> {
    let mut db = admin.connection().await?;
    let creation = Creation { admin, migrations, new, actor };
    let created = match &new.request {
        None => creation.run(&mut db).await,
        Some(request) => creation.run_once(&mut db, request).await,
    };
    match created {
        // Nobody migrated this database yet: say that instead.
        Err(error) if error.is_missing_relation() => {
            migrate::require_public_head(&**db, &migrations.public).await?;
            Err(error)
        }
        created => created,
    }
}

struct Creation<'a> {
    admin: &'a AdminDb,
    migrations: &'a Migrations,
    new: &'a NewTenant,
    actor: &'a Actor,
}

impl Creation<'_> {
    async fn run(&self, db: &mut Object) -> Result<Tenant, Error> {
        if let Some(tenant) = self.claim_at_once(db).await? {
            return Ok(tenant);
        }
        let tx = begin(db).await?;
        let tenant = self.provision(&tx).await?;
        tx.commit().await.doing("commit the new tenant")?;
        Ok(tenant)
    }

    async fn run_once(
        &self,
        db: &mut Object,
        request: &IdempotentRequest,
    ) -> Result<Tenant, Error> {
        let tx = begin(db).await?;
        limit_waiting(&tx, self.admin).await?;
        if let Some(former) = idempotency::begin(&tx, request).await? {
            return Ok(former);
        }
        let tenant = match self.claim(&tx).await? {
            Some(tenant) => tenant,
            None => self.provision(&tx).await?,
        };
        idempotency::remember(&tx, request, tenant.id).await?;
        tx.commit().await.doing("commit the new tenant")?;
        Ok(tenant)
    }

    /// In one trip: the statement is all there is to do. If it fails, the COMMIT after it undoes nothing
    /// that was done, and its own error tells of what is checked only then.
    async fn claim_at_once(&self, db: &Object) -> Result<Option<Tenant>, Error> {
        let client: &tokio_postgres::Client = db;
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {}",
            self.admin.limits.lock_timeout.as_millis()
        );
        let (begun, claimed, committed) =
            join3(client.batch_execute(&begin), self.claim(client), client.batch_execute("COMMIT"))
                .await;
        begun.doing("begin a transaction")?;
        let claimed = claimed?;
        committed.doing("commit the new tenant")?;
        if let Some(tenant) = &claimed {
            tracing::info!(tenant.id = %tenant.id, lane = %tenant.lane, "ready tenant taken");
        }
        Ok(claimed)
    }

    async fn claim(&self, db: &impl GenericClient) -> Result<Option<Tenant>, Error> {
        let heads = Heads::of(self.migrations);
        let claim = Claim {
            name: &self.new.name,
            subdomain: &self.new.subdomain,
            tier: &self.new.tier,
            settings: &self.new.settings,
            details: &self.details(),
        };
        ready::claim(db, &heads, &claim, self.actor).await
    }

    async fn provision(&self, tx: &tokio_postgres::Transaction<'_>) -> Result<Tenant, Error> {
        let (new, set) = (self.new, &self.migrations.tenant);
        let tenant = insert_new(tx, self.admin, self.migrations, new).await?;
        let details = self.details();
        let (schema, audited) = join(
            create_tenant_schema(tx, self.admin, set, new.id, new.lane),
            audit::record(tx, self.actor, Action::Created, new.id, &details),
        )
        .await;
        schema.and(audited)?;
        tracing::info!(tenant.id = %new.id, lane = %new.lane, "tenant created");
        Ok(tenant)
    }

    fn details(&self) -> Value {
        json!({ "tier": self.new.tier, "schema_version": self.migrations.tenant.head() })
    }
}

/// Claims the name of a new tenant in the register.
///
/// Before the DDL, so that a taken subdomain costs next to nothing; its error is the one that says why,
/// since what is asked after it finds an aborted transaction.
pub(super) async fn insert_new(
    tx: &tokio_postgres::Transaction<'_>,
    admin: &AdminDb,
    migrations: &Migrations,
    new: &NewTenant,
) -> Result<Tenant, Error> {
    let row = TenantInsert {
        id: new.id,
        name: &new.name,
        subdomain: &new.subdomain,
        tier: &new.tier,
        settings: &new.settings,
        lane: new.lane,
        schema_version: migrations.tenant.head(),
    };
    let (limited, at_head, tenant) = join3(
        limit_waiting(tx, admin),
        migrate::require_public_head(tx, &migrations.public),
        tenants::insert(tx, &row),
    )
    .await;
    limited?;
    let tenant = tenant?;
    at_head?;
    Ok(tenant)
}

/// Makes a tenant's role and schema with all tables at head, in the caller's transaction, which
/// acts as the owner from then on.
///
/// In one trip: all is sent before the first answer is there. What follows a statement that failed is
/// refused, since the transaction is aborted by then; the first error is the one that says why.
pub(super) async fn create_tenant_schema(
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
pub(super) fn role_and_schema(schema: SchemaName, lane: LaneId, roles: &RolePrefix) -> String {
    let (control, tenant) = (roles.control_schema(), schema.tenant());
    format!(
        "SET LOCAL ROLE NONE;
         SELECT {control}.create_tenant_role('{tenant}'), {control}.grant_tenant_role('{tenant}', {lane});
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
         {}
         CREATE FUNCTION {schema}.this_tenant() RETURNS uuid
             LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN '{tenant}'::uuid;\n",
        bare_schema(&schema.to_string(), role),
    )
}

/// A schema with nothing in it but the rights that whatever is made there later will have. The transaction
/// acts as the owner. The names are of [`crate::ids`], which makes them.
pub(super) fn bare_schema(schema: &str, role: &str) -> String {
    format!(
        "CREATE SCHEMA {schema};
         GRANT USAGE ON SCHEMA {schema} TO {role};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
             GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {role};
         ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {role};",
    )
}
