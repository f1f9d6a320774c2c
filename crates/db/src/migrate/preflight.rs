//! What can be known before a run touches anybody: whether the files fit the ledger, what would run in
//! whom, and what a way back would lose.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::error::Loss;
use super::loss;
use super::rollout::{Direction, RolloutOptions, Tenants};
use super::standing::Standing;
use super::status::PendingFile;
use super::tenant::Route;
use super::waves;
use super::{Migration, MigrationError, Migrations, ledger, pending, record, standing};
use crate::direct::{AdminDb, ReaderDb, begin};
use crate::error::{Doing, Error};

/// Compares both ledgers with the files. Yields remarks.
pub(super) async fn up(admin: &AdminDb, migrations: &Migrations) -> Result<Vec<String>, Error> {
    let mut db = admin.connection().await?;
    ledgers(&begin(&mut db).await?, migrations).await
}

pub(super) async fn ledgers(
    db: &impl GenericClient,
    migrations: &Migrations,
) -> Result<Vec<String>, Error> {
    let public = ledger::applied_to(db, "public").await?;
    pending(&migrations.public, &public)?;
    let mut remarks = ledger::remarks(&migrations.public, &public);
    if !public.is_empty() {
        remarks.extend(ledger::check_tenants(db, &migrations.tenant).await?);
    }
    Ok(remarks)
}

/// What a run would do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Files of the public set, in the order in which they would run.
    pub public: Vec<PendingFile>,
    /// Files of the tenant set, in that order, each with how many tenants it concerns.
    pub tenant_files: Vec<PlannedFile>,
    /// How many tenants the run concerns.
    pub tenants: usize,
    /// How many of them only get the repeatable files anew.
    pub repeatables_only: usize,
    /// How many tenants are in each wave.
    pub waves: Vec<usize>,
    /// What a way back would lose.
    pub losses: Vec<Loss>,
    /// What does no harm, and should be known.
    pub remarks: Vec<String>,
}

/// A file, and how many tenants it concerns.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedFile {
    /// The file.
    #[serde(flatten)]
    pub file: PendingFile,
    /// How many tenants.
    pub tenants: usize,
}

/// What [`Rollout::run`](super::Rollout::run) would do on the way up. Writes nothing, and needs no right
/// but to read: the reader can ask, on a replica too.
///
/// # Errors
/// Those of a run that would be refused.
pub async fn plan(
    reader: &ReaderDb,
    migrations: &Migrations,
    options: &RolloutOptions,
) -> Result<Plan, Error> {
    let to = match options.direction {
        Direction::Up { to } => to,
        Direction::Down { to, .. } => Some(to),
    };
    let mut db = reader.connection().await?;
    let tx = begin(&mut db).await?;
    let remarks = ledgers(&tx, migrations).await?;
    let public = ledger::applied_to(&tx, "public").await?;
    let mut plan = Plan { remarks, ..Plan::empty() };
    if options.public {
        let within = |m: &&Migration| to.is_none_or(|to| m.version <= to);
        let pending = pending(&migrations.public, &public)?.into_iter().filter(within);
        plan.public = pending.map(PendingFile::new).collect();
    }
    // Before that, nobody can have been created.
    if record::is_possible(&tx).await? {
        let route = Route::up(&migrations.tenant, to);
        let tenants = standing::concerned(&tx, route, &options.tenants).await?;
        plan.add(route, &tenants, options);
    }
    Ok(plan)
}

/// What a run would do on the way back to a version, and what would be lost.
///
/// # Errors
/// [`Error::Migration`] where a way back is missing, or would drop the register of tenants that exist.
pub async fn plan_back(
    admin: &AdminDb,
    migrations: &Migrations,
    options: &RolloutOptions,
    to: i64,
) -> Result<Plan, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    tx.batch_execute("SET TRANSACTION READ ONLY").await.doing("look without touching")?;
    let remarks = ledgers(&tx, migrations).await?;
    let mut plan = Plan { remarks, ..Plan::empty() };
    if let Some(stands) =
        record::halfway(&tx).await?.into_iter().find(|h| h.is_up() && h.version > to)
    {
        let (version, schema) = (stands.version, stands.name());
        return Err(MigrationError::Halfway { version, schema }.into());
    }
    let mut named = Vec::new();
    let route = Route::down(&migrations.tenant, to, false);
    let tenants = match record::is_possible(&tx).await? {
        true => standing::concerned(&tx, route, &options.tenants).await?,
        false => {
            require_nobody_above(&tx, migrations, to).await?;
            Vec::new()
        }
    };
    plan.add(route, &tenants, options);
    for tenant in &tenants {
        for migration in route.migrations_from(tenant.version) {
            let schema = tenant.id.schema().to_string();
            let dropped = loss::dropped(migration.require_down()?);
            named
                .extend(dropped.into_iter().map(|d| (schema.clone(), tenant.subdomain.clone(), d)));
        }
    }
    if options.public {
        let applied = ledger::applied_to(&tx, "public").await?;
        let head = ledger::newest(&applied);
        for migration in migrations.public.down_from(head, options.public_goal(migrations, to)) {
            let dropped = loss::dropped(migration.require_down()?);
            if loss::drops_register(migration.require_down()?) {
                require_no_tenants(&tx, to).await?;
            }
            named.extend(dropped.into_iter().map(|d| ("public".to_owned(), None, d)));
            plan.public.push(PendingFile::new(migration));
        }
    }
    plan.losses = loss::find(&tx, named).await?;
    Ok(plan)
}

