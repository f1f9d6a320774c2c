//! `migrate`: the same change for every tenant of a fleet, in several ways side by side.
//!
//! The floor is the change alone: one batch for each tenant, over connections that stay open, without
//! guard, ledger, waves or record. Ours is a rollout. The last way is how it is done most often: a
//! connection for each tenant, one tenant after the other, one statement after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use tenantry_db::lifecycle::{self, NewTenant};
use tenantry_db::migrate::{self, Migrations, Rollout, RolloutOptions, RunState, Stop, template};
use tenantry_db::{Config, TenantDb, TenantId};
use tenantry_stack::Durability;
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio::sync::watch;
use tokio_postgres::{Client, NoTls};

use crate::measure::Sample;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many tenants
    #[arg(long, default_value_t = 1000)]
    tenants: usize,
    /// Rounds; in each, every way has its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Wait for the disk, as servers with real data do
    #[arg(long)]
    durable: bool,
    /// Only ours, once: a rollout while two clients query, a run with nothing to do, and the status
    #[arg(long)]
    fleet: bool,
}

const POOL_SIZE: u16 = 12;

const WAYS: [(&str, Way); 7] = [
    ("batches alone, 1 connection (floor)", Way::Floor(1)),
    ("batches alone, 4 connections (floor)", Way::Floor(4)),
    ("batches alone, 8 connections (floor)", Way::Floor(8)),
    ("rollout, 1 at once", Way::Rollout(1)),
    ("rollout, 4 at once", Way::Rollout(4)),
    ("rollout, 8 at once", Way::Rollout(8)),
    ("a connection for each tenant", Way::OneByOne),
];

#[derive(Debug, Clone, Copy)]
enum Way {
    Floor(usize),
    Rollout(u16),
    OneByOne,
}

/// Two columns and an index, under names of their own.
fn change(n: u32) -> String {
    format!(
        "ALTER TABLE content ADD COLUMN bench_{n} text;\n\
         ALTER TABLE users ADD COLUMN bench_{n} boolean NOT NULL DEFAULT false;\n\
         CREATE INDEX content_bench_{n}_idx ON content (bench_{n});\n"
    )
}

struct Bench {
    db: TestDatabase,
    tenants: Vec<TenantId>,
    files: tempfile::TempDir,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = temp_dir()?;
    let (mut stack, servers) = Servers::start_with(dir.path(), POOL_SIZE, |stack| {
        if options.durable {
            stack.durability = Durability::Durable;
        }
    })
    .await?;
    let mut db = TestDatabase::on(servers).await;
    let layers = db.servers().layers(db.name(), "shared");
    db.config = Config::from_layers(layers.flag("bench", "database.direct_connections", 16))?;
    db.admin = tenantry_db::AdminDb::new(&db.config)?;
    println!("creating {} tenants", options.tenants);
    let created = Instant::now();
    let tenants = create(&db, options.tenants).await?;
    println!("created in {:.0} s\n", created.elapsed().as_secs_f64());
    let files = tempfile::tempdir()?;
    template::add_built_in(files.path())?;
    let bench = Bench { db, tenants, files };
    if options.fleet {
        bench.fleet().await?;
    } else {
        bench.compare(options).await?;
    }
    stack.stop().await?;
    Ok(())
}

async fn create(db: &TestDatabase, count: usize) -> anyhow::Result<Vec<TenantId>> {
    const AT_ONCE: usize = 4;
    let one = async |n: usize| {
        let name = format!("t{n}");
        let new = NewTenant::new(&db.config, &name, &name, None, serde_json::Map::new())?;
        let made = lifecycle::create_tenant(&db.admin, &db.migrations, &new, &db.actor()).await?;
        anyhow::Ok(made.id)
    };
    let made: Vec<_> = stream::iter(0..count).map(one).buffer_unordered(AT_ONCE).collect().await;
    made.into_iter().collect()
}

impl Bench {
    async fn compare(&self, options: &Options) -> anyhow::Result<()> {
        println!(
            "2 columns and 1 index for each of {} tenants, {} rounds; tenants per second\n",
            options.tenants, options.rounds
        );
        let mut spent = [Duration::ZERO; WAYS.len()];
        let mut version = 100;
        for round in 0..=options.rounds {
            for (at, (_, way)) in WAYS.iter().enumerate() {
                version += 1;
                let began = Instant::now();
                match way {
                    Way::Floor(connections) => self.floor(version, *connections).await?,
                    Way::Rollout(parallel) => self.rollout(version, *parallel).await?,
                    Way::OneByOne => self.one_by_one(version).await?,
                }
                // The first round warms the servers up.
                if round > 0 {
                    spent[at] += began.elapsed();
                }
            }
        }
        let done = options.tenants as f64 * f64::from(options.rounds);
        let rates = spent.map(|spent| done / spent.as_secs_f64());
        println!("{:38} {:>9} {:>22}", "", "tenants/s", "floor's time × (same n)");
        for (at, (name, way)) in WAYS.iter().enumerate() {
            let floor = match way {
                Way::Floor(_) => at,
                Way::Rollout(_) => at - 3,
                Way::OneByOne => 0,
            };
            println!("{name:38} {:>9.0} {:>22.2}", rates[at], rates[floor] / rates[at]);
        }
        Ok(())
    }

