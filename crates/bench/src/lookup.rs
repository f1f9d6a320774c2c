//! One lookup by key, in several ways side by side: what `route` and `replicas` measure.
//!
//! Owns the statement, the tenants that it runs in, and the rounds. Each way has its turn in each round, so
//! whatever else the machine does meets them all.

use std::time::Duration;

use clap::Args;
use tenantry_db::TenantId;
use tenantry_db::models::tenants::Tenant;
use tenantry_testing::TestDatabase;

use crate::measure::Sample;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Clients at once, for throughput; each has a tenant of its own
    #[arg(long, default_value_t = 24)]
    pub(crate) clients: usize,
    /// Rounds; in each, every way has its turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of one turn
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

impl Options {
    /// What is measured, for the top of the report.
    pub(crate) fn headline(&self) -> String {
        let Self { clients, rounds, seconds } = self;
        format!(
            "One lookup by key through PgBouncer, {POOL_SIZE} server connections on each server, {clients} tenants \
             of 1,000 users.\nLatency: one client. Throughput: {clients} clients. {rounds} rounds of {seconds} s.\n"
        )
    }
}

/// Server connections of the one lane, on each server.
pub(crate) const POOL_SIZE: u16 = 20;

pub(crate) const LOOKUP: &str =
    "SELECT id, name FROM users WHERE tenant_id = this_tenant() AND email = $1";
pub(crate) const EMAIL: &str = "user500@example.org";

/// A tenant with users for each client, all on lane 0. `more` is what a way needs besides.
pub(crate) async fn prepare(
    db: &TestDatabase,
    options: &Options,
    more: impl Fn(&Tenant) -> String,
) -> anyhow::Result<Vec<TenantId>> {
    let superuser = db.superuser().await;
    let mut ids = Vec::new();
    for n in 0..options.clients {
        let tenant = db.tenant(&format!("t{n}")).await;
        let schema = tenant.schema();
        superuser
            .batch_execute(&format!(
                "INSERT INTO {schema}.users (email, name, role)
                 SELECT 'user' || n || '@example.org', 'User ' || n, 'member' FROM generate_series(1, 1000) AS n;
                 ANALYZE {schema}.users;
                 SELECT shared.grant_tenant_role('{id}', 0) WHERE {lane} <> 0;
                 UPDATE public.tenants SET lane = 0 WHERE id = '{id}';
                 {more}",
                id = tenant.id,
                lane = tenant.lane.number(),
                more = more(&tenant),
            ))
            .await?;
        ids.push(tenant.id);
    }
    Ok(ids)
}

/// Calls each way from its first client, then from all of them, and shows what it took beside the first way.
pub(crate) async fn compare<C, const N: usize>(
    names: [&str; N],
    ways: &[Vec<C>; N],
    options: &Options,
    call: impl AsyncFn(&C) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let span = Duration::from_secs_f64(options.seconds);
    let samples = || std::array::from_fn(|_| Sample::default());
    let (mut one, mut many): ([Sample; N], [Sample; N]) = (samples(), samples());
    for round in 0..=options.rounds {
        for (at, clients) in ways.iter().enumerate() {
            // The first round warms caches and pools, and is thrown away.
            let (mut warm_one, mut warm_many) = (Sample::default(), Sample::default());
            let (one, many) = match round {
                0 => (&mut warm_one, &mut warm_many),
                _ => (&mut one[at], &mut many[at]),
            };
            one.add(&clients[..1], span, &call).await?;
            many.add(clients, span, &call).await?;
        }
    }
    report(names, one, many);
    Ok(())
}

fn report<const N: usize>(names: [&str; N], mut one: [Sample; N], mut many: [Sample; N]) {
    let floor = (one[0].percentile_us(0.5), many[0].per_second());
    println!(
        "{:34} {:>9} {:>7} {:>9} {:>10} {:>7} {:>9}",
        "", "p50 µs", "ratio", "p99 µs", "calls/s", "ratio", "p99 µs"
    );
    for (at, name) in names.into_iter().enumerate() {
        let (p50, rate) = (one[at].percentile_us(0.5), many[at].per_second());
        println!(
            "{name:34} {p50:>9.0} {:>7.2} {:>9.0} {rate:>10.0} {:>7.2} {:>9.0}",
            p50 / floor.0,
            one[at].percentile_us(0.99),
            rate / floor.1,
            many[at].percentile_us(0.99),
        );
    }
    println!();
}
