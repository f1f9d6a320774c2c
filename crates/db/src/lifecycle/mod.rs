//! A tenant's life: one file for each step.

mod access;
mod bring_back;
mod create;
mod delete;
mod erasure_error;
mod purge;
mod ready_pool;
mod relocate;
mod rewind;
mod suspend;
mod transfer;
mod update;
mod values;

pub use bring_back::{
    BringBackError, Earlier, Loaded, Replaced, SchemaText, Undone, bring_forward,
    drop_what_is_nobodys, keep_dropping_kept, load_earlier, record_bring_back_as,
    require_not_erased, require_replaceable, size_on_disk, undo_bring_back,
};
pub(crate) use create::empty_schema;
pub use create::{NewTenant, create_tenant};
pub use delete::{Deletion, delete_tenant, hold_tenant, restore_tenant};
pub use erasure_error::ErasureError;
pub use purge::{
    Authority, BackupsHold, Certificate, CertificateStatus, ErasureCounts, ErasureEntry,
    ErasureLedger, FiledCheck, Parameter, Place, PurgeProgress, PurgeReport, Reapplied, Round,
    begin_purge, check_certificate, continue_purge, count_erasures, declare_replica_gone,
    find_shared_tables, get_certificate, look_at_certificates, purge_due, purge_tenant,
    reapply_ledger, refresh_certificate, require_erased_stay_erased, require_ledger_complete,
    rewrite_statistics, run_due_purges, shared_tables,
};
pub use ready_pool::{fill_ready_pool, keep_ready_pool};
pub use relocate::{Relocated, resize_lanes};
pub use rewind::{
    LostDecision, StandingTenant, decide_again, list_standings, lost_decisions, record_rewind,
};
pub(crate) use suspend::limit_waiting;
pub use suspend::{resume_tenant, suspend_tenant, suspend_tenant_now};
pub use transfer::{
    Archive, Export, ExportOptions, ExportedTable, ExportedTenant, ImportAs, Imported, Manifest,
    TransferError, TransferProgress, import_tenant, require_importable,
};
pub use update::{TenantChange, UpdatedTenant, update_tenant};
