//! `tenantry backup run`, `list` and `check`; the others in files of their own.

mod drill;
mod glance;
mod restore;
mod tenant;

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use tenantry_backup::health::{Examination, UNREADABLE};
use tenantry_backup::{
    Backup as Made, BackupKind, Due, Engine, Progress as Copied, Settings, run_if_due,
};
use tenantry_db::doctor::Outcome;
use tenantry_db::models::backups::BackupCheck as Found;
use tenantry_db::{AdminDb, Config};

pub(super) use self::glance::Glance;
use crate::args::{Backup, BackupCheck, BackupRun, Common};
use crate::exit::Exit;
use crate::output::{self, say, table};
use crate::signals::StopSignal;
use crate::steps::Progress;
use crate::{config_file, steps};

pub(super) async fn run(common: &Common, command: &Backup) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    // A signal drops what is under way, and with it pgBackRest is told to end.
    let mut stop = StopSignal::listen()?;
    let done = async {
        if let Backup::RestoreTenant(args) = command
            && args.undo
        {
            return tenant::undo(common, &config, args).await;
        }
        let engine = Engine::open(Settings::of_host(&config)?).await?;
        match command {
            Backup::Run(args) => make(common, &config, &engine, args).await,
            Backup::List => list(common, &config, &engine).await,
            Backup::Check(args) => check(common, &config, &engine, args).await,
            Backup::Drill => drill::run(common, &config, &engine).await,
            Backup::Restore(args) => restore::run(common, &config, &engine, args).await,
            Backup::RestoreTenant(args) => tenant::run(common, &config, &engine, args).await,
        }
    };
    tokio::select! {
        done = done => done,
        () = stop.wait() => {
            say(match command {
                Backup::Drill | Backup::Restore(_) => "stopped; nothing was changed",
                Backup::RestoreTenant(_) => {
                    "stopped; the tenant is what it was, unless the change of names had been made just then: \
                     `tenantry backup restore-tenant --undo` tells"
                }
                Backup::Run(_) | Backup::List | Backup::Check(_) => {
                    "stopped; what was copied is used by the next backup"
                }
            });
            Ok(Exit::Failed)
        }
    }
}

async fn make(
    common: &Common,
    config: &Config,
    engine: &Engine,
    args: &BackupRun,
) -> anyhow::Result<Exit> {
    let admin = AdminDb::new(config)?;
    let bar = Bar::new();
    let made = if args.if_due {
        run_if_due(engine, &admin, |now| bar.at(now)).await?
    } else {
        let kind = args.kind.unwrap_or(BackupKind::Full);
        let made = engine.back_up_now(&admin, kind, |now| bar.at(now)).await?;
        Some((Due::Full, made))
    };
    drop(bar);
    let made = made.map(|(_, made)| made);
    output::data(common.output, &made, |made| match made {
        Some(made) => backups_text(std::slice::from_ref(made)),
        None => "no backup is due\n".to_owned(),
    })?;
    Ok(Exit::Done)
}

/// What is being done: a bar on a terminal, a line now and then elsewhere.
struct Bar {
    copying: Progress,
}

impl Bar {
    fn new() -> Self {
        Self { copying: Progress::begin("copying, in percent") }
    }

    fn at(&self, now: Copied) {
        match now {
            Copied::Copying { percent } => self.copying.at_percent(percent),
            Copied::WaitingForLog => self.copying.say("waiting for the server's log"),
            Copied::Expiring => self.copying.say("removing what is older than the retention"),
        }
    }
}

