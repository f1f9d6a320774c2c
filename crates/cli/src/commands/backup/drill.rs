//! `tenantry backup drill`.

use std::fmt::Write as _;

use tenantry_backup::{Drilled, Engine, Progress as Copied};
use tenantry_db::{AdminDb, Config};

use crate::args::Common;
use crate::exit::Exit;
use crate::output;
use crate::steps::Progress;

pub(super) async fn run(common: &Common, config: &Config, engine: &Engine) -> anyhow::Result<Exit> {
    let bar = Progress::begin("restoring files, in percent");
    let drilled = engine.drill(config, |now| {
        if let Copied::Copying { percent } = now {
            bar.at_percent(percent);
        }
    });
    let drilled = drilled.await?;
    drop(bar);
    // Whoever watches learns of it now, if the server runs.
    let admin = AdminDb::new(config)?;
    if let Err(error) = engine.report(&admin).await {
        tracing::warn!(%error, "the report on the backups was not stored");
    }
    output::data(common.output, &drilled, text)?;
    Ok(if drilled.ok { Exit::Done } else { Exit::Failed })
}

fn text(drilled: &Drilled) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: &str| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<16}{value}");
    };
    put("drill", if drilled.ok { "the backup can be restored" } else { "FAILED" });
    put("backup", drilled.backup.as_deref().unwrap_or("-"));
    put("took", &format!("{:.1} s", drilled.took_s));
    if let Some(restore_s) = drilled.restore_s {
        put("answered after", &format!("{restore_s:.1} s"));
    }
    if let Some(loss) = drilled.loss_window_s {
        put("would be lost", &format!("{loss:.0} s, had the server been lost then"));
    }
    for check in &drilled.checks {
        let sign = if check.ok { "ok" } else { "FAILED" };
        put(&check.name, &format!("{sign:<8}{}", check.detail));
    }
    text
}
