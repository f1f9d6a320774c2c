//! Backups with real pgBackRest, on servers of each test's own.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod auditing;
mod bringing_back;
mod damage;
mod drilling;
mod erasing;
mod full;
mod making;
mod odd;
mod replicas;
mod restoring;
mod s3;
mod watching;
mod world;
