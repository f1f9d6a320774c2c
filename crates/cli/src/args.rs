//! The command line: every command and flag, with the text of its help.

mod backup;
mod deletion;
mod migrate;
mod operate;
mod replica;
mod transfer;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use tenantry_api::auth::{Claims, Role, Scope};
use tenantry_db::TenantRef;
use tenantry_db::models::tenants::Status;

pub(crate) use self::backup::{Backup, BackupCheck, BackupRestore, BackupRestoreTenant, BackupRun};
pub(crate) use self::migrate::{
    Migrate, MigrateCreate, MigrateLint, MigratePlan, MigrateRollback, MigrateRun, MigrateStatus,
    MigrateVerify, OnError, Pace, Set,
};
pub(crate) use self::replica::Replica;
pub(crate) use deletion::{TenantCertificate, TenantDelete, TenantPurge};
pub(crate) use operate::{TenantExec, TenantPsql};
pub(crate) use transfer::{TenantExport, TenantImport};

/// Every customer of a SaaS product in a PostgreSQL schema of their own.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 partly done, \
                        4 refused, 5 busy, 6 not found."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Common {
    /// Configuration file [default: `tenantry.toml` or `.tenantry/tenantry.toml`, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "TENANTRY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// How data is printed; `json` is one document and nothing else
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Format,
    /// Log what happens to stderr; twice for details
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start PostgreSQL, replicas, PgBouncer and the HTTP API in a directory, until Ctrl-C
    Up(Up),
    /// Stop what an interrupted `up` left running
    Down(DataDir),
    /// Show servers, migrations, tenants, lanes and backups at a glance
    Status(DataDir),
    /// Serve the HTTP API alone, on servers that run elsewhere, until Ctrl-C
    Serve(Serve),
    /// Prepare an existing PostgreSQL server: roles, database, hardening (the only step that needs a superuser)
    Init(Init),
    /// Bring schemas to a version and back, in waves, and show where they are
    #[command(subcommand)]
    Migrate(Migrate),
    /// Create, show, suspend, delete and purge tenants
    #[command(subcommand)]
    Tenant(Tenant),
    /// Show and resize the lanes, and print what PgBouncer needs for them
    #[command(subcommand)]
    Lanes(Lanes),
    /// Show how the replicas are
    #[command(subcommand)]
    Replica(Replica),
    /// Back the server up, show what can be recovered, and check that it can
    #[command(subcommand)]
    Backup(Backup),
    /// Issue tokens for the HTTP API
    #[command(subcommand)]
    Token(Token),
    /// Show that nobody rewrote the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Check every server and the backups, and say what is wrong and what to do
    Doctor,
    /// Check or show the configuration
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DataDir {
    /// Directory of the servers [default: .tenantry]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Port of the HTTP API
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) http_port: u16,
    /// Port of the primary
    #[arg(long, value_name = "PORT", default_value_t = 5433)]
    pub(crate) postgres_port: u16,
    /// Port of the replica; further ones have the ports that follow
    #[arg(long, value_name = "PORT", default_value_t = 5434)]
    pub(crate) replica_port: u16,
    /// Port of PgBouncer
    #[arg(long, value_name = "PORT", default_value_t = 6432)]
    pub(crate) pgbouncer_port: u16,
    /// Replicas to start, up to 8
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(..=8))]
    pub(crate) replicas: u16,
    /// Start no replica, as `--replicas 0`
    #[arg(long, conflicts_with = "replicas")]
    pub(crate) no_replica: bool,
    /// Make no backups, and keep no log for them
    #[arg(long)]
    pub(crate) no_backup: bool,
    /// Create no demo tenants (`acme` and `globex`, with a little sample data)
    #[arg(long)]
    pub(crate) no_demo: bool,
    /// Tenants to keep ready for a sign-up, up to 1000, 0 for none; kept for later starts [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(..=1000))]
    pub(crate) ready_pool: Option<u16>,
    /// Lanes in use, 1 to 32; kept for later starts [default: 4]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) lanes: Option<u8>,
    /// Delete everything in the directory first; asks, or give --yes
    #[arg(long)]
    pub(crate) reset: bool,
    /// Answer the question of --reset
    #[arg(long, requires = "reset")]
    pub(crate) yes: bool,
}

