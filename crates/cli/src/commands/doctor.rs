//! `tenantry doctor`: every check, its finding, and what to do.

use std::os::unix::fs::PermissionsExt as _;

use jiff::Timestamp;
use tenantry_db::doctor::{self, Check, Outcome};
use tenantry_db::migrate::Migrations;

use super::backup::Glance;
use crate::args::Common;
use crate::exit::Exit;
use crate::{config_file, output};

pub(super) async fn run(common: &Common) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    let migrations = Migrations::load(&config.migrations).map_err(tenantry_db::Error::from)?;
    let mut checks = vec![configuration_file(common)?];
    checks.extend(doctor::examine(&config, &migrations).await);
    checks.push(Glance::take(&config).await.check(Timestamp::now()));
    output::data(common.output, &checks, |checks| checks.iter().map(line).collect())?;
    let worst = checks.iter().map(|check| check.outcome).max();
    Ok(if worst == Some(Outcome::Failed) { Exit::Failed } else { Exit::Done })
}

/// Whose eyes the passwords in the file are open to.
fn configuration_file(common: &Common) -> anyhow::Result<Check> {
    const NAME: &str = "file";
    let Some(file) = config_file::file(common)? else {
        return Ok(Check::ok(NAME, "none: everything comes from the environment"));
    };
    let mode = std::fs::metadata(&file)?.permissions().mode() & 0o777;
    let shown = file.display();
    Ok(if mode & 0o077 == 0 {
        Check::ok(NAME, format!("`{shown}`, for its owner only"))
    } else {
        Check::warning(
            NAME,
            format!("`{shown}` holds passwords and has mode {mode:o}"),
            format!("chmod 600 {shown}"),
        )
    })
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
