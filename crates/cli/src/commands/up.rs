//! `tenantry up`: everything on this machine, in one directory, until Ctrl-C.

mod archiving;
mod welcome;

use std::path::Path;
use std::time::{Duration, Instant};

use tenantry_api::Settings;
use tenantry_db::config::Layers;
use tenantry_db::lifecycle::{self, ErasureError, ErasureLedger};
use tenantry_db::migrate::{Migrations, Rollout, RolloutOptions, RolloutReport, RunState, Stop};
use tenantry_db::{AdminDb, Config, Error, Installation, ReaderDb, init, pooler};
use tenantry_stack::{PoolerLogin, PoolerSettings, Ports, Server, ServerExit, Stack, StackOptions};
use tokio::sync::watch;

use self::archiving::Archive;
use self::welcome::Welcome;
use crate::args::{Common, Up};
use crate::backups::Backups;
use crate::config_file::{self, Decided};
use crate::confirm;
use crate::demo;
use crate::exit::{Exit, Failure};
use crate::output::{self, say};
use crate::service::{self, Service};
use crate::signals::StopSignal;
use crate::steps::Step;

const DATABASE: &str = "tenantry";

/// A server that ends more often than this is not started again.
const MAX_RESTARTS: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(600);

/// Connections that the servers take: enough for 32 lanes of the default size.
const MAX_CONNECTIONS: u16 = 450;

/// Of them for others than the lanes: control plane, reader, replication, superuser, dumps.
const SPARE_CONNECTIONS: u16 = 60;

pub(super) async fn run(common: &Common, args: &Up) -> anyhow::Result<Exit> {
    let requested = args.data_dir.path();
    let data_dir = tenantry_stack::resolve_data_dir(&requested, args.data_dir.data_dir.is_none())?;
    if let Some(note) = &data_dir.note {
        say(&format!("note: {note}"));
    }
    if args.reset && !reset(args, &data_dir.path).await? {
        return Ok(Exit::Refused);
    }
    // From here on a signal is a wish to stop.
    let (mut stop, mut hurry) = (StopSignal::listen()?, StopSignal::listen()?);
    let config_path = data_dir.path.join(config_file::IN_DATA_DIR);
    let mut stack = tokio::select! {
        opened = Stack::open(options(args, &data_dir.path)) => opened?,
        () = stop.wait() => return Ok(Exit::Done),
    };
    let (mut service, mut backups) = (None, None);
    let outcome = tokio::select! {
        ended = serve(common, args, &mut stack, &config_path, (&mut service, &mut backups)) => ended,
        () = stop.wait() => Ok(()),
    };
    if let Some(backups) = backups {
        backups.stop().await;
    }
    let finished = tokio::select! {
        finished = stop_service(service) => finished,
        () = async { hurry.wait().await; hurry.wait().await } => Ok(()),
    };
    let stopped = stop_servers(&mut stack).await;
    outcome.and(finished).and(stopped).map(|()| Exit::Done)
}

/// Starts everything and keeps it running. Ends with an error only.
async fn serve(
    common: &Common,
    args: &Up,
    stack: &mut Stack,
    config_path: &Path,
    (service, backups): (&mut Option<Service>, &mut Option<Backups>),
) -> anyhow::Result<()> {
    let config = configure(args, stack, config_path)?;
    let archived = archiving::prepare(stack, &config)?;
    let settings = Settings::from_config(&config)?;
    let listener = service::listen(settings.http.address).await?;
    let (installation, archive) = start(args, stack, &config, archived).await?;
    let backed_up = archive.as_ref().map(Archive::shown);
    let welcome =
        Welcome::new(args, stack, config_path, &installation, &settings, backed_up).await?;
    if let Some(archive) = archive {
        *backups = Some(Backups::start(archive.ready().await, installation.clone()));
    }
    let service = service.insert(Service::start(listener, installation, settings));
    output::data(common.output, &welcome, Welcome::text)?;
    let mut restarts = Vec::new();
    loop {
        let exit = tokio::select! {
            exit = stack.wait_for_exit() => exit,
            error = service.ended() => return Err(error),
        };
        let now = Instant::now();
        restarts.retain(|at: &Instant| now.duration_since(*at) < RESTARTS_WITHIN);
        if restarts.len() == MAX_RESTARTS {
            let error = anyhow::Error::from(tenantry_stack::Error::from(exit));
            return Err(error.context("a server keeps ending, so all are stopped"));
        }
        restarts.push(now);
        restart(stack, &config, exit).await?;
    }
}

