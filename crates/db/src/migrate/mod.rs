//! Migrations: files, what is pending, and applying them.
//!
//! Two sets: `public` for the system-wide tables, `tenant` for the tables that every tenant has.
//! One ledger, `public.migrations`, written in the transaction that applies the file.

mod batch;
mod error;
mod fingerprint;
pub mod lint;
mod plan;
mod runner;
mod script;
mod source;
mod sql;
mod status;

pub use error::MigrationError;
pub use fingerprint::{Fingerprint, fingerprint};
pub use plan::{Applied, pending};
pub use runner::{AppliedNow, migrate_public, migrate_tenant};
pub use script::{Allow, IndexBuild, Script, ScriptOptions};
pub use source::{Migration, MigrationSet, Migrations, Repeatable, SetKind};
pub use status::{
    FleetStatus, PendingFile, SetStatus, TenantBehind, TenantsAtVersion, check_tenant_ledger,
    fleet_status, set_status,
};

pub(crate) use batch::Batch;
pub(crate) use runner::{record, require_public_head};
