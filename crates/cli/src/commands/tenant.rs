//! `tenantry tenant`: creating, showing, suspending and resuming tenants. What concerns deletion has a
//! file of its own.

use serde::Serialize;
use serde_json::{Map, json};
use tenantry_db::lifecycle::{self, NewTenant};
use tenantry_db::migrate::Migrations;
use tenantry_db::models::page::Page;
use tenantry_db::models::tenants::{self, Status, Tenant as Row, TenantFilter};
use tenantry_db::{AdminDb, Config, Error, ReaderDb, TenantRef};

use super::{actor, certificate, deletion, exec, psql, transfer};
use crate::args::{Common, Format, Tenant, TenantCreate, TenantList};
use crate::exit::Exit;
use crate::steps::Step;
use crate::{config_file, output};

pub(super) async fn run(common: &Common, command: &Tenant) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    match command {
        Tenant::Create(args) => create(common, &config, args).await?,
        Tenant::List(args) => list(common, &config, args).await?,
        Tenant::Show { tenant } => show(common, &config, tenant).await?,
        Tenant::Suspend { tenant, now } => suspend(common, &config, tenant, *now).await?,
        Tenant::Resume { tenant } => resume(common, &config, tenant).await?,
        Tenant::Delete(args) => deletion::delete(common, &config, args).await?,
        Tenant::Restore { tenant } => deletion::restore(common, &config, tenant).await?,
        Tenant::Purge(args) if args.from_ledger => {
            return deletion::purge_from_ledger(common, &config).await;
        }
        Tenant::Purge(args) => deletion::purge(common, &config, args).await?,
        Tenant::Certificate(args) => return certificate::run(common, &config, args).await,
        Tenant::Hold { tenant } => deletion::hold(common, &config, tenant, true).await?,
        Tenant::Unhold { tenant } => deletion::hold(common, &config, tenant, false).await?,
        Tenant::Export(args) => transfer::export(common, &config, args).await?,
        Tenant::Import(args) => transfer::import(common, &config, args).await?,
        Tenant::Exec(args) => return exec::run(common, &config, args).await,
        Tenant::Psql(args) => return psql::run(&config, args).await,
    }
    Ok(Exit::Done)
}

async fn create(common: &Common, config: &Config, args: &TenantCreate) -> anyhow::Result<()> {
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    let new =
        NewTenant::new(config, &args.name, &args.subdomain, args.tier.as_deref(), Map::new())?;
    let admin = AdminDb::new(config)?;
    let tenant = lifecycle::create_tenant(&admin, &migrations, &new, &actor()).await?;
    print(common, &tenant)
}

async fn list(common: &Common, config: &Config, args: &TenantList) -> anyhow::Result<()> {
    const PAGE: u16 = 1000;
    let reader = ReaderDb::new(config)?;
    let filter = TenantFilter { status: args.status, tier: args.tier.clone(), text: None };
    let mut all: Vec<Row> = Vec::new();
    let mut page = Page::first(PAGE);
    loop {
        let listed = tenants::list_tenants(&reader, &filter, &page).await?;
        all.extend(listed.rows);
        page.after = listed.next;
        if page.after.is_none() {
            break;
        }
    }
    match common.output {
        Format::Json => output::data(Format::Json, &json!({ "data": all }), |_| String::new()),
        Format::Text => output::print(&list_text(&all)),
    }
}

fn list_text(tenants: &[Row]) -> String {
    if tenants.is_empty() {
        return "no tenants\n".to_owned();
    }
    let row = |t: &Row| {
        vec![
            t.id.to_string(),
            t.subdomain.clone().unwrap_or_else(|| "-".to_owned()),
            t.tier.clone(),
            t.status.to_string(),
            t.lane.to_string(),
            t.schema_version.to_string(),
            t.name.clone(),
        ]
    };
    let heading = ["ID", "SUBDOMAIN", "TIER", "STATUS", "LANE", "VERSION", "NAME"];
    output::table(&heading, &tenants.iter().map(row).collect::<Vec<_>>())
}

async fn show(common: &Common, config: &Config, tenant: &TenantRef) -> anyhow::Result<()> {
    let tenant = tenants::get_tenant(&ReaderDb::new(config)?, tenant).await?;
    print(common, &tenant)
}

async fn suspend(
    common: &Common,
    config: &Config,
    tenant: &TenantRef,
    now: bool,
) -> anyhow::Result<()> {
    let id = tenants::get_tenant(&ReaderDb::new(config)?, tenant).await?.id;
    let admin = AdminDb::new(config)?;
    let row = if now {
        let step = Step::begin("waiting for the transactions of its lane");
        let (row, ended) = lifecycle::suspend_tenant_now(&admin, id, &actor()).await?;
        step.end(&match ended {
            0 => "no older transaction of its lane is left".to_owned(),
            n => format!("no older transaction of its lane is left: {n} were ended"),
        });
        row
    } else {
        lifecycle::suspend_tenant(&admin, id, &actor()).await?
    };
    print(common, &row)
}

async fn resume(common: &Common, config: &Config, tenant: &TenantRef) -> anyhow::Result<()> {
    let id = tenants::get_tenant(&ReaderDb::new(config)?, tenant).await?.id;
    let row = lifecycle::resume_tenant(&AdminDb::new(config)?, id, &actor()).await?;
    print(common, &row)
}

/// A tenant with what follows from its id.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    tenant: &'a Row,
    schema: String,
}

pub(super) fn print(common: &Common, tenant: &Row) -> anyhow::Result<()> {
    let shown = Shown { tenant, schema: tenant.schema().to_string() };
    output::data(common.output, &shown, |shown| details(shown.tenant))
}

fn details(tenant: &Row) -> String {
    let line = |label: &str, value: &str| format!("{label:<15} {value}\n");
    let mut text = line("id", &tenant.id.to_string());
    text += &line("name", &tenant.name);
    text += &line("subdomain", tenant.subdomain.as_deref().unwrap_or("-"));
    text += &line("tier", &tenant.tier);
    text += &line("status", tenant.status.as_str());
    text += &line("schema and role", &tenant.schema().to_string());
    text += &line("schema version", &tenant.schema_version.to_string());
    text += &line("lane", &tenant.lane.to_string());
    if tenant.legal_hold {
        text += &line("legal hold", "yes");
    }
    for (label, at) in [
        ("deleted", tenant.deleted_at),
        ("restore until", tenant.purge_after.filter(|_| tenant.status == Status::Deleted)),
        ("purged", tenant.purged_at),
    ] {
        if let Some(at) = at {
            text += &line(label, &at.to_string());
        }
    }
    text + &line("created", &tenant.created_at.to_string())
}
