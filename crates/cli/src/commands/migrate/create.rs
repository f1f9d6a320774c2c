//! Writing the files of a new migration.

use std::path::PathBuf;

use serde_json::json;
use tenantry_db::migrate::{SetKind, template};
use tenantry_db::{Config, Error};

use crate::args::{Common, MigrateCreate, Set};
use crate::config_file;
use crate::exit::{Exit, Failure};
use crate::output::{self, say};

pub(super) fn run(common: &Common, args: &MigrateCreate) -> anyhow::Result<Exit> {
    let config = Config::from_layers(config_file::layers(common)?)?;
    let configured = config.migrations.dir;
    let Some(dir) = args.dir.clone().or_else(|| configured.clone()) else {
        return Err(Failure::new(
            Exit::Usage,
            "no directory of migrations: `migrations.dir` is not set",
            "`--dir migrations` makes one, with the built-in files to begin with",
        )
        .into());
    };
    let mut written: Vec<PathBuf> = template::add_built_in(&dir).map_err(Error::from)?;
    if let Some(name) = &args.name {
        let set = match args.set {
            Set::Public => SetKind::Public,
            Set::Tenant => SetKind::Tenant,
        };
        written.extend(template::create(&dir, set, name).map_err(Error::from)?);
    }
    let shown: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    output::data(common.output, &json!({ "written": shown }), |_| match shown.as_slice() {
        [] => "nothing is missing\n".to_owned(),
        shown => shown.iter().map(|path| format!("{path}\n")).collect(),
    })?;
    if configured.is_none() {
        // Absolute, since a relative one is meant from the configuration file's own directory.
        let dir = std::fs::canonicalize(&dir).unwrap_or(dir);
        let shown = dir.display();
        let file = config_file::file(common)?
            .map_or_else(String::new, |file| format!(" in `{}`", file.display()));
        say(&format!(
            "hint: put `[migrations]` and `dir = \"{shown}\"`{file}, so that they are used"
        ));
    }
    Ok(Exit::Done)
}
