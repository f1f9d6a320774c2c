//! A tenant's life: one file for each step.

mod access;
mod create;
mod delete;
mod erasure_error;
mod purge;
mod ready_pool;
mod relocate;
mod suspend;
mod transfer;
mod update;
mod values;

pub(crate) use create::empty_schema;
pub use create::{NewTenant, create_tenant};
pub use delete::{Deletion, delete_tenant, hold_tenant, restore_tenant};
pub use erasure_error::ErasureError;
pub use purge::{
    Authority, ErasureEntry, ErasureLedger, PurgeProgress, PurgeReport, Round, begin_purge,
    continue_purge, purge_due, purge_tenant, rewrite_statistics, run_due_purges, shared_tables,
};
pub use ready_pool::{fill_ready_pool, keep_ready_pool};
pub use relocate::{Relocated, resize_lanes};
pub(crate) use suspend::limit_waiting;
pub use suspend::{resume_tenant, suspend_tenant, suspend_tenant_now};
pub use transfer::{
    Archive, Export, ExportOptions, ExportedTable, ExportedTenant, ImportAs, Imported, Manifest,
    TransferError, TransferProgress, import_tenant,
};
pub use update::{TenantChange, UpdatedTenant, update_tenant};
