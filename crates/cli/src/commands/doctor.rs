//! `tenantry doctor`: every check, its finding, and what to do.

use tenantry_db::doctor::{self, Check, Outcome};
use tenantry_db::migrate::Migrations;

use crate::args::Common;
use crate::exit::Exit;
use crate::{config_file, output};

pub(super) async fn run(common: &Common) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    let migrations = Migrations::load(&config.migrations).map_err(tenantry_db::Error::from)?;
    let checks = doctor::examine(&config, &migrations).await;
    output::data(common.output, &checks, |checks| checks.iter().map(line).collect())?;
    let worst = checks.iter().map(|check| check.outcome).max();
    Ok(if worst == Some(Outcome::Failed) { Exit::Failed } else { Exit::Done })
}

fn line(check: &Check) -> String {
    let sign = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "warning",
        Outcome::Failed => "FAILED",
    };
    let hint =
        check.hint.as_ref().map_or_else(String::new, |hint| format!("{:26}hint: {hint}\n", ""));
    format!("{sign:<8}  {:<14}  {}\n{hint}", check.name, check.detail)
}