async fn list(common: &Common, config: &Config, engine: &Engine) -> anyhow::Result<Exit> {
    let admin = AdminDb::new(config)?;
    let step = steps::Step::begin("looking at the repository");
    let found = engine.examine(&admin).await?;
    drop(step);
    output::data(common.output, &found, list_text)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Checked<'a> {
    #[serde(flatten)]
    found: &'a Examination,
    /// What the server needs in its configuration.
    server_settings: Vec<(&'static str, String)>,
}

async fn check(
    common: &Common,
    config: &Config,
    engine: &Engine,
    args: &BackupCheck,
) -> anyhow::Result<Exit> {
    let admin = AdminDb::new(config)?;
    let doing = if args.verify { "reading the repository" } else { "sending a piece of the log" };
    let step = steps::Step::begin(doing);
    let checked = engine.check_now(&admin, args.verify).await;
    drop(step);
    let settings = Engine::server_settings(engine.settings())?;
    let found = match checked {
        Ok(found) => found,
        Err(error) => {
            say("the server needs these settings:");
            settings.iter().for_each(|(name, value)| say(&format!("  {name} = {}", quoted(value))));
            return Err(error.into());
        }
    };
    let shown = Checked { found: &found, server_settings: settings.to_vec() };
    output::data(common.output, &shown, |shown| checks_text(&shown.found.report.checks))?;
    Ok(if found.worst() == Outcome::Failed { Exit::Failed } else { Exit::Done })
}

/// As PostgreSQL's configuration wants it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn list_text(found: &Examination) -> String {
    let mut text = backups_text(&found.backups);
    if found.report.checks.iter().any(|check| check.name == UNREADABLE) {
        "the repository can't be read\n".clone_into(&mut text);
    } else if found.backups.is_empty() {
        "no backups\n".clone_into(&mut text);
    }
    let recoverable = &found.recoverable;
    if !recoverable.windows.is_empty() {
        text += "\nEvery moment can be recovered between\n";
        if damage_is_known(&found.report.checks) {
            text += "  (by the names of the files; some are damaged, see below)\n";
        }
    }
    for window in &recoverable.windows {
        // Writing to a String can't fail.
        let _ =
            writeln!(text, "  {} and {} (timeline {})", window.from, window.to, window.timeline);
    }
    for gap in &recoverable.gaps {
        let (n, first) = (gap.segments, gap.first);
        let _ = writeln!(
            text,
            "missing: {n} segments from {first} on, {} to {}",
            gap.after, gap.before
        );
    }
    for label in &recoverable.broken_backups {
        let _ = writeln!(text, "worthless, since a segment of its own is missing: {label}");
    }
    let bad: Vec<Found> =
        found.report.checks.iter().filter(|it| it.outcome != Outcome::Ok).cloned().collect();
    if !bad.is_empty() {
        text += "\n";
        text += &checks_text(&bad);
    }
    text
}

/// Which moments lie behind it is only known once one of them is restored.
fn damage_is_known(checks: &[Found]) -> bool {
    let tells = |check: &Found| matches!(check.name.as_str(), "verify" | "drill");
    checks.iter().any(|check| tells(check) && check.outcome == Outcome::Failed)
}

fn backups_text(backups: &[Made]) -> String {
    if backups.is_empty() {
        return String::new();
    }
    let row = |backup: &Made| {
        let took = backup.stopped_at.duration_since(backup.started_at);
        vec![
            backup.label.clone(),
            backup.kind.as_str().to_owned(),
            shown(backup.stopped_at),
            format!("{} s", took.as_secs()),
            mebibytes(backup.size_bytes),
            mebibytes(backup.repository_bytes),
        ]
    };
    let rows: Vec<_> = backups.iter().map(row).collect();
    table(&["BACKUP", "TYPE", "COMPLETE", "TOOK", "SERVER", "ADDED"], &rows)
}

fn shown(time: Timestamp) -> String {
    format!("{time:.0}")
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn checks_text(checks: &[Found]) -> String {
    let line = |check: &Found| {
        let sign = match check.outcome {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Failed => "FAILED",
        };
        let hint = check.hint.as_ref();
        let hint = hint.map_or_else(String::new, |hint| format!("{:28}hint: {hint}\n", ""));
        format!("{sign:<8}  {:<16}  {}\n{hint}", check.name, first_line(&check.detail))
    };
    checks.iter().map(line).collect()
}

/// The rest would break a table; it is in JSON.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
