//! Backups of the server that the tenants live on, and the way back to an earlier moment.
//!
//! pgBackRest does the copying. It stands behind [`Engine`], and nothing else in the project knows its
//! options, its files or its exit codes. What it does not tell, this crate finds out itself: which moments
//! can be recovered ([`windows`]), and whether anything is wrong ([`health`]).
//!
//! Two things hold throughout. Whatever is written belongs to the user who owns the server's files, also
//! when we are root. And an exit code of 0 proves nothing: of `verify` and `info` the text is read.

pub mod health;
pub mod windows;

mod archive;
mod backups;
mod command;
mod conf;
mod drill;
mod engine;
mod error;
mod lock;
mod moment;
mod progress;
mod recovery;
mod restore;
mod schedule;
mod settings;
mod tenant;
mod verify;
mod wal;

pub use archive::Archive;
pub use backups::{Backup, BackupKind, Repository};
pub use drill::{DrillCheck, Drilled};
pub use engine::{Engine, Version};
pub use error::{Error, Result};
pub use moment::When;
pub use progress::Progress;
pub use restore::{Destination, Restore, Restored, Step, restore};
pub use schedule::{Due, due, keep, run_if_due};
pub use settings::{Place, Server, Settings};
pub use tenant::{
    Made, TenantAim, TenantRestore, TenantRestored, TenantStep, restore_tenant, undo_restore_tenant,
};
pub use verify::Verified;
pub use wal::{Lsn, SegmentName, SegmentSize};
