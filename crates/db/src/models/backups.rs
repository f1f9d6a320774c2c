//! `public.backup_report`: how the backups are, as last found on the database's host. And what the server
//! itself says of its log.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;

use crate::direct::{AdminDb, ReaderDb};
use crate::doctor::Outcome;
use crate::error::{Doing, Error};
use crate::models::holding::Holding;

/// How the backups are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupReport {
    /// What was looked at.
    pub checks: Vec<BackupCheck>,
    /// Numbers for Prometheus, by name: times in seconds since 1970, sizes in bytes.
    pub numbers: BTreeMap<String, f64>,
    /// What the repository holds; none if nobody has seen a backup in it yet.
    #[serde(default)]
    pub holding: Option<Holding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupCheck {
    /// Its name, which alerts go by.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A report that was stored.
#[derive(Debug, Clone)]
pub struct StoredReport {
    /// How long ago, by the server's clock.
    pub age: Duration,
    /// What it says.
    pub report: BackupReport,
}

/// Stores a report in the place of the one before.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn save_report(admin: &AdminDb, report: &BackupReport) -> Result<(), Error> {
    let value = serde_json::to_value(report).unwrap_or(Value::Null);
    let db = admin.connection().await?;
    db.execute_typed(
        "INSERT INTO public.backup_report (singleton, reported_at, report) VALUES (true, now(), $1)
         ON CONFLICT (singleton)
         DO UPDATE SET reported_at = excluded.reported_at, report = excluded.report",
        &[(&value, Type::JSONB)],
    )
    .await
    .doing("store the report on the backups")?;
    Ok(())
}

/// The last report, if there is one that this program can read.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn find_report(reader: &ReaderDb) -> Result<Option<StoredReport>, Error> {
    let db = reader.connection().await?;
    let row = db
        .query_typed_opt(
            "SELECT extract(epoch FROM now() - reported_at)::float8 AS age, report
             FROM public.backup_report",
            &[],
        )
        .await
        .doing("read the report on the backups")?;
    Ok(row.and_then(|row| {
        let age: f64 = row.get("age");
        let report = serde_json::from_value(row.get("report")).ok()?;
        Some(StoredReport { age: Duration::try_from_secs_f64(age).unwrap_or_default(), report })
    }))
}

/// What the server says of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLog {
    /// Whether it is a replica, which archives nothing.
    pub in_recovery: bool,
    /// Whether it archives.
    pub archives: bool,
    /// The last file that it believes to be in the archive.
    pub last_archived: Option<String>,
    /// When it came to believe so.
    pub last_archived_at: Option<Timestamp>,
    /// The last file that it could not archive.
    pub last_failed: Option<String>,
    /// When it tried.
    pub last_failed_at: Option<Timestamp>,
    /// Files that wait to be archived.
    pub waiting: i64,
    /// The segment that is being written.
    pub current: Option<String>,
    /// All segments on its disk.
    pub bytes: i64,
}

/// Asks the server for it.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn server_log(admin: &AdminDb) -> Result<ServerLog, Error> {
    let db = admin.connection().await?;
    let row = db
        .query_typed_one(
            "SELECT pg_is_in_recovery() AS in_recovery,
                    current_setting('archive_mode') <> 'off' AS archives,
                    last_archived_wal, last_archived_time, last_failed_wal, last_failed_time,
                    (SELECT count(*) FROM pg_ls_archive_statusdir()
                     WHERE name LIKE '%.ready') AS waiting,
                    CASE WHEN pg_is_in_recovery() THEN NULL
                         ELSE pg_walfile_name(pg_current_wal_lsn()) END AS current,
                    (SELECT coalesce(sum(size), 0)::int8 FROM pg_ls_waldir()) AS bytes
             FROM pg_stat_archiver",
            &[],
        )
        .await
        .doing("look at the archiving of the log")?;
    Ok(ServerLog {
        in_recovery: row.get("in_recovery"),
        archives: row.get("archives"),
        last_archived: row.get("last_archived_wal"),
        last_archived_at: row.get("last_archived_time"),
        last_failed: row.get("last_failed_wal"),
        last_failed_at: row.get("last_failed_time"),
        waiting: row.get("waiting"),
        current: row.get("current"),
        bytes: row.get("bytes"),
    })
}

/// Commits something, so that the log has a commit behind this moment. Yields the server's time before it.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn commit_once(admin: &AdminDb) -> Result<Timestamp, Error> {
    let db = admin.connection().await?;
    let row = db
        .query_typed_one("SELECT clock_timestamp(), pg_current_xact_id()::text", &[])
        .await
        .doing("commit a mark in the log")?;
    Ok(row.get(0))
}

/// The newest time that the database itself knows of something that was committed: the heartbeat where there is
/// one, else the audit log.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn newest_known_commit(admin: &AdminDb) -> Result<Option<Timestamp>, Error> {
    let db = admin.connection().await?;
    let doing = "look for the newest time in the database";
    let row = db
        .query_typed_one(
            "SELECT to_regclass('public.heartbeat') IS NOT NULL,
                    (SELECT max(recorded_at) FROM public.audit_log)",
            &[],
        )
        .await
        .doing(doing)?;
    let (has_heartbeat, recorded): (bool, Option<Timestamp>) = (row.get(0), row.get(1));
    if !has_heartbeat {
        return Ok(recorded);
    }
    let beat =
        db.query_typed_opt("SELECT beat_at FROM public.heartbeat", &[]).await.doing(doing)?;
    Ok(recorded.max(beat.map(|row| row.get(0))))
}
