//! `tenantry migrate`: bringing schemas to a version, and back.

mod create;
mod drift;
mod lint;
mod plan;
mod rollout;
mod status;
mod verify;

use tenantry_db::migrate::{MigrationSet, Migrations, Portion, RolloutOptions, Tenants, Tolerance};
use tenantry_db::models::tenants;
use tenantry_db::{Config, Error, ReaderDb, TenantRef};

pub(super) use self::status::fleet_text;
use crate::args::{Common, Migrate, MigratePlan, OnError, Set};
use crate::config_file;
use crate::exit::{Exit, Failure};

pub(super) async fn run(common: &Common, command: &Migrate) -> anyhow::Result<Exit> {
    // What concerns files alone needs no configuration of servers.
    let with_servers = match command {
        Migrate::Create(args) => return create::run(common, args),
        Migrate::Lint(args) => return lint::run(common, args),
        others => others,
    };
    let config = config_file::load(common)?;
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    match with_servers {
        Migrate::Run(args) if args.dry_run => {
            plan::run(common, &config, &migrations, &args.plan).await
        }
        Migrate::Plan(args) => plan::run(common, &config, &migrations, args).await,
        Migrate::Run(args) => rollout::up(common, &config, &migrations, args).await,
        Migrate::Rollback(args) => rollout::down(common, &config, &migrations, args).await,
        Migrate::Status(args) => status::run(common, &config, &migrations, args).await,
        Migrate::Verify(args) => verify::run(common, &config, &migrations, args).await,
        Migrate::Create(_) | Migrate::Lint(_) => Ok(Exit::Done),
    }
}

impl MigratePlan {
    fn wants(&self, set: Set) -> bool {
        match self.set {
            Some(only) => only == set,
            None => set == Set::Tenant || self.tenant.is_empty(),
        }
    }

    /// The versions of the two sets are one sequence, so `--to` must be one of either.
    fn require_known_version(&self, migrations: &Migrations) -> anyhow::Result<()> {
        let known = |set: Set, migrations: &MigrationSet| {
            self.wants(set) && self.to.is_none_or(|to| migrations.find(to).is_some())
        };
        let (public, tenant) = (&migrations.public, &migrations.tenant);
        if known(Set::Public, public) || known(Set::Tenant, tenant) {
            return Ok(());
        }
        let set = if self.wants(Set::Tenant) { tenant } else { public };
        let to = self.to.unwrap_or_default();
        Err(Failure::new(
            Exit::Usage,
            format!("the {} set has no version {to}", set.kind()),
            format!("its newest is {}", set.head()),
        )
        .into())
    }
}

/// What all runs have in common: everything to head, as configured.
fn options(config: &Config, waves: &[Portion]) -> RolloutOptions {
    let mut options = RolloutOptions::to_head(&config.migrations);
    if !waves.is_empty() {
        options.waves = waves.to_vec();
    }
    options
}

fn tolerance(pace: &crate::args::Pace) -> anyhow::Result<Tolerance> {
    match (pace.on_error, pace.max_failures) {
        (OnError::Stop, None) => Ok(Tolerance::Stop),
        (OnError::Continue, max_failures) => Ok(Tolerance::Continue { max_failures }),
        (OnError::Stop, Some(_)) => Err(Failure::new(
            Exit::Usage,
            "`--max-failures` means that failures end no run, and `--on-error stop` that one does",
            "leave one of them out",
        )
        .into()),
    }
}

/// The named tenants, or all.
async fn chosen(config: &Config, named: &[TenantRef]) -> anyhow::Result<Tenants> {
    if named.is_empty() {
        return Ok(Tenants::All);
    }
    let reader = ReaderDb::new(config)?;
    let mut ids = Vec::new();
    for tenant in named {
        ids.push(tenants::get_tenant(&reader, tenant).await?.id);
    }
    Ok(Tenants::Only(ids))
}
