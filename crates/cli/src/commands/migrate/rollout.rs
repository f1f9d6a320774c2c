//! Running migrations, up and down: what is shown meanwhile, and what a signal does.

use std::time::Instant;

use tenantry_db::migrate::{
    self, Direction, Event, Migrations, Rollout, RolloutOptions, RolloutReport, RunState,
    SchemaFailure, Stop, Tenants,
};
use tenantry_db::{AdminDb, Config};
use tokio::sync::watch;

use super::{chosen, options, plan, tolerance};
use crate::args::{Common, Format, MigrateRollback, MigrateRun, Set};
use crate::commands::actor;
use crate::exit::Exit;
use crate::output::{self, say};
use crate::signals::StopSignal;
use crate::steps::Progress;

pub(super) async fn up(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigrateRun,
) -> anyhow::Result<Exit> {
    args.plan.require_known_version(migrations)?;
    let mut options = options(config, &args.plan.wave);
    options.direction = Direction::Up { to: args.plan.to };
    options.public = args.plan.wants(Set::Public);
    options.tenants = match args.plan.wants(Set::Tenant) {
        true => chosen(config, &args.plan.tenant).await?,
        false => Tenants::None,
    };
    options.parallel = args.pace.parallel.unwrap_or(options.parallel);
    options.tolerance = tolerance(&args.pace)?;
    options.repair = args.repair;
    run(common, config, migrations, &options).await
}

pub(super) async fn down(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigrateRollback,
) -> anyhow::Result<Exit> {
    let mut options = options(config, &args.wave);
    options.public = args.tenant.is_empty();
    options.tenants = chosen(config, &args.tenant).await?;
    options.parallel = args.pace.parallel.unwrap_or(options.parallel);
    options.tolerance = tolerance(&args.pace)?;
    options.built_in = args.built_in;
    let admin = AdminDb::new(config)?;
    let to = match args.to {
        Some(to) => to,
        None => migrate::steps_back(&admin, &options.tenants, usize::from(args.steps)).await?,
    };
    let accept_data_loss = args.accept_data_loss;
    options.direction = Direction::Down { to, accept_data_loss };
    if args.dry_run {
        let back = migrate::plan_back(&admin, migrations, &options, to).await?;
        return plan::print(common, &back, "be taken back in");
    }
    run(common, config, migrations, &options).await
}

async fn run(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    options: &RolloutOptions,
) -> anyhow::Result<Exit> {
    let (admin, actor) = (AdminDb::new(config)?, actor());
    let (tell, stop) = watch::channel(Stop::Go);
    let mut signal = StopSignal::listen()?;
    let rollout = Rollout { admin: &admin, migrations, actor: &actor, options };
    let mut view = View::new(common);
    let started = Instant::now();
    let ended = {
        let mut running = std::pin::pin!(rollout.run(stop, |event| view.show(&event)));
        loop {
            tokio::select! {
                ended = &mut running => break ended,
                () = signal.wait() => {
                    let next = if *tell.borrow() == Stop::Go { Stop::Finish } else { Stop::Cancel };
                    tell.send_replace(next);
                }
            }
        }
    };
    view.end();
    let report = ended?;
    let seconds = started.elapsed().as_secs_f64();
    output::data(common.output, &report, |report| summary(report, options, seconds))?;
    Ok(conclude(report))
}

