//! PostgreSQL, streaming replicas and PgBouncer on this machine, in one data directory: for
//! `tenantry up`, and for tests.
//!
//! Owns the servers' whole life there: finding the programs, making the clusters, starting and
//! stopping in order, and clearing up after a run that was killed. Refuses to know about tenants:
//! the roles, the database and the pooler's logins are the caller's.
//!
//! ```no_run
//! use tenantry_stack::{PoolerSettings, Stack, StackOptions};
//!
//! # async fn example() -> tenantry_stack::Result<()> {
//! let mut stack = Stack::open(StackOptions::new(".tenantry")).await?;
//! stack.start_primary().await?;
//! stack.start_replicas().await?;
//! stack.start_pooler(&PoolerSettings::default()).await?;
//! let exit = stack.wait_for_exit().await;
//! stack.stop().await?;
//! # Err(exit.into())
//! # }
//! ```
//!
//! Three things hold throughout. A process is signalled only after it proved to be the one that was
//! started here, never by name and never by a bare number. What is made in several steps (a
//! cluster, a file) gets its name last. And between starting a process and holding it in hand there
//! is no point at which a future could be dropped.
//!
//! Small files are read and written without leaving the async thread; only programs and servers
//! are waited for.

mod binaries;
mod data_dir;
mod error;
pub mod files;
mod launch;
mod layout;
mod leftovers;
mod lock;
mod log;
mod options;
mod pid_file;
mod pooler;
mod postgres;
mod postmaster_file;
mod preflight;
mod primary;
mod process;
mod replica;
mod running;
mod scratch;
mod secrets;
mod server;
mod site;
mod stack;
mod tool;
mod user;

pub use binaries::find_client_program;
pub use data_dir::{DataDir, canonical, resolve_data_dir};
pub use error::{BusyPort, Error, Result};
pub use options::{Durability, PoolerLogin, PoolerSettings, Ports, StackOptions, pooler_entry};
pub use scratch::{Scratch, running_server};
pub use server::{MAX_REPLICAS, Server, ServerExit, ServerState, ServerStatus, Status, Stopped};
pub use stack::{Stack, down, reset, status};
pub use user::ServerUser;
