//! `route`: one lookup by key through PgBouncer, in three ways side by side.
//!
//! The floor is the same statement with a qualified name and no binding at all, by a login that may
//! read the tables directly: what a product without isolation would send. Ours is `TenantDb`. Four
//! trips is how it is written down most often: BEGIN, SET, statement, COMMIT, each awaited.

use std::time::Duration;

use clap::Args;
use tenantry_db::bind::{COMMIT, statement};
use tenantry_db::{Config, Installation, LaneId, TenantDb};
use tenantry_testing::{Proxy, Servers, TestDatabase, temp_dir};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

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

/// Server connections of the one lane.
const POOL_SIZE: u16 = 20;

/// The delays that are added, for the way there and back together.
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_micros(500)];

const LOOKUP: &str = "SELECT id, name FROM users WHERE tenant_id = this_tenant() AND email = $1";
const EMAIL: &str = "user500@example.org";

/// One of the ways, with everything that it takes, for one client.
enum Way {
    Floor { client: Client, sql: String },
    Ours(Box<TenantDb>),
    FourTrips { client: Client, bind: String },
}

const WAYS: [&str; 3] =
    ["unbound, qualified (floor)", "TenantDb, one trip", "BEGIN / SET / statement / COMMIT"];

impl Way {
    async fn lookup(&self) -> Result<(), anyhow::Error> {
        let params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[(&EMAIL, Type::TEXT)];
        let found = match self {
            Self::Floor { client, sql } => client.query_typed_opt(sql, params).await?,
            Self::Ours(db) => db.query_opt(LOOKUP, params).await?,
            Self::FourTrips { client, bind } => {
                let set = bind.strip_prefix("BEGIN; ").unwrap_or(bind);
                client.batch_execute("BEGIN").await?;
                client.batch_execute(set).await?;
                let found = client.query_typed_opt(LOOKUP, params).await?;
                client.batch_execute(COMMIT).await?;
                found
            }
        };
        anyhow::ensure!(found.is_some(), "the row is there");
        Ok(())
    }
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = temp_dir()?;
    let (mut stack, servers) = Servers::start(dir.path(), POOL_SIZE).await?;
    let db = TestDatabase::on(servers).await;
    let tenants = prepare(&db, options.clients).await?;
    println!(
        "One lookup by key through PgBouncer, {POOL_SIZE} server connections, {} tenants of 1,000 users.\n\
         Latency: one client. Throughput: {} clients. {} rounds of {} s.\n",
        options.clients, options.clients, options.rounds, options.seconds
    );
    for delay in DELAYS {
        let proxy = Proxy::start(db.servers().pgbouncer_port, delay / 2).await?;
        let port = if delay.is_zero() { db.servers().pgbouncer_port } else { proxy.port() };
        let ways = ways(&db, port, &tenants).await?;
        let (one, many) = measure(&ways, options).await?;
        report(delay, one, many);
    }
    stack.stop().await?;
    Ok(())
}

/// Tenants with users, and the right to read them directly for the lane, as the floor needs.
async fn prepare(db: &TestDatabase, count: usize) -> anyhow::Result<Vec<tenantry_db::TenantId>> {
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
                 GRANT USAGE ON SCHEMA {schema} TO shared_lane_00;
                 GRANT SELECT ON {schema}.users TO shared_lane_00;
                 GRANT EXECUTE ON FUNCTION {schema}.this_tenant() TO shared_lane_00;
                 UPDATE public.tenants SET lane = 0 WHERE id = '{id}'",
                id = tenant.id,
                lane = tenant.lane.number(),
            ))
            .await?;
        ids.push(tenant.id);
    }
    Ok(ids)
}

async fn ways(
    db: &TestDatabase,
    port: u16,
    tenants: &[tenantry_db::TenantId],
) -> anyhow::Result<[Vec<Way>; 3]> {
    let url = format!("postgresql://127.0.0.1:{port}/{}", db.name());
    let layers = db.servers().layers(db.name(), "shared").flag("bench", "database.url", url);
    let layers = layers.flag("bench", "lanes.count", 1).flag(
        "bench",
        "lanes.pool_size",
        i64::from(POOL_SIZE),
    );
    let config = Config::from_layers(layers)?;
    let lane = config.roles.lane(LaneId::new(0).expect("there is a lane 0"));
    let server = config.database.pooled(&lane, &config.lanes.secret()?.password(&lane))?;
    let tier = config.tiers["free"];
    let installation = Installation::new(config)?;
    let mut ways = [Vec::new(), Vec::new(), Vec::new()];
    for id in tenants {
        let schema = id.schema();
        let sql = LOOKUP
            .replace("FROM users", &format!("FROM {schema}.users"))
            .replace("this_tenant()", &format!("{schema}.this_tenant()"));
        ways[0].push(Way::Floor { client: connect(&server).await?, sql });
        let entry = installation.directory().find(*id).await?.expect("the tenant was created");
        ways[1].push(Way::Ours(Box::new(installation.tenant_db(entry)?)));
        ways[2].push(Way::FourTrips {
            client: connect(&server).await?,
            bind: statement(schema, &tier),
        });
    }
    Ok(ways)
}

async fn connect(server: &tokio_postgres::Config) -> anyhow::Result<Client> {
    let (client, connection) = server.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn measure(
    ways: &[Vec<Way>; 3],
    options: &Options,
) -> anyhow::Result<([Sample; 3], [Sample; 3])> {
    let span = Duration::from_secs_f64(options.seconds);
    let (mut one, mut many): ([Sample; 3], [Sample; 3]) = Default::default();
    for round in 0..=options.rounds {
        for (at, clients) in ways.iter().enumerate() {
            // The first round warms caches and pools, and is thrown away.
            let (mut warm_one, mut warm_many) = (Sample::default(), Sample::default());
            let (one, many) = match round {
                0 => (&mut warm_one, &mut warm_many),
                _ => (&mut one[at], &mut many[at]),
            };
            one.add(&clients[..1], span, Way::lookup).await?;
            many.add(clients, span, Way::lookup).await?;
        }
    }
    Ok((one, many))
}

fn report(delay: Duration, mut one: [Sample; 3], mut many: [Sample; 3]) {
    let floor = (one[0].percentile_us(0.5), many[0].per_second());
    println!("{} ms of added delay for the way there and back", delay.as_secs_f64() * 1e3);
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
