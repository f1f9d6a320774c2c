//! What tests share: servers that were started once, and a database for each test.
//!
//! Development only. The servers are real: PostgreSQL and PgBouncer, through `stack`. The program
//! `with-servers` starts them around a command and tells the tests where they are.

mod database;
mod proxy;
mod servers;

pub use database::TestDatabase;
pub use proxy::{Proxy, Wire};
pub use servers::{Servers, VARIABLE, free_port, free_ports_in_a_row, temp_dir};
