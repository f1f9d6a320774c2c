//! `tenantry tenant delete` and what follows from it.

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
    #[arg(value_name = "T")]
    pub(crate) tenant: TenantRef,
    /// The tenant's subdomain once more: nothing is done without it
    #[arg(long, value_name = "SUBDOMAIN")]
    pub(crate) confirm: Option<String>,
    /// Do not wait for the retention to end
    #[arg(long)]
    pub(crate) now: bool,
}

fn retention(text: &str) -> Result<Duration, String> {
    parse_retention(text).map_err(|_| {
        "a duration from 0s to ten years is expected, such as 30days or 12h".to_owned()
    })
}
