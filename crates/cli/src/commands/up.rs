//! `tenantry up`: everything on this machine, in one directory, until Ctrl-C.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use tenantry_db::config::Layers;
use tenantry_db::migrate::{self, Migrations};
use tenantry_db::{AdminDb, Config, Error, Installation, init, pooler};
use tenantry_stack::{PoolerLogin, PoolerSettings, Ports, Server, ServerExit, Stack, StackOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Common, Up};
use crate::config_file::{self, Decided};
use crate::demo;
use crate::exit::{Exit, Failure};
use crate::output::{self, say};
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
    // From here on a signal is a wish to stop, never a sudden death.
    let mut stop = StopSignal::listen()?;
    let config_path = data_dir.path.join(config_file::IN_DATA_DIR);
    let mut stack = Stack::open(options(args, &data_dir.path)).await?;
    let outcome = tokio::select! {
        ended = serve(common, args, &mut stack, &config_path) => ended,
        () = stop.wait() => Ok(()),
    };
    let stopped = stop_servers(&mut stack).await;
    outcome.and(stopped).map(|()| Exit::Done)
}

/// Starts everything and keeps it running. Ends with an error only.
async fn serve(
    common: &Common,
    args: &Up,
    stack: &mut Stack,
    config_path: &Path,
) -> anyhow::Result<()> {
    let config = start(args, stack, config_path).await?;
    output::data(common.output, &Started::new(args, stack, config_path), |started| {
        summary(args, started)
    })?;
    let mut restarts = Vec::new();
    loop {
        let exit = stack.wait_for_exit().await;
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
        Server::Replica => stack.start_replica().await?,
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

/// Ctrl-C or SIGTERM.
struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("can't listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Deletes the directory's content, if somebody said yes.
async fn reset(args: &Up, data_dir: &Path) -> anyhow::Result<bool> {
    if !data_dir.exists() {
        return Ok(true);
    }
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(
                Exit::Refused,
                format!("`--reset` would delete everything in `{}`", data_dir.display()),
                "add `--yes` to confirm",
            )
            .into());
        }
        let mut stderr = std::io::stderr();
        write!(
            stderr,
            "Delete everything in `{}`, all tenants included? [y/N] ",
            data_dir.display()
        )?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
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
    options.replica = !args.no_replica;
    options.database = DATABASE.to_owned();
    options.max_connections = MAX_CONNECTIONS;
    options
}

/// From nothing to servers that tenants can be created on. What is there already is used.
async fn start(args: &Up, stack: &mut Stack, config_path: &Path) -> anyhow::Result<Config> {
    let ports = stack.ports();
    let step = Step::begin("starting the primary");
    stack.start_primary().await?;
    step.end(&format!("primary on 127.0.0.1:{}", ports.postgres));

    let step = Step::begin("preparing roles and database");
    let config = configure(args, stack, config_path)?;
    init::init(&config).await?;
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    migrate::migrate_public(&AdminDb::new(&config)?, &migrations.public, None, |_| {}).await?;
    step.end(&format!(
        "database `{DATABASE}` with the public schema at version {}",
        migrations.public.head()
    ));

    if !args.no_replica {
        let step = Step::begin("starting the replica");
        stack.start_replica().await?;
        step.end(&format!("replica on 127.0.0.1:{}", ports.replica));
    }
    let step = Step::begin("starting PgBouncer");
    stack.start_pooler(&pooler_settings(&config)?).await?;
    step.end(&format!(
        "PgBouncer on 127.0.0.1:{} with {} lanes",
        ports.pgbouncer, config.lanes.count
    ));
    if !args.no_demo {
        let step = Step::begin("creating the demo tenants");
        demo::ensure(&Installation::new(config.clone())?, &super::actor()).await?;
        step.end("demo tenants `acme` and `globex`");
    }
    Ok(config)
}

/// Writes the configuration file and reads it back, with nothing from the environment: what is
/// meant for other servers must not reach these.
fn configure(args: &Up, stack: &Stack, config_path: &Path) -> anyhow::Result<Config> {
    let ports = stack.ports();
    config_file::write(
        config_path,
        &Decided {
            postgres_port: ports.postgres,
            replica_port: (!args.no_replica).then_some(ports.replica),
            pgbouncer_port: ports.pgbouncer,
            database: DATABASE,
            lanes: args.lanes,
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

/// Where everything is, once it is up.
#[derive(Serialize)]
struct Started {
    primary: String,
    replica: Option<String>,
    pgbouncer: String,
    data_dir: PathBuf,
    config: PathBuf,
}

impl Started {
    fn new(args: &Up, stack: &Stack, config_path: &Path) -> Self {
        let ports = stack.ports();
        let address = |port: u16| format!("127.0.0.1:{port}");
        Self {
            primary: address(ports.postgres),
            replica: (!args.no_replica).then(|| address(ports.replica)),
            pgbouncer: address(ports.pgbouncer),
            data_dir: args.data_dir.path(),
            config: config_path.to_owned(),
        }
    }
}

fn summary(args: &Up, started: &Started) -> String {
    let program = program();
    // Other commands find the file by themselves in the default place only.
    let config = match &args.data_dir.data_dir {
        None => String::new(),
        Some(_) => format!(" --config {}", started.config.display()),
    };
    let replica = started
        .replica
        .as_ref()
        .map_or_else(String::new, |address| format!("  replica    {address}\n"));
    format!(
        "
Tenantry is up; Ctrl-C stops it.

  primary    {}
{replica}  PgBouncer  {}
  directory  {}

In another terminal:

  {program} tenant create --name 'Initech' --subdomain initech{config}
  {program} tenant list{config}
  {program} doctor{config}
",
        started.primary,
        started.pgbouncer,
        started.data_dir.display(),
    )
}

/// How this program is called from here: by its name where `PATH` leads to it, else by its path.
fn program() -> String {
    const NAME: &str = "tenantry";
    let Ok(own) = std::env::current_exe() else { return NAME.to_owned() };
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join(NAME)).find(|file| file.is_file())
    });
    if on_path.and_then(|found| found.canonicalize().ok()).as_ref() == Some(&own) {
        return NAME.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    match own.strip_prefix(&here) {
        Ok(below) => format!("./{}", below.display()),
        Err(_) => own.display().to_string(),
    }
}