fn summary(report: &RolloutReport, options: &RolloutOptions, seconds: f64) -> String {
    let verb = match options.direction {
        Direction::Up { .. } => "applied",
        Direction::Down { .. } => "taken back",
    };
    if report.public == 0 && report.tenants.total == 0 {
        return "nothing to do\n".to_owned();
    }
    let mut text = String::new();
    if report.public > 0 {
        text += &format!("public: {} {verb}\n", report.public);
    }
    let tenants = report.tenants;
    if tenants.total > 0 {
        let rate = tenants.done as f64 / seconds.max(f64::MIN_POSITIVE);
        text += &format!(
            "tenants: {} of {} done in {seconds:.1} s ({rate:.0}/s)",
            tenants.done, tenants.total
        );
        let others = [
            (tenants.failed, "failed"),
            (tenants.skipped, "purged meanwhile"),
            (report.left, "left"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            text += &format!(", {count} {what}");
        }
        text.push('\n');
    }
    text
}

fn conclude(report: RolloutReport) -> Exit {
    let partly = if report.public + report.tenants.done > 0 { Exit::Partly } else { Exit::Failed };
    match (report.state, report.error) {
        (_, Some(error)) => {
            output::report(&anyhow::Error::from(error).context("the run broke off"));
            partly
        }
        (RunState::Complete, None) => {
            if report.left > 0 {
                say("note: the waves that were asked for are through; run again for the others");
            }
            Exit::Done
        }
        (RunState::Interrupted, None) => {
            say("stopped: what was through stays, what was not was rolled back");
            say("hint: run again to go on from there");
            partly
        }
        (RunState::Failed | RunState::Running, None) => {
            say(
                "hint: what was through stays; mend what failed, then run again. `tenantry migrate status` \
                 keeps the reasons",
            );
            partly
        }
    }
}

/// What is shown while a run goes on: lines and a bar for people, events as JSON lines for programs.
/// All of it on stderr, where it is no data.
struct View {
    format: Format,
    verbose: bool,
    bar: Option<Progress>,
}

impl View {
    fn new(common: &Common) -> Self {
        Self { format: common.output, verbose: common.verbose > 0, bar: None }
    }

    fn end(&mut self) {
        self.bar = None;
    }

    fn show(&mut self, event: &Event) {
        if self.format == Format::Json {
            let line = serde_json::to_string(event).unwrap_or_else(|error| error.to_string());
            return say(&line);
        }
        match event {
            Event::TenantDone { done, total, .. } => {
                let bar = self.bar.get_or_insert_with(|| Progress::begin("tenants"));
                bar.at(*done, *total);
            }
            Event::Applied { .. } if !self.verbose => {}
            event => {
                let line = line(event);
                match &self.bar {
                    Some(bar) => bar.say(&line),
                    None => say(&line),
                }
            }
        }
    }
}

fn line(event: &Event) -> String {
    let name = |subdomain: &Option<String>, tenant: &tenantry_db::TenantId| {
        subdomain.clone().unwrap_or_else(|| tenant.to_string())
    };
    match event {
        Event::Remark { remark } => format!("note: {remark}"),
        Event::Public { version, name, duration_ms } => {
            format!("public: {version:04}_{name} ({duration_ms} ms)")
        }
        Event::WaveBegan { wave, waves, tenants, .. } => {
            format!("wave {wave} of {waves}: {tenants} tenants")
        }
        Event::Applied { tenant, subdomain, version, name: file, duration_ms } => {
            format!("{}: {version:04}_{file} ({duration_ms} ms)", name(subdomain, tenant))
        }
        Event::TenantDone { tenant, subdomain, .. } => format!("{}: done", name(subdomain, tenant)),
        Event::Skipped { tenant } => format!("{tenant}: purged meanwhile"),
        Event::Retrying { tenant, subdomain, reason, blocked_by, pause_ms, .. } => {
            let who = blocked_by.first().map_or_else(String::new, |blocker| {
                let role = blocker.role.as_deref().unwrap_or("somebody");
                format!(" (blocked by {role}, pid {})", blocker.pid)
            });
            format!("{}: {reason}{who}; again in {pause_ms} ms", name(subdomain, tenant))
        }
        Event::Failed(failure) => failure_text(failure),
        Event::SlowedDown { parallel } => {
            format!(
                "the server is short of locks, memory or connections: {parallel} at once from here"
            )
        }
        Event::Stopping { under_way } => format!(
            "stopping: {under_way} tenants are under way and may end; a second signal rolls them back"
        ),
    }
}

/// Who failed, where and why.
pub(super) fn failure_text(failure: &SchemaFailure) -> String {
    let who = failure.subdomain.as_ref().unwrap_or(&failure.schema);
    let place = match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!(" `{file}`, line {line}:"),
        (Some(file), None) => format!(" `{file}`:"),
        _ => String::new(),
    };
    let code = failure.sqlstate.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
    let mut text = format!("failed: {who}:{place} {}{code}", failure.message);
    if let Some(statement) = &failure.statement {
        text += &format!("\n  {statement}");
    }
    for blocker in &failure.blocked_by {
        let role = blocker.role.as_deref().unwrap_or("somebody");
        let state = blocker.state.as_deref().unwrap_or("unknown");
        text += &format!("\n  blocked by pid {} ({role}, {state})", blocker.pid);
    }
    text
}
