//! What an operator does in a tenant, with the tenant's rights and no others: one statement in many of them
//! (`exec`), or a shell in one (`shell`).
//!
//! Refuses tenants that are shut out: who they are shut out for includes the operator. Each use stands in
//! the audit log before it begins.

mod exec;
mod shell;

pub use exec::{Exec, ExecOptions, ExecResult, OperatorStatement, active_tenants};
pub use shell::{Shell, close_shell, keep_sweeping_shells, open_shell, sweep_shells};
pub(crate) use shell::{close_shells_of, end_sessions, leftover_shells, shell_prefix};
