//! `tenantry backup`: the flags of its commands.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use tenantry_backup::{BackupKind, When};
use tenantry_db::TenantRef;

#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Make a backup now, on the database's host
    Run(BackupRun),
    /// Show the backups, which moments can be recovered, and whether all is well
    List,
    /// Send a piece of the server's log through to the repository, and look at everything
    Check(BackupCheck),
    /// Restore the newest backup to a scratch server, show that it works, and throw it away
    Drill,
    /// Take the whole server back to a moment: in its place, or in a directory beside it
    Restore(BackupRestore),
    /// Take one tenant back to a moment, while all others go on: in its place, or as a new tenant to look at
    RestoreTenant(BackupRestoreTenant),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BackupRestoreTenant {
    /// Id or subdomain
    #[arg(value_name = "T")]
    pub(crate) tenant: TenantRef,
    /// The moment, with its offset from UTC, such as 2026-11-24T14:32:00+01:00; or `now`. What the tenant
    /// committed later is not in it
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        required_unless_present = "undo",
        conflicts_with = "undo"
    )]
    pub(crate) to: Option<When>,
    /// Give the tenant that state, and keep what it has now for `backup.keep_replaced` (the default)
    #[arg(long, conflicts_with_all = ["new", "undo"])]
    pub(crate) replace: bool,
    /// Make a new tenant with this subdomain of that state, and leave the tenant alone
    #[arg(long = "as", value_name = "SUBDOMAIN", conflicts_with = "undo")]
    pub(crate) new: Option<String>,
    /// Give the tenant again what it had before it was last taken back
    #[arg(long)]
    pub(crate) undo: bool,
    /// Answer the question whether the tenant's state is to be replaced
    #[arg(long, conflicts_with = "new")]
    pub(crate) yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BackupRestore {
    /// The moment, with its offset from UTC, such as 2026-11-24T14:32:00+01:00; or `now`, the newest state that
    /// there is. What was committed later is not in it
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: When,
    /// Restore into this directory, which must not be there yet, and leave the server alone
    #[arg(long, value_name = "DIR")]
    pub(crate) target_dir: Option<PathBuf>,
    /// Suspend, delete and hold again who was suspended, deleted or held after the moment
    #[arg(long)]
    pub(crate) reapply: bool,
    /// Answer the question whether the server is to be replaced
    #[arg(long, conflicts_with = "target_dir")]
    pub(crate) yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BackupRun {
    /// What to copy: `full` (everything), `diff` (what changed since the last full one) or `incr` (since the
    /// last one of any kind) [default: full]
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    pub(crate) kind: Option<BackupKind>,
    /// Only if one is due by `backup.full_every` and `backup.diff_every`: for timers
    #[arg(long, conflicts_with = "kind")]
    pub(crate) if_due: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BackupCheck {
    /// Also read every file of the repository and compare it with its checksum
    #[arg(long)]
    pub(crate) verify: bool,
}

fn kind(text: &str) -> Result<BackupKind, String> {
    [BackupKind::Full, BackupKind::Diff, BackupKind::Incr]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| "one of full, diff, incr is expected".to_owned())
}
