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
        // 32 lines that differ in a number tell less than one.
        let is_lane = |what: &&String| what.contains("_lane_") && what.ends_with("created");
        let lanes = report.changed.iter().filter(is_lane).count();
        let lanes = (lanes > 0).then(|| format!("{lanes} lane roles created\n"));
        let changed = report.changed.iter().filter(|what| !is_lane(what));
        let changed = changed.map(|what| format!("{what}\n")).chain(lanes);
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
