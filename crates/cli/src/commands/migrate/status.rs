//! Where the sets and the tenants stand.

use tenantry_db::migrate::{self, FleetStatus, Migrations, Run, Tenants, TenantsAtVersion};
use tenantry_db::models::tenants;
use tenantry_db::{Config, ReaderDb, TenantRef};

use super::drift::{self, WithDrift};
use super::rollout::failure_text;
use crate::args::{Common, MigrateStatus};
use crate::exit::Exit;
use crate::output;

pub(super) async fn run(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigrateStatus,
) -> anyhow::Result<Exit> {
    let reader = ReaderDb::new(config)?;
    if let Some(tenant) = &args.tenant {
        return tenant_status(common, config, &reader, migrations, (tenant, args.drift)).await;
    }
    let status = migrate::fleet_status(&reader, migrations).await?;
    let drift = match args.drift {
        true => Some(drift::look(config, &reader, migrations, &Tenants::All).await?),
        false => None,
    };
    let status = WithDrift { status, drift };
    output::data(common.output, &status, |all| fleet_text(&all.status) + &all.drift_text())?;
    Ok(Exit::Done)
}

pub(in crate::commands) fn fleet_text(fleet: &FleetStatus) -> String {
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
        text += &format!("behind: {}\n", fleet.behind_count);
    }
    for tenant in &fleet.behind {
        let name = tenant.subdomain.as_deref().unwrap_or("(ready)");
        text += &format!("  {} {name} at version {}\n", tenant.id, tenant.version);
    }
    if fleet.behind_truncated {
        text += "  and more\n";
    }
    for failure in &fleet.failures {
        text += &format!("{}\n", failure_text(failure));
    }
    for halfway in &fleet.halfway {
        text += &format!(
            "half way: {} in version {} ({}), {} statements done\n",
            halfway.name(),
            halfway.version,
            halfway.direction,
            halfway.statements_done
        );
    }
    if let Some(run) = &fleet.last_run {
        text += &run_text(run);
    }
    for remark in &fleet.remarks {
        text += &format!("note: {remark}\n");
    }
    text
}

fn run_text(run: &Run) -> String {
    let state = run.state.to_string();
    let when = run.ended_at.unwrap_or(run.updated_at);
    let tenants = run.tenants;
    format!(
        "last run: {} by {}, {state} at {when}: {} of {} tenants, {} failed\n",
        run.direction, run.actor, tenants.done, tenants.total, tenants.failed
    )
}

async fn tenant_status(
    common: &Common,
    config: &Config,
    reader: &ReaderDb,
    migrations: &Migrations,
    (tenant, drift): (&TenantRef, bool),
) -> anyhow::Result<Exit> {
    let tenant = tenants::get_tenant(reader, tenant).await?;
    let status =
        migrate::set_status(reader, &migrations.tenant, &tenant.schema().to_string()).await?;
    let drift = match drift {
        true => {
            let only = Tenants::Only(vec![tenant.id]);
            Some(drift::look(config, reader, migrations, &only).await?)
        }
        false => None,
    };
    let status = WithDrift { status, drift };
    output::data(common.output, &status, |all| {
        let status = &all.status;
        let mut text =
            format!("{}: version {} of {}\n", tenant.schema(), status.applied, status.head);
        for pending in &status.pending {
            text += &format!("  pending: `{}`\n", pending.file);
        }
        text + &all.drift_text()
    })?;
    Ok(Exit::Done)
}