impl Up {
    /// How many replicas are wanted.
    pub(crate) fn replicas(&self) -> u16 {
        if self.no_replica { 0 } else { self.replicas }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// Port of the HTTP API [default: `http.port`]
    #[arg(long, value_name = "PORT")]
    pub(crate) http_port: Option<u16>,
    /// How the log on stderr is written; `json` is one object on each line
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "TENANTRY_LOG_FORMAT")]
    pub(crate) log_format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Init {
    /// A superuser's connection; better in the environment as TENANTRY_INIT__SUPERUSER_URL, since
    /// other users of this machine can see the command line
    #[arg(long, value_name = "URL")]
    pub(crate) superuser_url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// Create a tenant: one of the ready pool, or role, schema and all tables in one transaction
    Create(TenantCreate),
    /// List tenants, oldest first
    List(TenantList),
    /// Show one tenant
    Show {
        /// Id or subdomain
        #[arg(value_name = "T")]
        tenant: TenantRef,
    },
    /// Shut a tenant out, in the database: no request reaches it from then on
    Suspend {
        /// Id or subdomain
        #[arg(value_name = "T")]
        tenant: TenantRef,
        /// Also wait for the transactions under way on its lane, and end those that take longer than
        /// `lanes.settle_timeout`
        #[arg(long)]
        now: bool,
    },
    /// Let a suspended tenant in again
    Resume {
        /// Id or subdomain
        #[arg(value_name = "T")]
        tenant: TenantRef,
    },
    /// Shut a tenant out and let its retention begin; until that ends it can be restored
    Delete(TenantDelete),
    /// Bring a deleted tenant back, as it was
    Restore {
        /// Id or subdomain
        #[arg(value_name = "T")]
        tenant: TenantRef,
    },
    /// Remove a deleted tenant for good, once its retention is over; goes on with a purge that stopped
    Purge(TenantPurge),
    /// Show the certificate of a purge, after another look at what is still open; or check a filed one
    Certificate(TenantCertificate),
    /// Set a legal hold: nobody can purge the tenant while it stands
    Hold {
        /// Id or subdomain
        #[arg(value_name = "T")]
        tenant: TenantRef,
    },
    /// Lift a legal hold
    Unhold {
        /// Id or subdomain
        #[arg(value_name = "T")]
        tenant: TenantRef,
    },
    /// Write all of a tenant's data into one archive, from one snapshot
    Export(TenantExport),
    /// Make a new tenant of an archive: whole, or not at all
    Import(TenantImport),
    /// Run one statement in tenants, as each of them and with no more rights
    Exec(TenantExec),
    /// Open a psql shell that can't leave the tenant
    Psql(TenantPsql),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TenantCreate {
    /// Display name
    #[arg(long)]
    pub(crate) name: String,
    /// Unique name: one DNS label in lower case
    #[arg(long)]
    pub(crate) subdomain: String,
    /// What the tenant has booked [default: `tenants.default_tier`]
    #[arg(long)]
    pub(crate) tier: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TenantList {
    /// Only of this status: active, suspended, deleted, purging or purged
    #[arg(long, value_parser = status)]
    pub(crate) status: Option<Status>,
    /// Only of this tier
    #[arg(long)]
    pub(crate) tier: Option<String>,
}

/// Tenants of the ready pool are nobody's yet, so they can't be asked for.
fn status(text: &str) -> Result<Status, String> {
    const LISTED: &str = "active, suspended, deleted, purging, purged";
    let status = text.parse().ok().filter(|status| *status != Status::Ready);
    status.ok_or_else(|| format!("one of {LISTED} is expected"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lanes {
    /// Show each lane's tenants and pool
    List,
    /// Spread the tenants over K lanes, one after another, while they are served
    Resize {
        /// How many lanes, 1 to 32
        #[arg(value_name = "K", value_parser = clap::value_parser!(u8).range(1..=32))]
        count: u8,
    },
    /// Print PgBouncer's `auth_file`: the passwords of all lanes
    Userlist,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Recompute every seal, compare with the heads anchored in `erasure.ledger_dir`, and check the erasure
    /// ledger; names what is wrong, the first of it first; exit code 1 if anything is
    Verify,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a token, signed with `auth.secret`
    Issue(TokenIssue),
}

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["tenant", "platform"]))]
pub(crate) struct TokenIssue {
    /// For somebody in this tenant (id or subdomain)
    #[arg(long, value_name = "T")]
    pub(crate) tenant: Option<TenantRef>,
    /// What they are in that tenant: owner, admin, member or viewer (who only reads)
    #[arg(long, value_name = "ROLE", default_value = "owner", conflicts_with = "platform")]
    pub(crate) role: Role,
    /// For the platform's own people and services
    #[arg(long)]
    pub(crate) platform: bool,
    /// A right on the platform, for instance `tenants:read`; may be repeated [default: all]
    #[arg(
        long,
        value_name = "S",
        conflicts_with = "tenant",
        value_delimiter = ' ',
        action = clap::ArgAction::Append
    )]
    pub(crate) scope: Vec<Scope>,
    /// Whom the token names, also in the audit log [default: `cli:` and the account's name]
    #[arg(long, value_name = "NAME", value_parser = subject)]
    pub(crate) sub: Option<String>,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = ttl)]
    pub(crate) ttl: SignedDuration,
}

fn subject(text: &str) -> Result<String, String> {
    let good = Claims::is_subject(text);
    good.then(|| text.to_owned()).ok_or_else(|| Claims::SUBJECT_RULE.to_owned())
}

fn ttl(text: &str) -> Result<SignedDuration, String> {
    const MAX: SignedDuration = SignedDuration::from_hours(24 * 366);
    let ttl = text.parse().ok().filter(|ttl| (SignedDuration::from_secs(1)..=MAX).contains(ttl));
    ttl.ok_or_else(|| "a duration from 1s to a year is expected, such as 30min or 1h".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check the configuration without connecting
    Check,
    /// Show every setting and where it came from, secrets hidden
    Show {
        /// Print the manual instead: every setting with its default and why
        #[arg(long)]
        defaults: bool,
    },
}
