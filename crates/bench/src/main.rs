//! `tenantry-bench NAME`: what a thing costs, beside the least that it could cost, in one run on
//! servers of its own.
//!
//! Compare the ratios within a run. The absolute numbers are those of the machine and the moment.

#![expect(clippy::print_stdout, reason = "a benchmark's report is its output")]

mod lookup;
mod measure;
mod migrate;
mod provision;
mod replicas;
mod restore;
mod route;

use clap::Parser;

/// What things cost, beside what they would cost at least.
#[derive(Debug, Parser)]
enum Bench {
    /// One lookup through PgBouncer: unbound, bound in one trip, and bound in four
    Route(lookup::Options),
    /// One change for a fleet: batches alone, rollouts, a connection for each tenant
    Migrate(migrate::Options),
    /// A sign-up: the bare DDL, provisioned at once, from the ready pool, and over HTTP
    Provision(provision::Options),
    /// One lookup: on the primary, on one replica and on two, with and without a token
    Replicas(lookup::Options),
    /// One tenant brought back, beside restoring, dumping and loading it by hand
    Restore(restore::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Bench::parse() {
        Bench::Route(options) => route::run(&options).await,
        Bench::Migrate(options) => migrate::run(&options).await,
        Bench::Provision(options) => provision::run(&options).await,
        Bench::Replicas(options) => replicas::run(&options).await,
        Bench::Restore(options) => restore::run(&options).await,
    }
}
