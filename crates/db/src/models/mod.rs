//! A row type and its queries for each table.

pub mod audit;
pub mod catalog;
pub mod content;
pub mod heartbeat;
pub mod idempotency;
pub mod page;
pub mod ready;
pub mod reference;
pub mod tenants;
pub mod users;

pub(crate) mod deletion;
pub(crate) mod purges;

mod status;
