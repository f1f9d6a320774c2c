//! One tenant brought back alone, while all others go on: to its place, or as a new tenant to look at.
//!
//! Owns the order. Everything that can be refused is refused before anything is copied. The whole server is
//! restored to a scratch server, as for a drill, and proved to be of the moment; the tenant's schema is brought
//! forward there and read from there. What the server itself gets are one transaction that loads and a short one
//! that changes names. So whatever is killed in the middle, the tenant is what it was, or what it is to be.
//! Refuses to go on beside a drill or another of its kind: they use one directory, which each wipes.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tenantry_db::lifecycle::{
    self, Archive, BringBackError, Earlier, ErasureLedger, Export, ExportOptions, ImportAs,
    Replaced, SchemaText, TransferProgress, Undone, bring_forward, import_tenant, load_earlier,
    require_importable, require_not_erased, require_replaceable, size_on_disk,
};
use tenantry_db::migrate::{Migrations, migrate_public};
use tenantry_db::models::audit::Actor;
use tenantry_db::models::tenants::{Tenant, get_tenant};
use tenantry_db::{AdminDb, Config, ReaderDb, TenantId, TenantRef};
use tenantry_stack::Scratch;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::health::Disk;
use crate::moment::{Start, When, locate, refusal};
use crate::progress::Progress;
use crate::recovery::{Fate, Reached, require_nothing_later};
use crate::restore::{catch_up, wiped};
use crate::windows::Recoverable;

/// The server's log has it all once more.
const ROOM_FACTOR: u64 = 2;

/// The time of a tenant's creation is that of the beginning of its transaction.
const COMMITTED_WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// What a tenant's earlier state becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantAim<'a> {
    /// The tenant's own state. What it had until now is kept for a while.
    Replace,
    /// A new tenant of this subdomain. The tenant itself is left alone.
    New(&'a str),
}

/// Which tenant is to be brought back, and how.
#[derive(Debug, Clone, Copy)]
pub struct TenantRestore<'a> {
    /// pgBackRest.
    pub engine: &'a Engine,
    /// The installation.
    pub config: &'a Config,
    /// Who does it.
    pub actor: &'a Actor,
    /// Which tenant.
    pub tenant: &'a TenantRef,
    /// To which moment.
    pub when: When,
    /// As what.
    pub aim: TenantAim<'a>,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq)]
pub enum TenantStep {
    /// The server's files are copied to the scratch server.
    Copying(Progress),
    /// The scratch server has the moment.
    Recovered,
    /// The earlier state is brought to the version of now.
    BringingForward,
    /// Rows are loaded into the server.
    Loading {
        /// Of which table.
        table: String,
        /// Tables done before it.
        tables_done: usize,
        /// All tables.
        tables: usize,
        /// Bytes so far.
        bytes: u64,
    },
    /// It takes the tenant's place.
    Swapping,
}

/// A tenant that was brought back.
#[derive(Debug, Clone, Serialize)]
pub struct TenantRestored {
    /// The moment.
    pub to: String,
    /// The backup that it began with.
    pub backup: String,
    /// The last commit that is in it, of whichever tenant.
    pub last_commit: Option<Timestamp>,
    /// What the tenant has now, if its own state was replaced.
    pub replaced: Option<Replaced>,
    /// The new tenant, if one was made.
    pub made: Option<Made>,
    /// What should be known.
    pub notes: Vec<String>,
    /// How long it took, and its parts.
    pub took_s: f64,
    /// Until the scratch server had the moment.
    pub recovered_s: f64,
}

/// A new tenant that is an earlier state of another one.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    /// The new tenant.
    pub tenant: Tenant,
    /// Whose state it is.
    pub source: TenantId,
    /// How many rows.
    pub rows: u64,
}

