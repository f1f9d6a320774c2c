//! The program as people and scripts use it: arguments in, exit codes and text out.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod alerts;
mod audit;
mod backup;
mod deletion;
mod exit_codes;
mod kill;
mod lifecycle;
mod migrate;
mod migrate_lint;
mod operating;
mod program;
mod ready_pool;
mod reference;
mod token;
mod up;
mod verify;
