//! `tenantry tenant export` and `import`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use tenantry_db::TenantRef;

#[derive(Debug, ClapArgs)]
pub(crate) struct TenantExport {
    /// Id or subdomain
    #[arg(value_name = "T")]
    pub(crate) tenant: TenantRef,
    /// Where the archive goes, readable for this account only; `-` is stdout
    #[arg(long, value_name = "F")]
    pub(crate) file: PathBuf,
    /// Overwrite the file if there is one
    #[arg(long)]
    pub(crate) force: bool,
    /// Leave out what `export.omit` names, as an export over HTTP does: password hashes and the like
    #[arg(long)]
    pub(crate) omit_secrets: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TenantImport {
    /// The archive
    #[arg(value_name = "F")]
    pub(crate) file: PathBuf,
    /// Unique name: one DNS label in lower case [default: the archive's]
    #[arg(long)]
    pub(crate) subdomain: Option<String>,
    /// Display name [default: the archive's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What the tenant has booked [default: the archive's]
    #[arg(long)]
    pub(crate) tier: Option<String>,
    /// Also import an archive that holds more than 250 times its own size
    #[arg(long)]
    pub(crate) any_size: bool,
}
