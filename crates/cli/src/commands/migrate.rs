//! `tenantry migrate`: bringing schemas to a version.

use serde::Serialize;
use serde_json::json;
use tenantry_db::migrate::{
    self, AppliedNow, FleetStatus, MigrationSet, Migrations, TenantsAtVersion,
};
use tenantry_db::models::tenants::{self, Tenant};
use tenantry_db::{AdminDb, Config, Error, ReaderDb, TenantId, TenantRef};

use super::migrate_lint;
use crate::args::{Common, Migrate, MigrateRun, MigrateStatus, Set};
use crate::exit::{Exit, Failure};
use crate::{config_file, output};

pub(super) async fn run(common: &Common, command: &Migrate) -> anyhow::Result<Exit> {
    match command {
        Migrate::Run(args) => {
            let (config, migrations) = load(common)?;
            match args.dry_run {
                true => dry_run(common, &config, &migrations, args).await,
                false => apply(common, &config, &migrations, args).await,
            }
        }
        Migrate::Status(args) => {
            let (config, migrations) = load(common)?;
            status(common, &config, &migrations, args).await
        }
        // It needs no database, so no configuration of one.
        Migrate::Lint(args) => migrate_lint::run(common, args),
    }
}

fn load(common: &Common) -> anyhow::Result<(Config, Migrations)> {
    let config = config_file::load(common)?;
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    Ok((config, migrations))
}

/// What a run applied.
#[derive(Serialize)]
struct Done {
    schema: String,
    version: i64,
    name: String,
    duration_ms: u64,
}

impl Done {
    fn new(schema: String, applied: &AppliedNow) -> Self {
        let duration_ms = u64::try_from(applied.took.as_millis()).unwrap_or(u64::MAX);
        Self { schema, version: applied.version, name: applied.name.clone(), duration_ms }
    }

    fn line(&self) -> String {
        format!("{}: {:04}_{} ({} ms)", self.schema, self.version, self.name, self.duration_ms)
    }
}

fn wants(args: &MigrateRun, set: Set) -> bool {
    match args.set {
        Some(only) => only == set,
        None => set == Set::Tenant || args.tenant.is_empty(),
    }
}

fn require_version(set: &MigrationSet, to: Option<i64>) -> anyhow::Result<()> {
    match to {
        Some(to) if !set.migrations().iter().any(|m| m.version == to) => Err(Failure::new(
            Exit::Usage,
            format!("the {} set has no version {to}", set.kind()),
            format!("its newest is {}", set.head()),
        )
        .into()),
        _ => Ok(()),
    }
}

/// The versions of the two sets are one sequence, so `--to` must be one of either.
fn require_known_version(migrations: &Migrations, args: &MigrateRun) -> anyhow::Result<()> {
    match (wants(args, Set::Public), wants(args, Set::Tenant)) {
        (true, true) => require_version(&migrations.public, args.to)
            .or_else(|error| require_version(&migrations.tenant, args.to).map_err(|_| error)),
        (true, false) => require_version(&migrations.public, args.to),
        _ => require_version(&migrations.tenant, args.to),
    }
}

