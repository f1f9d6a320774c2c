//! `tenantry init`: roles, database and hardening on an existing server.

use tenantry_db::{Config, init};

use crate::args::{Common, Init};
use crate::exit::Exit;
use crate::{config_file, output};

pub(super) async fn run(common: &Common, args: &Init) -> anyhow::Result<Exit> {
    let mut layers = config_file::layers(common)?;
    if let Some(url) = &args.superuser_url {
        layers = layers.flag("--superuser-url", "init.superuser_url", url.as_str());
    }
    let config = Config::from_layers(layers)?;
    let report = init::init(&config).await?;
    output::data(common.output, &report, |report| {
        let changed = report.changed.iter().map(|what| format!("{what}\n"));
        let skipped = report.skipped.iter().map(|what| format!("not allowed here: {what}\n"));
        let mut text: String = changed.chain(skipped).collect();
        if report.changed.is_empty() {
            text += "roles and database were there already; rights are set\n";
        }
        text
    })?;
    if report.skipped.is_empty() {
        return Ok(Exit::Done);
    }
    output::say(
        "warning: the server did not allow everything; `tenantry doctor` says what it means",
    );
    Ok(Exit::Partly)
}
