//! `tenantry tenant delete` and what follows from it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use tenantry_db::TenantRef;
use tenantry_db::config::parse_retention;

#[derive(Debug, ClapArgs)]
pub(crate) struct TenantDelete {
    /// Id or subdomain
    #[arg(value_name = "T")]
    pub(crate) tenant: TenantRef,
    /// The tenant's subdomain once more: nothing is done without it
    #[arg(long, value_name = "SUBDOMAIN")]
    pub(crate) confirm: Option<String>,
    /// How long it can be restored, such as 30days or 0s [default: as its tier or `tenants.retention`]
    #[arg(long, value_name = "DURATION", value_parser = retention)]
    pub(crate) retention: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TenantPurge {
    /// Id or subdomain
    #[arg(value_name = "T", required_unless_present = "from_ledger")]
    pub(crate) tenant: Option<TenantRef>,
    /// The tenant's subdomain once more: nothing is done without it
    #[arg(long, value_name = "SUBDOMAIN")]
    pub(crate) confirm: Option<String>,
    /// Do not wait for the retention to end
    #[arg(long)]
    pub(crate) now: bool,
    /// After a restore: purge again, without further questions, every tenant that the erasure ledger names and
    /// the database has again
    #[arg(long, conflicts_with_all = ["tenant", "confirm", "now"])]
    pub(crate) from_ledger: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TenantCertificate {
    /// Id (a purged tenant has no subdomain)
    #[arg(value_name = "T", required_unless_present = "check")]
    pub(crate) tenant: Option<TenantRef>,
    /// Check a certificate that was filed as JSON (`-` is stdin): against itself, the erasure ledger and the
    /// database
    #[arg(long, value_name = "FILE", conflicts_with = "tenant")]
    pub(crate) check: Option<PathBuf>,
    /// Do not wait for this replica any more: it exists no more, and its disks neither. The certificate says who
    /// said so
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    pub(crate) replica_gone: Option<String>,
}

fn retention(text: &str) -> Result<Duration, String> {
    parse_retention(text).map_err(|_| {
        "a duration from 0s to ten years is expected, such as 30days or 12h".to_owned()
    })
}
