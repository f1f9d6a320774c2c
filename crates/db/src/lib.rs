//! Tenantry's library: every tenant in a PostgreSQL schema of its own, and the whole life of it.
//!
//! It knows no HTTP and no command line. The rooms: [`Installation`] (what a
//! service holds) and [`TenantDb`] (one tenant's database; [`TenantRead`] for reads, by [`replicas`]), [`bind`] (what ties a transaction to a
//! tenant), [`config`] (what there is to set), [`init`] (roles and hardening), [`migrate`] (the two sets of migrations), [`lifecycle`] (what happens to
//! a tenant), [`models`] (a row type and its queries for each table), [`operate`] (an operator in a
//! tenant: statements and shells), [`audit`] (that the log was not rewritten), [`doctor`] (is all as it
//! should be).

pub mod audit;
pub mod bind;
pub mod config;
pub mod doctor;
pub mod init;
pub mod lifecycle;
pub mod migrate;
pub mod models;
pub mod operate;
pub mod pooler;
pub mod replicas;

mod background;
mod chained_file;
mod consistency;
mod direct;
mod directory;
mod door;
mod error;
mod ids;
mod installation;
mod lanes;
mod roles;
mod scram;
mod secret;
mod slots;
mod tenant_db;
mod tenant_read;
mod trace;
mod trip;

pub use background::repeat;
pub use config::Config;
pub use direct::{AdminDb, ReaderDb};
pub use directory::{Directory, TenantEntry};
pub use error::{Error, ErrorKind};
pub use ids::{InvalidName, LaneId, SchemaName, Subdomain, TenantId, TenantRef, is_invisible};
pub use installation::Installation;
pub use roles::RolePrefix;
pub use secret::{LaneSecret, Secret};
pub use tenant_db::{TenantDb, TenantTx};
pub use tenant_read::TenantRead;
pub use trace::ServedBy;
pub use trip::Params;

/// The oldest PostgreSQL that Tenantry works with.
pub const MIN_POSTGRES_MAJOR: u32 = 15;
