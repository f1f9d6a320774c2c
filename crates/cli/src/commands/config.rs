//! `tenantry config`: the settings in effect, and whether they are right.

use serde_json::json;
use tenantry_db::config::DEFAULTS;

use crate::args::{Common, Config, Format};
use crate::exit::Exit;
use crate::{config_file, output};

pub(super) fn run(common: &Common, command: &Config) -> anyhow::Result<Exit> {
    if let Config::Show { defaults: true } = command {
        output::print(DEFAULTS)?;
        return Ok(Exit::Done);
    }
    let config = tenantry_db::Config::from_layers(config_file::layers(common)?)?;
    match command {
        Config::Check => {
            tenantry_api::Settings::from_config(&config)?;
            tenantry_backup::Settings::from_config(&config)?;
            let remarks = config.remarks();
            output::data(common.output, &json!({ "ok": true, "remarks": remarks }), |_| {
                let notes = remarks.iter().map(|remark| format!("note: {remark}\n"));
                notes.chain(["the configuration is right\n".to_owned()]).collect()
            })?;
        }
        Config::Show { .. } => match common.output {
            Format::Text => output::print(&config.show())?,
            Format::Json => output::data(Format::Json, &config.show_json(), |_| String::new())?,
        },
    }
    Ok(Exit::Done)
}
