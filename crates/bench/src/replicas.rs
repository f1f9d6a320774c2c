//! `replicas`: one lookup by key, read on the primary and on one or two replicas, and what the check costs.
//!
//! The floor is the same lookup through `TenantDb::read` in a process that knows no replica: bind, statement
//! and COMMIT in one trip, and no check. On one machine the replicas share their processors with the
//! primary, so more of them need not be faster here; what a check adds to a trip is what can be seen.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tenantry_db::replicas::{ReadOn, State, watch};
use tenantry_db::{Config, Installation, TenantDb, TenantId, TenantRead};
use tenantry_stack::StackOptions;
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;

use crate::measure::Sample;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Clients at once, for throughput; each has a tenant of its own
    #[arg(long, default_value_t = 24)]
    clients: usize,
    /// Rounds; in each, every way has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of one turn
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// Server connections of the one lane, on each server.
const POOL_SIZE: u16 = 20;

const LOOKUP: &str = "SELECT id, name FROM users WHERE tenant_id = this_tenant() AND email = $1";
const EMAIL: &str = "user500@example.org";

const WAYS: [&str; 5] = [
    "no replica known (floor)",
    "1 replica, without a token",
    "1 replica, with a token",
    "2 replicas, with a token",
    "1 replica known, on the primary",
];

/// A process with so many replicas, and the reads of each of its clients.
struct Process {
    installation: Installation,
    _jobs: JoinSet<()>,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = temp_dir()?;
    let two = |stack: &mut StackOptions| {
        stack.replicas = 2;
        stack.settings.push(("synchronous_commit".to_owned(), "on".to_owned()));
    };
    let (mut stack, servers) = Servers::start_with(dir.path(), POOL_SIZE, two).await?;
    let db = TestDatabase::on(servers).await;
    stack.start_replicas().await?;
    let tenants = prepare(&db, options.clients).await?;
    let processes = [
        Process::start(&db, 0).await?,
        Process::start(&db, 1).await?,
        Process::start(&db, 2).await?,
    ];
    let mut ways: [Vec<TenantRead>; 5] = Default::default();
    for id in &tenants {
        let [none, one, both] = [
            processes[0].tenant(*id).await?,
            processes[1].tenant(*id).await?,
            processes[2].tenant(*id).await?,
        ];
        none.execute("UPDATE users SET name = name WHERE email = $1", &[(&EMAIL, Type::TEXT)])
            .await?;
        let token = none.token().context("a write gives a token")?;
        ways[0].push(none.read());
        ways[1].push(one.read());
        ways[2].push(one.read().after(&token));
        ways[3].push(both.read().after(&token));
        // Nobody knows what this token asks for.
        ways[4].push(one.read().after("?"));
    }
    println!(
        "One lookup by key through PgBouncer, {POOL_SIZE} server connections on each server, {} tenants of \
         1,000 users.\nLatency: one client. Throughput: {} clients. {} rounds of {} s.\n",
        options.clients, options.clients, options.rounds, options.seconds
    );
    report(measure(&ways, options).await?);
    for (number, process) in processes.iter().enumerate().skip(1) {
        println!("reads of the process with {number}: {}", process.counts());
    }
    stack.stop().await?;
    Ok(())
}

impl Process {
    async fn start(db: &TestDatabase, replicas: usize) -> anyhow::Result<Self> {
        let mut layers = db.servers().layers(db.name(), "shared").flag("bench", "lanes.count", 1);
        layers = layers.flag("bench", "lanes.pool_size", i64::from(POOL_SIZE));
        let (mut pooled, mut direct) = db.servers().replica_urls(db.name());
        pooled.truncate(replicas);
        direct.truncate(replicas);
        layers = layers.flag("bench", "database.replica_urls", pooled).flag(
            "bench",
            "database.replica_direct_urls",
            direct,
        );
        let installation = Installation::new(Config::from_layers(layers)?)?;
        let mut jobs = JoinSet::new();
        jobs.spawn(watch(installation.clone(), std::future::pending()));
        let directory = installation.directory().clone();
        jobs.spawn(async move { directory.follow().await });
        let process = Self { installation, _jobs: jobs };
        while !process.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    fn is_ready(&self) -> bool {
        let views = self.installation.replicas().views();
        self.installation.directory().is_following()
            && views.iter().all(|view| view.state == State::Healthy)
    }

    async fn tenant(&self, id: TenantId) -> anyhow::Result<TenantDb> {
        let entry = self.installation.directory().find(id).await?.context("it was created")?;
        Ok(self.installation.tenant_db(entry)?)
    }

    fn counts(&self) -> String {
        let counts = self.installation.replicas().counts().filter(|(_, count)| *count > 0);
        let shown = |(on, count): (ReadOn, u64)| format!("{} {count}", on.as_str());
        counts.map(shown).collect::<Vec<_>>().join(", ")
    }
}

async fn prepare(db: &TestDatabase, count: usize) -> anyhow::Result<Vec<TenantId>> {
    let superuser = db.superuser().await;
    let mut ids = Vec::new();
    for n in 0..count {
        let tenant = db.tenant(&format!("t{n}")).await;
        let schema = tenant.schema();
        superuser
            .batch_execute(&format!(
                "INSERT INTO {schema}.users (email, name, role)
                 SELECT 'user' || n || '@example.org', 'User ' || n, 'member' FROM generate_series(1, 1000) AS n;
                 ANALYZE {schema}.users;
                 SELECT shared.grant_tenant_role('{id}', 0) WHERE {lane} <> 0;
                 UPDATE public.tenants SET lane = 0 WHERE id = '{id}'",
                id = tenant.id,
                lane = tenant.lane.number(),
            ))
            .await?;
        ids.push(tenant.id);
    }
    Ok(ids)
}

async fn lookup(read: &TenantRead) -> anyhow::Result<()> {
    let found = read.query_opt(LOOKUP, &[(&EMAIL, Type::TEXT)]).await?;
    anyhow::ensure!(found.is_some(), "the row is there");
    Ok(())
}

async fn measure(
    ways: &[Vec<TenantRead>; 5],
    options: &Options,
) -> anyhow::Result<([Sample; 5], [Sample; 5])> {
    let span = Duration::from_secs_f64(options.seconds);
    let (mut one, mut many): ([Sample; 5], [Sample; 5]) = Default::default();
    for round in 0..=options.rounds {
        for (at, clients) in ways.iter().enumerate() {
            // The first round warms caches and pools, and is thrown away.
            let (mut warm_one, mut warm_many) = (Sample::default(), Sample::default());
            let (one, many) = match round {
                0 => (&mut warm_one, &mut warm_many),
                _ => (&mut one[at], &mut many[at]),
            };
            one.add(&clients[..1], span, lookup).await?;
            many.add(clients, span, lookup).await?;
        }
    }
    Ok((one, many))
}

fn report((mut one, mut many): ([Sample; 5], [Sample; 5])) {
    let floor = (one[0].percentile_us(0.5), many[0].per_second());
    println!(
        "{:34} {:>9} {:>7} {:>9} {:>10} {:>7} {:>9}",
        "", "p50 µs", "ratio", "p99 µs", "calls/s", "ratio", "p99 µs"
    );
    for at in 0..WAYS.len() {
        let (p50, rate) = (one[at].percentile_us(0.5), many[at].per_second());
        println!(
            "{:34} {p50:>9.0} {:>7.2} {:>9.0} {rate:>10.0} {:>7.2} {:>9.0}",
            WAYS[at],
            p50 / floor.0,
            one[at].percentile_us(0.99),
            rate / floor.1,
            many[at].percentile_us(0.99),
        );
    }
    println!();
}
