//! The drill: restoring the newest backup to a scratch server, and showing that it works.
//!
//! Owns what counts as working, and the record of the last one. Nothing that is restored here is ever served,
//! and it is wiped whatever happens. A backup that was never restored is a hope.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tenantry_db::lifecycle::ErasureLedger;
use tenantry_db::models::drill::{
    Canary, Wholeness, canary_at_a_moment, find_canary, look_whole, read_canary,
};
use tenantry_db::{AdminDb, Config};
use tenantry_stack::{Scratch, files};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::health::{Disk, causes};
use crate::moment::{Start, When, locate};
use crate::progress::Progress;
use crate::recovery::{Fate, require_nothing_later};
use crate::restore::wiped;

/// Indexes and tables that are looked through, each.
const SAMPLE: i64 = 200;

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drilled {
    /// When it began.
    pub at: Timestamp,
    /// Whether everything held.
    pub ok: bool,
    /// The backup that was restored.
    pub backup: Option<String>,
    /// The moment that was restored to, if the server runs.
    pub to: Option<Timestamp>,
    /// How long it took until the restored server answered.
    pub restore_s: Option<f64>,
    /// How long all of it took.
    pub took_s: f64,
    /// How much would have been lost with the server when the drill began: the time since the newest piece of its
    /// log had reached the repository.
    pub loss_window_s: Option<f64>,
    /// What was looked at.
    pub checks: Vec<DrillCheck>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillCheck {
    /// What.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// What the server itself says, if it runs.
struct Live {
    moment: Timestamp,
    canary: Option<Canary>,
    whole: Wholeness,
}

impl Engine {
    /// Holds a drill, and remembers how it ended. That a backup is bad is no error, but in the answer.
    ///
    /// Dropped, it wipes what it made; killed, the next one does.
    ///
    /// # Errors
    /// [`Error::Busy`] while another one is held; [`Error::Place`] if the record can't be written.
    pub async fn drill(&self, config: &Config, progress: impl FnMut(Progress)) -> Result<Drilled> {
        let (at, begun) = (Timestamp::now(), Instant::now());
        let mut drilled = Drilled {
            at,
            ok: false,
            backup: None,
            to: None,
            restore_s: None,
            took_s: 0.0,
            loss_window_s: None,
            checks: Vec::new(),
        };
        match self.hold(config, &mut drilled, progress).await {
            Ok(()) => drilled.ok = drilled.checks.iter().all(|check| check.ok),
            Err(error @ (Error::Busy | Error::Place(tenantry_stack::Error::Locked { .. }))) => {
                return Err(error);
            }
            Err(error) => drilled.put("restore", Err(causes(&error))),
        }
        drilled.took_s = begun.elapsed().as_secs_f64();
        let text = serde_json::to_string(&drilled).unwrap_or_default();
        files::write_private(&self.layout().drilled(), &text, Some(self.owner()))?;
        Ok(drilled)
    }

    /// How the last drill ended, if there was one.
    pub fn last_drilled(&self) -> Option<Drilled> {
        let text = files::read_if_present(&self.layout().drilled()).ok()??;
        serde_json::from_str(&text).ok()
    }

    async fn hold(
        &self,
        config: &Config,
        drilled: &mut Drilled,
        progress: impl FnMut(Progress),
    ) -> Result<()> {
        let before = self.repository().await?;
        let reached = self.recoverable(&before).await?.newest().map(|window| window.to);
        drilled.loss_window_s = reached.map(|to| seconds(drilled.at, to));
        // A backup's end is known to the second: a moment within that one would be restored from the one before.
        if let Some(newest) = before.newest() {
            let until = newest.stopped_at + SignedDuration::from_secs(1);
            let left = Duration::try_from(until.duration_since(Timestamp::now()));
            tokio::time::sleep(left.unwrap_or_default().min(Duration::from_secs(1))).await;
        }
        let live = self.live(config, drilled).await?;
        let repository = self.repository().await?;
        let recoverable = self.recoverable(&repository).await?;
        let when = live.as_ref().map_or(When::Now, |live| When::At(live.moment));
        let start = locate(when, Timestamp::now(), &repository.backups, &recoverable)?;
        let newest = repository.newest().map(|it| it.label.as_str());
        if newest != Some(start.backup.label.as_str()) {
            let newest = newest.unwrap_or_default();
            let found = format!(
                "`{newest}` can't be restored; `{}` is the newest that can",
                start.backup.label
            );
            drilled.put("newest_backup", Err(found));
        }
        drilled.backup = Some(start.backup.label.clone());
        drilled.to = live.as_ref().map(|live| live.moment);
        let root = self.settings().scratch_dir.clone();
        let mut scratch = Scratch::open(&root, self.owner()).await?;
        self.require_room(&start)?;
        let held =
            self.look(config, &mut scratch, &start, when, live.as_ref(), drilled, progress).await;
        let ((), scratch) = wiped(held, scratch).await?;
        Ok(scratch.wipe().await?)
    }

    /// The server's own state at a moment that is in the repository afterwards.
    async fn live(&self, config: &Config, drilled: &mut Drilled) -> Result<Option<Live>> {
        let admin = AdminDb::new(config)?;
        let asked = async {
            let whole = look_whole(&admin).await?;
            Ok::<_, tenantry_db::Error>((whole, canary_at_a_moment(&admin).await?))
        };
        match asked.await {
            Ok((whole, (moment, canary))) => {
                self.check().await?;
                Ok(Some(Live { moment, canary, whole }))
            }
            Err(error) => {
                let found = format!("nothing to compare with: {}", causes(&error));
                drilled.put("server", Ok(found));
                Ok(None)
            }
        }
    }

    /// For a copy of the whole server in the scratch directory, which is empty now.
    pub(crate) fn require_room(&self, start: &Start<'_>) -> Result<()> {
        Disk::require_for_copy(&self.settings().scratch_dir, start.backup.size_bytes)
    }

    #[expect(clippy::too_many_arguments, reason = "one call, in one place")]
    async fn look(
        &self,
        config: &Config,
        scratch: &mut Scratch,
        start: &Start<'_>,
        when: When,
        live: Option<&Live>,
        drilled: &mut Drilled,
        progress: impl FnMut(Progress),
    ) -> Result<()> {
        let begun = Instant::now();
        let reached = self.recover(scratch, start, when, Fate::Looked, progress).await?;
        drilled.restore_s = Some(begun.elapsed().as_secs_f64());
        let last = reached.last_commit.map_or_else(|| "-".to_owned(), |at| at.to_string());
        drilled.put("restore", Ok(format!("recovered; the last commit in it is of {last}")));
        let copy = config.of_copy(scratch.socket())?;
        require_nothing_later(&copy, when).await?;
        let admin = AdminDb::new(&copy)?;
        drilled.put("tenants", whole(&look_whole(&admin).await?, live));
        drilled.put("canary", compare(&admin, live).await);
        drilled.put("erasure_ledger", ledger(config));
        let found = self.look_through(scratch, config.database.name()?).await;
        drilled.put("pages", found.map_err(|error| causes(&error)));
        Ok(())
    }

    /// Looks through a sample of indexes and tables, the shared ones first.
    async fn look_through(&self, scratch: &Scratch, database: &str) -> Result<String> {
        let failed = |action| move |source| Error::Scratch { action, source };
        let client = self.superuser(scratch, database).await?;
        let available =
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck')";
        let row = client.query_typed_one(available, &[]).await;
        if !row.map_err(failed("look for amcheck"))?.get::<_, bool>(0) {
            return Ok("`amcheck` is not installed: pages were not looked through".to_owned());
        }
        let make = "CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA pg_catalog";
        client.batch_execute(make).await.map_err(failed("set amcheck up"))?;
        let sample = &[(&SAMPLE as _, tokio_postgres::types::Type::INT8)];
        let indexes = client.query_typed_one(INDEXES, sample).await;
        let indexes: i64 = indexes.map_err(failed("look through the indexes"))?.get(0);
        let tables = client.query_typed_one(TABLES, sample).await;
        let tables = tables.map_err(failed("look through the tables"))?;
        let (looked, damaged): (i64, Option<String>) = (tables.get(0), tables.get(1));
        match damaged {
            Some(damaged) => Err(Error::Unproven { reason: damaged }),
            None => Ok(format!("{indexes} indexes and {looked} tables are sound")),
        }
    }
}

/// An index that is not sound is an error.
const INDEXES: &str = "
    SELECT count(*) FROM (
        SELECT bt_index_check(i.oid, true) FROM (
            SELECT c.oid FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'
            JOIN pg_index x ON x.indexrelid = c.oid AND x.indisvalid
            WHERE c.relkind = 'i' AND c.relpersistence = 'p'
            ORDER BY n.nspname NOT IN ('pg_catalog', 'public'), random() LIMIT $1
        ) i
    ) looked";

const TABLES: &str = "
    SELECT count(DISTINCT t.oid), max(t.oid::regclass::text || ': ' || v.msg)
    FROM (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 't') AND c.relpersistence = 'p'
        ORDER BY n.nspname NOT IN ('pg_catalog', 'public'), random() LIMIT $1
    ) t LEFT JOIN LATERAL verify_heapam(t.oid) v ON true";

impl Drilled {
    fn put(&mut self, name: &str, found: std::result::Result<String, String>) {
        let ok = found.is_ok();
        let detail = found.unwrap_or_else(|detail| detail);
        self.checks.push(DrillCheck { name: name.to_owned(), ok, detail });
    }

    /// What did not hold, in a line.
    pub fn problems(&self) -> String {
        let bad = self.checks.iter().filter(|check| !check.ok);
        bad.map(|check| format!("{}: {}", check.name, check.detail)).collect::<Vec<_>>().join("; ")
    }
}

fn whole(found: &Wholeness, live: Option<&Live>) -> std::result::Result<String, String> {
    let Wholeness { tenants, without_schema, without_role, public_head, tenant_head } = found;
    if without_schema + without_role > 0 {
        return Err(format!(
            "of {tenants} tenants {without_schema} have no schema and {without_role} no role"
        ));
    }
    if let Some(live) = live
        && live.whole.public_head != *public_head
    {
        return Err(format!(
            "the public schema is at version {public_head}, and the server's at {}",
            live.whole.public_head
        ));
    }
    Ok(format!("{tenants} tenants, at version {tenant_head}; public at {public_head}"))
}

async fn compare(admin: &AdminDb, live: Option<&Live>) -> std::result::Result<String, String> {
    let failed = |error: tenantry_db::Error| causes(&error);
    if let Some(canary) = live.and_then(|live| live.canary.as_ref()) {
        let restored = read_canary(admin, canary.tenant).await.map_err(failed)?;
        let rows: i64 = canary.tables.iter().map(|(_, rows, _)| rows).sum();
        let differs =
            |table: &&tenantry_db::models::drill::CanaryTable| !restored.tables.contains(table);
        if restored == *canary {
            return Ok(format!("`{}` has the same {rows} rows as the server", canary.tenant));
        }
        let names: Vec<&str> =
            canary.tables.iter().filter(differs).map(|(name, _, _)| name.as_str()).collect();
        return Err(format!("`{}` differs from the server in {}", canary.tenant, names.join(", ")));
    }
    let Some(tenant) = find_canary(admin).await.map_err(failed)? else {
        return Ok("there is no tenant to read".to_owned());
    };
    let canary = read_canary(admin, tenant).await.map_err(failed)?;
    let rows: i64 = canary.tables.iter().map(|(_, rows, _)| rows).sum();
    Ok(format!(
        "`{tenant}` can be read, {rows} rows; it was not compared, since it was written to, or the server is away"
    ))
}

fn ledger(config: &Config) -> std::result::Result<String, String> {
    let Ok(ledger) = ErasureLedger::new(config) else {
        return Ok("there is none: a restore would not know whom to erase again".to_owned());
    };
    let entries = ledger.entries().map_err(|error| causes(&error))?;
    Ok(format!("{} entries, which a restore would apply", entries.len()))
}

fn seconds(now: Timestamp, then: Timestamp) -> f64 {
    now.duration_since(then).as_secs_f64().max(0.0)
}