impl Plan {
    fn empty() -> Self {
        Self {
            public: Vec::new(),
            tenant_files: Vec::new(),
            tenants: 0,
            repeatables_only: 0,
            waves: Vec::new(),
            losses: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.public.is_empty() && self.tenants == 0
    }

    fn add(&mut self, route: Route<'_>, tenants: &[Standing], options: &RolloutOptions) {
        self.tenants = tenants.len();
        let mut files: BTreeMap<i64, PlannedFile> = BTreeMap::new();
        for tenant in tenants {
            let migrations = route.migrations_from(tenant.version);
            self.repeatables_only += usize::from(migrations.is_empty());
            for migration in migrations {
                let new = || PlannedFile { file: PendingFile::new(migration), tenants: 0 };
                files.entry(migration.version).or_insert_with(new).tenants += 1;
            }
        }
        self.tenant_files = files.into_values().collect();
        if matches!(options.direction, Direction::Down { .. }) {
            self.tenant_files.reverse();
        }
        let ends = waves::ends(&options.waves, tenants.len());
        let begins = std::iter::once(0).chain(ends.iter().copied());
        self.waves = begins.zip(&ends).map(|(begin, end)| end - begin).collect();
    }
}

/// Without the record of runs, no tenant can be taken back.
async fn require_nobody_above(
    db: &impl GenericClient,
    migrations: &Migrations,
    to: i64,
) -> Result<(), Error> {
    let applied = ledger::applied_to(db, "public").await?;
    let Some(found) = applied.iter().map(|entry| entry.version).max() else { return Ok(()) };
    let row = db
        .query_typed_one(
            "SELECT count(*) FROM public.tenants
             WHERE status NOT IN ('purging', 'purged') AND schema_version > $1",
            &[(&to, Type::INT8)],
        )
        .await
        .doing("count tenants")?;
    match row.get(0) {
        0_i64 => Ok(()),
        _ => {
            let set = &migrations.public;
            Err(Error::Behind { set: set.kind(), found, needed: set.head() })
        }
    }
}

/// Whoever drops the register leaves schemas behind that nobody knows of any more.
async fn require_no_tenants(db: &impl GenericClient, to: i64) -> Result<(), Error> {
    let row = db
        .query_typed_one("SELECT count(*) FROM public.tenants WHERE status <> 'purged'", &[])
        .await
        .doing("count tenants")?;
    match row.get(0) {
        0 => Ok(()),
        tenants => Err(MigrationError::TenantsExist { tenants, to }.into()),
    }
}

/// The version to go back to so that so many steps are taken back: of everything, or of some tenants.
///
/// # Errors
/// [`Error::Migration`] where fewer are applied.
pub async fn steps_back(admin: &AdminDb, tenants: &Tenants, steps: usize) -> Result<i64, Error> {
    let db = admin.connection().await?;
    if !ledger::exists(&**db).await? {
        return Err(MigrationError::TooFarBack { steps, applied: 0 }.into());
    }
    let only: Option<Vec<String>> = match tenants {
        Tenants::Only(ids) => Some(ids.iter().map(|id| id.schema().to_string()).collect()),
        Tenants::All | Tenants::None => None,
    };
    let rows = db
        .query_typed(
            "SELECT DISTINCT version FROM public.migrations
             WHERE $1::text[] IS NULL OR schema_name = ANY ($1) ORDER BY version DESC",
            &[(&only, Type::TEXT_ARRAY)],
        )
        .await
        .doing("read the migration ledger")?;
    let versions: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    if versions.len() < steps {
        let applied = versions.len();
        return Err(MigrationError::TooFarBack { steps, applied }.into());
    }
    Ok(versions.get(steps).copied().unwrap_or(0))
}