/// Requests under way are finished before their database goes.
async fn stop_service(service: Option<Service>) -> anyhow::Result<()> {
    match service {
        Some(service) => service.stop().await,
        None => Ok(()),
    }
}

/// A server that somebody killed, or that ended by itself, comes back; its log says why it went.
async fn restart(stack: &mut Stack, config: &Config, exit: ServerExit) -> anyhow::Result<()> {
    say(&format!(
        "warning: {} ended ({}); see {}",
        exit.server.name(),
        exit.how,
        exit.log_path.display()
    ));
    let step = Step::begin(format!("starting {} again", exit.server.name()));
    match exit.server {
        Server::Primary => stack.start_primary().await?,
        Server::Replica(number) => stack.start_replica(number).await?,
        Server::Pooler => stack.start_pooler(&pooler_settings(config)?).await?,
    }
    step.end(&format!("{} runs again", exit.server.name()));
    Ok(())
}

async fn stop_servers(stack: &mut Stack) -> anyhow::Result<()> {
    let step = Step::begin("stopping the servers");
    stack.stop().await?;
    step.end("servers stopped");
    Ok(())
}

/// Deletes the directory's content, if somebody said yes.
async fn reset(args: &Up, data_dir: &Path) -> anyhow::Result<bool> {
    if !data_dir.exists() {
        return Ok(true);
    }
    if !args.yes {
        let place = data_dir.display();
        let question = format!("Delete everything in `{place}`, all tenants included?");
        let would = format!("`--reset` would delete everything in `{place}`");
        if !confirm::ask(&question, &would, "add `--yes` to confirm")? {
            say("nothing was deleted");
            return Ok(false);
        }
    }
    tenantry_stack::reset(data_dir).await?;
    Ok(true)
}

fn options(args: &Up, data_dir: &Path) -> StackOptions {
    let mut options = StackOptions::new(data_dir);
    options.ports = Ports {
        postgres: args.postgres_port,
        replica: args.replica_port,
        pgbouncer: args.pgbouncer_port,
    };
    options.replicas = args.replicas();
    options.database = DATABASE.to_owned();
    options.max_connections = MAX_CONNECTIONS;
    options
}

/// From nothing to servers that tenants can be created on. What is there already is used.
async fn start(
    args: &Up,
    stack: &mut Stack,
    config: &Config,
    archived: Option<tenantry_backup::Settings>,
) -> anyhow::Result<(Installation, Option<Archive>)> {
    let ports = stack.ports();
    let step = Step::begin("starting the primary");
    stack.start_primary().await?;
    step.end(&format!("primary on 127.0.0.1:{}", ports.postgres));
    let archive = match archived {
        Some(settings) => Some(Archive::open(stack, settings).await?),
        None => None,
    };

    let step = Step::begin("preparing roles and database");
    init::init(config).await?;
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    let report = bring_to_head(config, &migrations).await?;
    step.end(&format!(
        "database `{DATABASE}` with the public schema at version {}",
        migrations.public.head()
    ));
    if report.tenants.done > 0 {
        say(&format!("{} tenants at version {}", report.tenants.done, migrations.tenant.head()));
    }
    if report.state != RunState::Complete {
        say(&format!(
            "warning: {} tenants could not be migrated; `tenantry migrate status` says why",
            report.tenants.failed + report.left
        ));
    }

    for replica in stack.release_unwanted_replicas().await? {
        say(&format!(
            "the {replica} is not wanted now: no log is kept for it. Its directory stays, with all that was in it: \
             certificates of purges wait for it"
        ));
    }
    for number in 1..=args.replicas() {
        let replica = Server::Replica(number);
        let step = Step::begin(format!("starting the {replica}"));
        stack.start_replica(number).await?;
        step.end(&format!("{replica} on 127.0.0.1:{}", ports.of(replica)));
    }
    let step = Step::begin("starting PgBouncer");
    stack.start_pooler(&pooler_settings(config)?).await?;
    step.end(&format!(
        "PgBouncer on 127.0.0.1:{} with {} lanes",
        ports.pgbouncer, config.lanes.count
    ));
    erase_again(config).await?;
    let installation = Installation::new(config.clone())?;
    if !args.no_demo {
        let step = Step::begin("creating the demo tenants");
        demo::ensure(&installation, &super::actor()).await?;
        step.end("demo tenants `acme` and `globex`");
    }
    fill_ready_pool(&installation).await?;
    Ok((installation, archive))
}