    async fn floor(&self, n: u32, connections: usize) -> anyhow::Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let body = change(n);
        let worker = async || {
            let client = self.connect().await?;
            client.batch_execute("SET synchronous_commit = off").await?;
            while let Some(tenant) = self.tenants.get(next.fetch_add(1, Ordering::Relaxed)) {
                let schema = tenant.schema();
                let batch = format!(
                    "SET LOCAL ROLE shared_owner; SET LOCAL search_path TO {schema}, public, pg_temp; {body}"
                );
                client.batch_execute(&batch).await?;
            }
            anyhow::Ok(())
        };
        let mut workers: FuturesUnordered<_> = (0..connections).map(|_| worker()).collect();
        while let Some(ended) = workers.next().await {
            ended?;
        }
        Ok(())
    }

    async fn rollout(&self, n: u32, parallel: u16) -> anyhow::Result<()> {
        let migrations = self.migrations(n)?;
        let mut options = RolloutOptions::to_head(&self.db.config.migrations);
        options.parallel = parallel;
        let report = self.roll(&migrations, &options).await?;
        anyhow::ensure!(report.tenants.done == self.tenants.len(), "{report:?}");
        Ok(())
    }

    async fn roll(
        &self,
        migrations: &Migrations,
        options: &RolloutOptions,
    ) -> anyhow::Result<migrate::RolloutReport> {
        let (_nobody, stop) = watch::channel(Stop::Go);
        let actor = self.db.actor();
        let rollout = Rollout { admin: &self.db.admin, migrations, actor: &actor, options };
        let report = rollout.run(stop, |_| {}).await?;
        anyhow::ensure!(report.state == RunState::Complete, "{report:?}");
        Ok(report)
    }

    /// The built-in files and one more.
    fn migrations(&self, n: u32) -> anyhow::Result<Migrations> {
        let file = self.files.path().join(format!("tenant/{n:04}_bench.up.sql"));
        std::fs::write(file, change(n))?;
        Ok(Migrations::from_dir(self.files.path())?)
    }

    async fn one_by_one(&self, n: u32) -> anyhow::Result<()> {
        let body = change(n);
        for tenant in &self.tenants {
            let schema = tenant.schema();
            let client = self.connect().await?;
            client.batch_execute("BEGIN").await?;
            client.batch_execute("SET LOCAL ROLE shared_owner").await?;
            client.batch_execute(&format!("SET LOCAL search_path TO {schema}, public")).await?;
            for statement in body.split(";\n").filter(|statement| !statement.is_empty()) {
                client.batch_execute(statement).await?;
            }
            client.batch_execute("COMMIT").await?;
        }
        Ok(())
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let (client, connection) = self.db.config.database.direct()?.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// What an operator sees of a large fleet.
    async fn fleet(&self) -> anyhow::Result<()> {
        let quiet = self.queries(Duration::from_secs(5)).await?;
        report_queries("before", quiet);
        let migrations = self.migrations(101)?;
        let options = RolloutOptions::to_head(&self.db.config.migrations);
        let began = Instant::now();
        let over = Arc::new(AtomicBool::new(false));
        let rollout = async {
            let report = self.roll(&migrations, &options).await;
            over.store(true, Ordering::Relaxed);
            report
        };
        let (report, queries) = tokio::join!(rollout, self.queries_until(&over));
        let took = began.elapsed().as_secs_f64();
        let report = report?;
        println!(
            "rollout: {} tenants in {took:.1} s ({:.0}/s), {} at once",
            report.tenants.done,
            report.tenants.done as f64 / took,
            options.parallel
        );
        report_queries("meanwhile", queries?);
        println!("memory of this program, at most: {} MB", peak_memory_mb()?);
        let began = Instant::now();
        let report = self.roll(&migrations, &options).await?;
        anyhow::ensure!(report.tenants.total == 0, "{report:?}");
        println!("a run with nothing to do: {:.2} s", began.elapsed().as_secs_f64());
        let began = Instant::now();
        migrate::fleet_status(&self.db.reader, &migrations).await?;
        println!("status: {:.2} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn queries(&self, span: Duration) -> anyhow::Result<Sample> {
        let over = Arc::new(AtomicBool::new(false));
        let timer = async {
            tokio::time::sleep(span).await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(self.queries_until(&over), timer).0
    }

    /// Two clients that look something up, each time in another tenant.
    async fn queries_until(&self, over: &AtomicBool) -> anyhow::Result<Sample> {
        const CLIENTS: usize = 2;
        const PAUSE: Duration = Duration::from_millis(2);
        let installation = self.db.installation();
        let client = async |from: usize| {
            let mut took = Vec::new();
            for n in (from..).step_by(CLIENTS) {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let id = self.tenants[n * 7919 % self.tenants.len()];
                let entry = installation.directory().find(id).await?;
                let entry = entry.ok_or_else(|| anyhow::anyhow!("the tenant was created"))?;
                let tenant: TenantDb = installation.tenant_db(entry)?;
                let began = Instant::now();
                tenant
                    .query("SELECT id, title FROM content ORDER BY created_at, id LIMIT 10", &[])
                    .await?;
                took.push(began.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(took)
        };
        let (one, two) = tokio::join!(client(0), client(1));
        Ok(Sample::of([one?, two?].concat()))
    }
}

fn report_queries(when: &str, mut queries: Sample) {
    println!(
        "bound queries {when}: p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms ({} of them)",
        queries.percentile_us(0.5) / 1e3,
        queries.percentile_us(0.99) / 1e3,
        queries.percentile_us(1.0) / 1e3,
        queries.len()
    );
}

/// The most that this process has had in memory so far.
fn peak_memory_mb() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb =
        line.and_then(|line| line.split_whitespace().next()).and_then(|kb| kb.parse::<u64>().ok());
    Ok(kb.ok_or_else(|| anyhow::anyhow!("`/proc/self/status` names no VmHWM"))? / 1024)
}
