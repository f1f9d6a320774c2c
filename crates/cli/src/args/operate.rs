//! `tenantry tenant exec` and `psql`.

use std::time::Duration;

use clap::Args as ClapArgs;
use jiff::SignedDuration;
use tenantry_db::TenantRef;

use super::OnError;

/// Runs one statement in tenants: as the tenant's lane on the direct connection, bound to the tenant, in a
/// transaction of its own for each.
///
/// The statement reads or writes rows (SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES, TABLE, EXPLAIN).
/// It is no migration tool: a tenant's role may not change tables, and nothing is recorded of who has had it
/// but the audit log. Suspended and deleted tenants are refused.
#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["tenants", "all"]))]
pub(crate) struct TenantExec {
    /// Ids or subdomains
    #[arg(value_name = "T")]
    pub(crate) tenants: Vec<TenantRef>,
    /// In all tenants that are served
    #[arg(long)]
    pub(crate) all: bool,
    /// The statement; `$1` and the like are not filled in
    #[arg(last = true, required = true, value_name = "SQL")]
    pub(crate) sql: String,
    /// How many tenants at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) parallel: u16,
    /// Whether the others are done when one has failed
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    pub(crate) on_error: OnError,
    /// How long the statement may take in each [default: as its tier allows]
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// How many rows are shown of each; all are counted
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) max_rows: usize,
    /// In a transaction that changes nothing
    #[arg(long)]
    pub(crate) read_only: bool,
}

/// Opens psql with a login that was made for it: a member of this tenant's role only, for one connection, and
/// gone when psql ends. Suspending or deleting the tenant ends it at once.
#[derive(Debug, ClapArgs)]
pub(crate) struct TenantPsql {
    /// Id or subdomain
    #[arg(value_name = "T")]
    pub(crate) tenant: TenantRef,
    /// Handed to psql, for instance `-c 'SELECT 1'`
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<std::ffi::OsString>,
}

fn timeout(text: &str) -> Result<Duration, String> {
    const MAX: SignedDuration = SignedDuration::from_hours(24);
    let parsed = text.parse().ok().filter(|d| (SignedDuration::from_millis(1)..=MAX).contains(d));
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "a duration from 1ms to a day is expected, such as 30s or 5min".to_owned())
}
