//! The stack on real servers. Each test has its own data directory and ports, so all run at once.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod cancellation;
mod place;
mod pooling;
mod recovery;
mod refusals;
mod replication;
mod starting;
