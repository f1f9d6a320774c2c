//! What the repository of the backups still holds, as whoever runs on the database's host last saw it: for those
//! who must say until when it holds the data of somebody who was purged.
//!
//! A part of the report on the backups. Refuses to know how backups are made.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::GenericClient;

use crate::direct::AdminDb;
use crate::error::{Doing, Error};

/// The oldest that there is in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Which repository: its place, and the server's name in it.
    pub repository: String,
    /// From when on everything that was backed up went into this one, as far as is known.
    pub covers_from: Timestamp,
    /// Those that were in use before, and that nobody looks at any more.
    #[serde(default)]
    pub former: Vec<FormerRepository>,
    /// The newest backup in it, by which it is known again.
    pub newest_backup: String,
    /// No backup and no piece of the log begins before this position of the log.
    pub oldest_position: String,
    /// None was made before this time.
    pub oldest_at: Timestamp,
    /// How long something can stay in it at most after it is gone from the server, if backups are made when they
    /// are due: in seconds.
    pub expires_after_s: i64,
    /// When it was looked at.
    pub seen_at: Timestamp,
}

/// A repository that was in use before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerRepository {
    /// Its place, and the server's name in it.
    pub repository: String,
    /// When it was looked at last.
    pub until: Timestamp,
}

/// What was last seen, if anything.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn find_holding(admin: &AdminDb) -> Result<Option<Holding>, Error> {
    find(&**admin.connection().await?).await
}

/// As [`find_holding`], also in a database whose public set is behind.
pub(crate) async fn find(db: &impl GenericClient) -> Result<Option<Holding>, Error> {
    const DOING: &str = "read what the backups hold";
    let row = db
        .query_typed_one("SELECT to_regclass('public.backup_report') IS NOT NULL", &[])
        .await
        .doing(DOING)?;
    if !row.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = db
        .query_typed_opt("SELECT report->'holding' FROM public.backup_report", &[])
        .await
        .doing(DOING)?;
    let value: Option<Value> = row.and_then(|row| row.get(0));
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}