/// Brings one tenant back.
///
/// Dropped or killed at any point, the tenant is what it was, or what it is to be; what was loaded and not used,
/// the next one drops, or a service.
///
/// # Errors
/// [`Error::NotRecoverable`] and others of a restore; [`Error::NoRoom`]; [`Error::Place`] while a drill or another
/// one of these is under way; [`Error::Database`] for what stands against it in the tenant.
pub async fn restore_tenant(
    wish: &TenantRestore<'_>,
    mut progress: impl FnMut(TenantStep) + Send,
) -> Result<TenantRestored> {
    let begun = Instant::now();
    let TenantRestore { engine, config, when, .. } = *wish;
    let migrations = Migrations::load(&config.migrations).map_err(tenantry_db::Error::from)?;
    let (tenant, bytes) = require(wish, &migrations).await?;
    let mut notes: Vec<String> = catch_up(engine, config, when).await?.into_iter().collect();
    let repository = engine.repository().await?;
    let recoverable = engine.recoverable(&repository).await?;
    let mut start = locate(when, Timestamp::now(), &repository.backups, &recoverable)?;
    require_no_gap(wish, &start, &recoverable)?;
    let mut scratch = Scratch::open(&engine.settings().scratch_dir, engine.owner()).await?;
    engine.require_room(&start)?;
    require_room(engine, bytes)?;
    let done = finish(wish, &migrations, &tenant, &mut scratch, &mut start, &mut progress).await;
    let ((reached, recovered, aimed), scratch) = wiped(done, scratch).await?;
    scratch.wipe().await?;
    notes.extend(reached.remarks(&start, &recoverable, when));
    let (replaced, made) = match aimed {
        Aimed::Replaced(replaced) => (Some(replaced), None),
        Aimed::Made(made) => (None, Some(*made)),
    };
    Ok(TenantRestored {
        to: when.to_string(),
        backup: start.backup.label.clone(),
        last_commit: reached.last_commit,
        replaced,
        made,
        notes,
        took_s: begun.elapsed().as_secs_f64(),
        recovered_s: recovered.duration_since(begun).as_secs_f64(),
    })
}

/// Gives a tenant again what it had before it was last taken back.
///
/// # Errors
/// [`Error::Database`] with what stands against it: nothing is kept, it was erased, its tables are in use.
pub async fn undo_restore_tenant(
    config: &Config,
    tenant: &TenantRef,
    keep: Duration,
    actor: &Actor,
) -> Result<Undone> {
    let reader = ReaderDb::new(config)?;
    let ledger = ErasureLedger::new(config).ok();
    let tenant = require_not_erased(&reader, ledger.as_ref(), tenant).await?;
    Ok(lifecycle::undo_bring_back(&AdminDb::new(config)?, tenant.id, keep, actor).await?)
}

enum Aimed {
    Replaced(Replaced),
    Made(Box<Made>),
}

/// Everything that can be refused without a copy. Yields the tenant, and how much room it takes.
async fn require(wish: &TenantRestore<'_>, migrations: &Migrations) -> Result<(Tenant, u64)> {
    let TenantRestore { config, tenant, .. } = *wish;
    let (admin, reader) = (AdminDb::new(config)?, ReaderDb::new(config)?);
    let ledger = ErasureLedger::new(config).ok();
    let row = require_not_erased(&reader, ledger.as_ref(), tenant).await?;
    require_there_then(wish, &row).await?;
    match wish.aim {
        TenantAim::Replace => require_replaceable(&admin, migrations, &row).await?,
        TenantAim::New(subdomain) => {
            require_importable(&admin, config, migrations, &row, subdomain).await?;
        }
    }
    // As large as it is now, for want of anything better; it is looked at again.
    let bytes = size_on_disk(&admin, row.id).await?;
    Ok((row, bytes))
}

/// Refuses a tenant that was created after the moment, with what can be had of it.
async fn require_there_then(wish: &TenantRestore<'_>, tenant: &Tenant) -> Result<()> {
    let TenantRestore { engine, config, when, .. } = *wish;
    if moment(when).is_none_or(|moment| moment >= tenant.created_at) {
        return Ok(());
    }
    // Its creation may not be in the repository yet.
    catch_up(engine, config, when).await?;
    let recoverable = engine.recoverable(&engine.repository().await?).await?;
    let reason = format!("tenant `{}` was created at {}", tenant.id, tenant.created_at);
    Err(refusal(when, reason, &recoverable.since(tenant.created_at + COMMITTED_WITHIN)))
}

/// Refuses to put what ends at a gap in the place of what the tenant has: that goes on.
fn require_no_gap(
    wish: &TenantRestore<'_>,
    start: &Start<'_>,
    recoverable: &Recoverable,
) -> Result<()> {
    match recoverable.gap_behind(start.window) {
        Some(gap) if wish.when == When::Now && wish.aim == TenantAim::Replace => {
            let reason = format!(
                "{} segments of the log are missing from `{}` on, so the newest state that the repository has is \
                 older than what the tenant has",
                gap.segments, gap.first
            );
            Err(refusal(wish.when, reason, recoverable))
        }
        _ => Ok(()),
    }
}

fn moment(when: When) -> Option<Timestamp> {
    match when {
        When::Now => None,
        When::At(moment) => Some(moment),
    }
}

/// For the rows that the server gets.
fn require_room(engine: &Engine, bytes: u64) -> Result<()> {
    Disk::require(&engine.settings().server.data_dir, bytes * ROOM_FACTOR)
}

