//! What a run would do.

use tenantry_db::migrate::{self, Direction, Migrations, PendingFile, Plan, Tenants};
use tenantry_db::{Config, ReaderDb};

use super::{chosen, options};
use crate::args::{Common, MigratePlan, Set};
use crate::exit::Exit;
use crate::output::{self, say};

pub(super) async fn run(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigratePlan,
) -> anyhow::Result<Exit> {
    args.require_known_version(migrations)?;
    let mut options = options(config, &args.wave);
    options.direction = Direction::Up { to: args.to };
    options.public = args.wants(Set::Public);
    options.tenants = match args.wants(Set::Tenant) {
        true => chosen(config, &args.tenant).await?,
        false => Tenants::None,
    };
    let plan = migrate::plan(&ReaderDb::new(config)?, migrations, &options).await?;
    print(common, &plan, "run in")
}

pub(super) fn print(common: &Common, plan: &Plan, doing: &str) -> anyhow::Result<Exit> {
    for remark in &plan.remarks {
        say(&format!("note: {remark}"));
    }
    output::data(common.output, plan, |plan| text(plan, doing))?;
    Ok(Exit::Done)
}

fn text(plan: &Plan, doing: &str) -> String {
    if plan.is_empty() {
        return "nothing to do\n".to_owned();
    }
    let mut text = String::new();
    for file in &plan.public {
        text += &format!("public: {}\n", shown(file));
    }
    if plan.tenants > 0 {
        let waves: Vec<String> = plan.waves.iter().map(ToString::to_string).collect();
        text += &format!("tenants: {}, in waves of {}\n", plan.tenants, waves.join(", "));
    }
    for planned in &plan.tenant_files {
        text += &format!("  {} would {doing} {}\n", shown(&planned.file), planned.tenants);
    }
    if plan.repeatables_only > 0 {
        text += &format!("  the repeatable files would {doing} {}\n", plan.repeatables_only);
    }
    if !plan.losses.is_empty() {
        text += "would be lost:\n";
    }
    for loss in &plan.losses {
        text += &format!("  {loss}\n");
    }
    text
}

fn shown(file: &PendingFile) -> String {
    let mut shown = format!("`{}`", file.file);
    if !file.transactional {
        shown += " (outside a transaction)";
    }
    if !file.reversible {
        shown += " (irreversible)";
    }
    shown
}