/// All schemas, also those of an earlier start. A tenant that fails keeps nobody else from being served.
async fn bring_to_head(config: &Config, migrations: &Migrations) -> anyhow::Result<RolloutReport> {
    let (admin, actor) = (AdminDb::new(config)?, super::actor());
    let options = RolloutOptions::to_head(&config.migrations);
    let rollout = Rollout { admin: &admin, migrations, actor: &actor, options: &options };
    let (_nobody, stop) = watch::channel(Stop::Go);
    let report = rollout.run(stop, |event| tracing::debug!(?event, "migration")).await?;
    Ok(report)
}

/// A directory that was put back by hand has those again who were erased since. Nobody is served before they are
/// gone, and nobody could purge them while no server runs.
async fn erase_again(config: &Config) -> anyhow::Result<()> {
    let Ok(ledger) = ErasureLedger::new(config) else { return Ok(()) };
    let erased = lifecycle::require_erased_stay_erased(&ReaderDb::new(config)?, &ledger).await;
    if !matches!(erased, Err(Error::Erasure(ErasureError::ErasedBefore(_)))) {
        return Ok(());
    }
    let admin = AdminDb::new(config)?;
    let step = Step::begin("erasing again whom the erasure ledger names");
    let report = lifecycle::reapply_ledger(&admin, &ledger, &super::actor(), |_, _| {}).await?;
    step.end(&format!("{} tenants erased again: the ledger names them", report.purged.len()));
    Ok(())
}

/// Without the pauses that the service makes later: nobody is served yet.
async fn fill_ready_pool(installation: &Installation) -> anyhow::Result<()> {
    let target = installation.config().tenants.ready_pool;
    if target > 0 {
        let step = Step::begin("filling the ready pool");
        while lifecycle::fill_ready_pool(installation).await? > 0 {}
        step.end(&format!("ready pool of {target} tenants"));
    }
    Ok(())
}

/// Writes the configuration file and reads it back, with nothing from the environment: what is
/// meant for other servers must not reach these.
fn configure(args: &Up, stack: &Stack, config_path: &Path) -> anyhow::Result<Config> {
    let ports = stack.ports();
    config_file::write(
        config_path,
        &Decided {
            http_port: args.http_port,
            postgres_port: ports.postgres,
            replica_ports: Server::replicas(args.replicas()).map(|r| ports.of(r)).collect(),
            pgbouncer_port: ports.pgbouncer,
            database: DATABASE,
            lanes: args.lanes,
            ready_pool: args.ready_pool,
            backup_sockets: (!args.no_backup).then(|| stack.socket_dir()),
        },
    )?;
    let layers = Layers::defaults().file(config_path)?;
    let config =
        Config::from_layers(layers.flag("up", "init.superuser_url", stack.superuser_url()))?;
    if config.lanes.server_connections > MAX_CONNECTIONS - SPARE_CONNECTIONS {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "`lanes.server_connections` is {}, but the servers of `up` take {} for the lanes",
                config.lanes.server_connections,
                MAX_CONNECTIONS - SPARE_CONNECTIONS
            ),
            format!("lower it in `{}`", config_path.display()),
        )
        .into());
    }
    Ok(config)
}

fn pooler_settings(config: &Config) -> anyhow::Result<PoolerSettings> {
    let logins = pooler::logins(config)?
        .into_iter()
        .map(|(name, password)| PoolerLogin { name, password: password.expose().to_owned() })
        .collect();
    Ok(PoolerSettings {
        logins,
        stats_users: vec![config.roles.stats()],
        pool_size: config.lanes.pool_size,
        max_server_connections: config.lanes.server_connections,
        ..PoolerSettings::default()
    })
}
