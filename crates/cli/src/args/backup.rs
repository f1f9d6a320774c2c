//! `tenantry backup`: the flags of its commands.

use clap::{Args as ClapArgs, Subcommand};
use tenantry_backup::BackupKind;

#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Make a backup now, on the database's host
    Run(BackupRun),
    /// Show the backups, which moments can be recovered, and whether all is well
    List,
    /// Send a piece of the server's log through to the repository, and look at everything
    Check(BackupCheck),
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