async fn apply(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigrateRun,
) -> anyhow::Result<Exit> {
    require_known_version(migrations, args)?;
    let admin = AdminDb::new(config)?;
    let mut done: Vec<Done> = Vec::new();
    if wants(args, Set::Public) {
        migrate::migrate_public(&admin, &migrations.public, args.to, |now| {
            let now = Done::new("public".to_owned(), now);
            output::say(&now.line());
            done.push(now);
        })
        .await?;
    }
    let mut failure = None;
    if wants(args, Set::Tenant) {
        let mut migrated = 0_usize;
        for tenant in tenants_to_migrate(config, migrations, args).await? {
            let result = migrate::migrate_tenant(&admin, migrations, tenant, args.to, |now| {
                let now = Done::new(tenant.schema().to_string(), now);
                output::say(&now.line());
                done.push(now);
            })
            .await;
            match result {
                Ok(_) => migrated += 1,
                Err(error) if migrated == 0 => return Err(error.into()),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
    }
    output::data(
        common.output,
        &json!({ "applied": done, "complete": failure.is_none() }),
        |_| {
            if done.is_empty() {
                "nothing to do\n".to_owned()
            } else {
                format!("{} applied\n", done.len())
            }
        },
    )?;
    match failure {
        None => Ok(Exit::Done),
        Some(error) => {
            output::report(
                &anyhow::Error::from(error).context("stopped at the first tenant that failed"),
            );
            Ok(Exit::Partly)
        }
    }
}

/// The named tenants, or all that are behind.
async fn tenants_to_migrate(
    config: &Config,
    migrations: &Migrations,
    args: &MigrateRun,
) -> anyhow::Result<Vec<TenantId>> {
    let reader = ReaderDb::new(config)?;
    // Also where all are at head: an edited file is to be known before the next tenant has it.
    migrate::check_tenant_ledger(&reader, &migrations.tenant).await?;
    if args.tenant.is_empty() {
        let target = args.to.unwrap_or(i64::MAX).min(migrations.tenant.head());
        return Ok(tenants::behind(&reader, target).await?);
    }
    let mut ids = Vec::new();
    for tenant in &args.tenant {
        ids.push(tenants::get_tenant(&reader, tenant).await?.id);
    }
    Ok(ids)
}

async fn dry_run(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigrateRun,
) -> anyhow::Result<Exit> {
    require_known_version(migrations, args)?;
    let within = |version: i64| args.to.is_none_or(|to| version <= to);
    let fleet = migrate::fleet_status(&ReaderDb::new(config)?, migrations).await?;
    let public: Vec<_> = match wants(args, Set::Public) {
        true => fleet.public.pending.iter().filter(|f| within(f.version)).collect(),
        false => Vec::new(),
    };
    let tenants = match wants(args, Set::Tenant) && fleet.public.applied > 0 {
        true => tenants_to_migrate(config, migrations, args).await?.len(),
        false => 0,
    };
    output::data(common.output, &json!({ "public": public, "tenants": tenants }), |_| {
        let files: String = public.iter().map(|f| format!("public: `{}`\n", f.file)).collect();
        if files.is_empty() && tenants == 0 {
            return "nothing to do\n".to_owned();
        }
        format!("{files}tenants to migrate: {tenants}\n")
    })?;
    Ok(Exit::Done)
}

async fn status(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigrateStatus,
) -> anyhow::Result<Exit> {
    let reader = ReaderDb::new(config)?;
    if let Some(tenant) = &args.tenant {
        return tenant_status(common, &reader, migrations, tenant).await;
    }
    let fleet = migrate::fleet_status(&reader, migrations).await?;
    output::data(common.output, &fleet, fleet_text)?;
    Ok(Exit::Done)
}

pub(super) fn fleet_text(fleet: &FleetStatus) -> String {
    let mut text = format!("public: version {} of {}\n", fleet.public.applied, fleet.public.head);
    for pending in &fleet.public.pending {
        text += &format!("  pending: `{}`\n", pending.file);
    }
    text += &format!("tenants: newest version {}\n", fleet.tenant_head);
    for TenantsAtVersion { version, tenants } in &fleet.tenants_by_version {
        text += &format!("  {tenants} at version {version}\n");
    }
    if fleet.tenants_by_version.is_empty() {
        text += "  none yet\n";
    }
    if !fleet.behind.is_empty() {
        text += "behind:\n";
    }
    for tenant in &fleet.behind {
        let name = tenant.subdomain.as_deref().unwrap_or("-");
        text += &format!("  {} {name} at version {}\n", tenant.id, tenant.version);
    }
    if fleet.behind_truncated {
        text += "  and more\n";
    }
    text
}

async fn tenant_status(
    common: &Common,
    reader: &ReaderDb,
    migrations: &Migrations,
    tenant: &TenantRef,
) -> anyhow::Result<Exit> {
    let tenant: Tenant = tenants::get_tenant(reader, tenant).await?;
    let status =
        migrate::set_status(reader, &migrations.tenant, &tenant.schema().to_string()).await?;
    output::data(common.output, &status, |status| {
        let mut text =
            format!("{}: version {} of {}\n", tenant.schema(), status.applied, status.head);
        for pending in &status.pending {
            text += &format!("  pending: `{}`\n", pending.file);
        }
        text
    })?;
    Ok(Exit::Done)
}
