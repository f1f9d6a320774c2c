//! `tenantry migrate`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use tenantry_db::TenantRef;
use tenantry_db::migrate::Portion;

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Apply what is pending: the public set, then the tenants in waves
    Run(MigrateRun),
    /// Write the up and down file of a new migration
    Create(MigrateCreate),
    /// Take the last step back, or more, in reverse order
    Rollback(MigrateRollback),
    /// Show where the sets and the tenants stand, who failed and why
    Status(MigrateStatus),
    /// Show what a run would do, and change nothing
    Plan(MigratePlan),
    /// Look for what migration files should not do, without a database
    Lint(MigrateLint),
    /// Try the files up, down and up again on a scratch schema, empty and with rows; leaves nothing
    Verify(MigrateVerify),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateLint {
    /// Refuse warnings too
    #[arg(long)]
    pub(crate) deny_warnings: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigratePlan {
    /// Only this set [default: public, then tenant]
    #[arg(long, value_name = "SET")]
    pub(crate) set: Option<Set>,
    /// Only these tenants (id or subdomain), and not the public set
    #[arg(long, value_name = "T", conflicts_with = "set")]
    pub(crate) tenant: Vec<TenantRef>,
    /// Up to and including this version [default: the newest]
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) to: Option<i64>,
    /// How far each wave goes, counted from the beginning: `1`, `10%`; may be repeated
    /// [default: `migrations.waves`]
    #[arg(long, value_name = "N|N%")]
    pub(crate) wave: Vec<Portion>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Pace {
    /// How many tenants at once [default: `migrations.parallel`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) parallel: Option<u16>,
    /// What the first failure does: end the run, or only keep the next wave from beginning
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "stop",
        default_value_if("max_failures", clap::builder::ArgPredicate::IsPresent, "continue")
    )]
    pub(crate) on_error: OnError,
    /// So many failed tenants end no run and hold up no wave; more end it. Implies
    /// `--on-error continue`
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_failures: Option<Portion>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateRun {
    #[command(flatten)]
    pub(crate) plan: MigratePlan,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Record changed files as they are now, instead of refusing them; for schemas that are right
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) repair: bool,
    /// As `migrate plan`: show what would run, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateRollback {
    /// How many steps back
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) steps: u16,
    /// Back to this version, which stays; 0 for none
    #[arg(long, value_name = "V", conflicts_with = "steps", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) to: Option<i64>,
    /// Only these tenants (id or subdomain), and not the public set
    #[arg(long, value_name = "T")]
    pub(crate) tenant: Vec<TenantRef>,
    /// How far each wave goes, counted from the beginning: `1`, `10%`; may be repeated
    /// [default: `migrations.waves`]
    #[arg(long, value_name = "N|N%")]
    pub(crate) wave: Vec<Portion>,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Drop tables and columns also where they hold rows
    #[arg(long)]
    pub(crate) accept_data_loss: bool,
    /// Take this program's own public files back, too. It works on their tables: only before an older
    /// program is installed
    #[arg(long, conflicts_with = "tenant")]
    pub(crate) built_in: bool,
    /// Show what would be taken back and what would be lost, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    Public,
    Tenant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    Stop,
    Continue,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateStatus {
    /// Only this tenant (id or subdomain)
    #[arg(long, value_name = "T")]
    pub(crate) tenant: Option<TenantRef>,
    /// Compare the tenants' schemas with what the files of their version make, object by object
    #[arg(long)]
    pub(crate) drift: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateVerify {
    /// Only this set [default: public, then tenant]
    #[arg(long, value_name = "SET")]
    pub(crate) set: Option<Set>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MigrateCreate {
    /// What it does, for instance `add_labels`
    #[arg(value_name = "NAME", required_unless_present = "built_in")]
    pub(crate) name: Option<String>,
    /// Which set it belongs to
    #[arg(long, value_name = "SET", default_value = "tenant")]
    pub(crate) set: Set,
    /// Where the files are [default: `migrations.dir`]. A new directory begins with the built-in files
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Add what the directory lacks of this program's own public files, for instance after an upgrade
    #[arg(long, conflicts_with = "name")]
    pub(crate) built_in: bool,
}