async fn finish(
    wish: &TenantRestore<'_>,
    migrations: &Migrations,
    tenant: &Tenant,
    scratch: &mut Scratch,
    start: &mut Start<'_>,
    progress: &mut (impl FnMut(TenantStep) + Send),
) -> Result<(Reached, Instant, Aimed)> {
    let TenantRestore { engine, config, when, .. } = *wish;
    let copied = |now| progress(TenantStep::Copying(now));
    let reached = engine.recover_or_older(scratch, start, when, Fate::Looked, copied).await?;
    let copy = config.of_copy(scratch.socket())?;
    require_nothing_later(&copy, when).await?;
    let recovered = Instant::now();
    progress(TenantStep::Recovered);
    let aimed = match wish.aim {
        TenantAim::Replace => {
            let replaced = replace(wish, migrations, tenant, scratch, &copy, progress).await?;
            Aimed::Replaced(replaced)
        }
        TenantAim::New(subdomain) => {
            let made = make(wish, migrations, tenant, subdomain, scratch, &copy, progress).await?;
            Aimed::Made(Box::new(made))
        }
    };
    Ok((reached, recovered, aimed))
}

async fn replace(
    wish: &TenantRestore<'_>,
    migrations: &Migrations,
    tenant: &Tenant,
    scratch: &Scratch,
    copy: &Config,
    progress: &mut (impl FnMut(TenantStep) + Send),
) -> Result<Replaced> {
    let TenantRestore { engine, config, actor, .. } = *wish;
    progress(TenantStep::BringingForward);
    let moment = moment(wish.when);
    let earlier = bring_forward(copy, migrations, tenant, moment, actor).await?;
    require_room(engine, earlier.bytes)?;
    let text = schema_text(engine, scratch, config, &earlier).await?;
    let admin = AdminDb::new(config)?;
    let loaded = load_earlier(&admin, earlier, &text, |at| progress(loading(at))).await?;
    progress(TenantStep::Swapping);
    Ok(loaded.swap(&admin, moment, engine.settings().keep_replaced, actor).await?)
}

async fn schema_text(
    engine: &Engine,
    scratch: &Scratch,
    config: &Config,
    earlier: &Earlier,
) -> Result<SchemaText> {
    let (login, database) = (&engine.settings().server.user, config.database.name()?);
    let schema = earlier.schema();
    let before = scratch.dump_schema(login, database, &schema, "pre-data").await?;
    let after = scratch.dump_schema(login, database, &schema, "post-data").await?;
    Ok(SchemaText { before, after })
}

/// By way of an archive, as an export and an import: the rows get the new tenant's id.
async fn make(
    wish: &TenantRestore<'_>,
    migrations: &Migrations,
    tenant: &Tenant,
    subdomain: &str,
    scratch: &Scratch,
    copy: &Config,
    progress: &mut (impl FnMut(TenantStep) + Send),
) -> Result<Made> {
    let TenantRestore { engine, config, actor, .. } = *wish;
    let there = AdminDb::new(copy)?;
    migrate_public(&there, &migrations.public, None, |_| {}).await?;
    let options = ExportOptions { omit_secrets: false };
    let export = Export::open(&there, copy, tenant.id, options, actor).await;
    let export = export.map_err(|error| match error {
        tenantry_db::Error::TenantNotFound(_) => {
            BringBackError::NotThen { tenant: tenant.id, moment: moment(wish.when) }.into()
        }
        error => error,
    })?;
    let path = scratch.root().join("earlier.zip");
    let file = create_private(&path)?;
    let (manifest, file) = export.write(file, |at| progress(loading(at))).await?;
    drop(file);
    require_room(engine, manifest.bytes())?;
    let archive = Archive::open(&path, true).await?;
    let wanted = ImportAs { subdomain: Some(subdomain), ..ImportAs::default() };
    let admin = AdminDb::new(config)?;
    let imported = import_tenant(&admin, config, migrations, archive, wanted, actor, |at| {
        progress(loading(at));
    });
    let imported = imported.await?;
    let (id, source) = (imported.tenant.id, imported.source);
    lifecycle::record_bring_back_as(&admin, id, source, moment(wish.when), actor).await?;
    let tenant = get_tenant(&ReaderDb::new(config)?, &TenantRef::Id(id)).await?;
    Ok(Made { tenant, source, rows: imported.rows })
}

fn create_private(path: &std::path::Path) -> Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.map_err(Error::io("create", path))
}

fn loading(at: &TransferProgress<'_>) -> TenantStep {
    TenantStep::Loading {
        table: at.table.to_owned(),
        tables_done: at.tables_done,
        tables: at.tables,
        bytes: at.bytes,
    }
}
