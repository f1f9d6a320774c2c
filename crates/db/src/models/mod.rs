//! A row type and its queries for each table.

pub mod audit;
pub mod backups;
pub mod catalog;
pub(crate) mod certificates;
pub mod content;
pub mod drill;
pub mod heartbeat;
pub mod holding;
pub mod idempotency;
pub(crate) mod kept_schemas;
pub mod page;
pub mod ready;
pub mod reference;
pub mod tenants;
pub mod users;

pub(crate) mod deletion;
pub(crate) mod purge_watch;
pub(crate) mod purges;

mod status;
