//! A tenant's data as one file: handed over whole, and taken in as a new tenant.
//!
//! The archive is a ZIP of CSV files, with a manifest as its last one. `shape` is what a schema consists of,
//! `tally` counts and hashes on both sides. Refuses whatever is not whole, and whatever it can't place.

mod error;
mod export;
mod import;
mod load;
mod manifest;
mod shape;
mod snapshot;
mod tally;
mod zip_in;
mod zip_out;

pub use error::TransferError;
pub use export::{Export, ExportOptions, TransferProgress};
pub use import::{ImportAs, Imported, import_tenant, require_importable};
pub use manifest::{ExportedTable, ExportedTenant, Manifest};
pub(in crate::lifecycle) use shape::require_own_tables;
pub use zip_in::Archive;
