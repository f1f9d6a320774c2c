//! A tenant's `content`: what it writes, plans and publishes.

use std::str::FromStr;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::page::{Listed, Page, Position};
use crate::error::{Doing, Error};
use crate::tenant_db::TenantDb;
use crate::tenant_read::TenantRead;

/// Where a piece stands on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentStatus {
    /// Being written.
    Draft,
    /// Waiting for approval.
    InReview,
    /// Approved.
    Approved,
    /// To be published at its `scheduled_at`.
    Scheduled,
    /// Out.
    Published,
    /// Put away.
    Archived,
}

impl ContentStatus {
    /// All of them, in the order of a piece's life.
    pub const ALL: [Self; 6] = [
        Self::Draft,
        Self::InReview,
        Self::Approved,
        Self::Scheduled,
        Self::Published,
        Self::Archived,
    ];

    /// As the table stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::InReview => "in_review",
            Self::Approved => "approved",
            Self::Scheduled => "scheduled",
            Self::Published => "published",
            Self::Archived => "archived",
        }
    }
}

impl FromStr for ContentStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|status| status.as_str() == text);
        known.ok_or_else(|| format!("`{}` is not a status of content", crate::ids::excerpt(text)))
    }
}

/// A piece of content.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its id.
    pub id: Uuid,
    /// Its number within the tenant, for people.
    pub number: i64,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// Where it stands. Text, since a newer program may know more of them.
    pub status: String,
    /// Who wrote it; none once that user is gone.
    pub author_id: Option<Uuid>,
    /// Pictures and the like, a list.
    pub media: Value,
    /// Free labels.
    pub tags: Vec<String>,
    /// When it is to be published.
    pub scheduled_at: Option<Timestamp>,
    /// When it was published.
    pub published_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A piece to be created.
#[derive(Debug, Clone)]
pub struct NewContent {
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// Where it stands.
    pub status: ContentStatus,
    /// Who writes it.
    pub author_id: Option<Uuid>,
    /// Pictures and the like, a list.
    pub media: Value,
    /// Free labels.
    pub tags: Vec<String>,
    /// When it is to be published.
    pub scheduled_at: Option<Timestamp>,
    /// When it was published; now, for a published piece that does not say.
    pub published_at: Option<Timestamp>,
}

/// What to change of a piece. `None` leaves a field as it is; `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct ContentPatch {
    /// The title.
    pub title: Option<String>,
    /// The text.
    pub body: Option<String>,
    /// Where it stands.
    pub status: Option<ContentStatus>,
    /// Who writes it.
    pub author_id: Option<Option<Uuid>>,
    /// Pictures and the like, a list.
    pub media: Option<Value>,
    /// Free labels.
    pub tags: Option<Vec<String>>,
    /// When it is to be published.
    pub scheduled_at: Option<Option<Timestamp>>,
    /// When it was published; now, for a piece that becomes published and does not say.
    pub published_at: Option<Option<Timestamp>>,
}

/// Which pieces to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContentFilter {
    /// Only those that stand here.
    pub status: Option<ContentStatus>,
    /// Only this user's.
    pub author_id: Option<Uuid>,
}

/// The columns of [`Content`], for every statement that yields one.
macro_rules! columns {
    () => {
        "id, number, title, body, status, author_id, media, tags, scheduled_at, published_at, created_at, updated_at"
    };
}

impl Content {
    fn from_row(row: &Row) -> Result<Self, Error> {
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Self {
                id: row.try_get("id")?,
                number: row.try_get("number")?,
                title: row.try_get("title")?,
                body: row.try_get("body")?,
                status: row.try_get("status")?,
                author_id: row.try_get("author_id")?,
                media: row.try_get("media")?,
                tags: row.try_get("tags")?,
                scheduled_at: row.try_get("scheduled_at")?,
                published_at: row.try_get("published_at")?,
                created_at: row.try_get("created_at")?,
                updated_at: row.try_get("updated_at")?,
            })
        };
        read().doing("read a row of `content`")
    }

    fn position(&self) -> Position {
        Position { created_at: self.created_at, id: self.id }
    }
}

/// Lists content, oldest first.
///
/// # Errors
/// Those of [`TenantRead::query`].
pub async fn list_content(
    db: &TenantRead,
    filter: &ContentFilter,
    page: &Page,
) -> Result<Listed<Content>, Error> {
    let rows = db
        .query(
            concat!(
                "SELECT ",
                columns!(),
                " FROM content
                 WHERE ($1::text IS NULL OR status = $1)
                   AND ($2::uuid IS NULL OR author_id = $2)
                   AND ($3::timestamptz IS NULL OR (created_at, id) > ($3, $4))
                 ORDER BY created_at, id
                 LIMIT $5"
            ),
            &[
                (&filter.status.map(ContentStatus::as_str), Type::TEXT),
                (&filter.author_id, Type::UUID),
                (&page.created_at(), Type::TIMESTAMPTZ),
                (&page.id(), Type::UUID),
                (&page.rows_to_read(), Type::INT8),
            ],
        )
        .await?;
    let pieces = rows.iter().map(Content::from_row).collect::<Result<_, _>>()?;
    Ok(page.listed(pieces, Content::position))
}

/// Finds a piece.
///
/// # Errors
/// Those of [`TenantRead::query`].
pub async fn find_content(db: &TenantRead, id: Uuid) -> Result<Option<Content>, Error> {
    let row = db
        .query_opt(
            concat!("SELECT ", columns!(), " FROM content WHERE id = $1"),
            &[(&id, Type::UUID)],
        )
        .await?;
    row.as_ref().map(Content::from_row).transpose()
}

/// Creates a piece.
///
/// # Errors
/// [`Error::InvalidField`] for an author who is not here or a status that lacks its date, and those
/// of [`TenantDb::query`].
pub async fn create_content(db: &TenantDb, new: &NewContent) -> Result<Content, Error> {
    let row = db
        .query_one(
            concat!(
                "INSERT INTO content (title, body, status, author_id, media, tags, scheduled_at, published_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7,
                         coalesce($8, CASE WHEN $3 = 'published' THEN now() END))
                 RETURNING ",
                columns!()
            ),
            &[
                (&new.title, Type::TEXT),
                (&new.body, Type::TEXT),
                (&new.status.as_str(), Type::TEXT),
                (&new.author_id, Type::UUID),
                (&new.media, Type::JSONB),
                (&new.tags, Type::TEXT_ARRAY),
                (&new.scheduled_at, Type::TIMESTAMPTZ),
                (&new.published_at, Type::TIMESTAMPTZ),
            ],
        )
        .await
        .map_err(named)?;
    Content::from_row(&row)
}

/// Changes a piece, if there is one.
///
/// # Errors
/// As [`create_content`].
pub async fn update_content(
    db: &TenantDb,
    id: Uuid,
    patch: &ContentPatch,
) -> Result<Option<Content>, Error> {
    let row = db
        .query_opt(
            concat!(
                "UPDATE content
                 SET title = coalesce($2, title),
                     body = coalesce($3, body),
                     status = coalesce($4, status),
                     author_id = CASE WHEN $5 THEN $6 ELSE author_id END,
                     media = coalesce($7, media),
                     tags = coalesce($8, tags),
                     scheduled_at = CASE WHEN $9 THEN $10 ELSE scheduled_at END,
                     published_at = CASE WHEN $11 THEN $12
                                         WHEN $4 = 'published' THEN coalesce(published_at, now())
                                         ELSE published_at END,
                     updated_at = now()
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ),
            &[
                (&id, Type::UUID),
                (&patch.title, Type::TEXT),
                (&patch.body, Type::TEXT),
                (&patch.status.map(ContentStatus::as_str), Type::TEXT),
                (&patch.author_id.is_some(), Type::BOOL),
                (&patch.author_id.flatten(), Type::UUID),
                (&patch.media, Type::JSONB),
                (&patch.tags, Type::TEXT_ARRAY),
                (&patch.scheduled_at.is_some(), Type::BOOL),
                (&patch.scheduled_at.flatten(), Type::TIMESTAMPTZ),
                (&patch.published_at.is_some(), Type::BOOL),
                (&patch.published_at.flatten(), Type::TIMESTAMPTZ),
            ],
        )
        .await
        .map_err(named)?;
    row.as_ref().map(Content::from_row).transpose()
}

/// Deletes a piece with all that hangs on it, and tells whether there was one.
///
/// # Errors
/// Those of [`TenantDb::query`].
pub async fn delete_content(db: &TenantDb, id: Uuid) -> Result<bool, Error> {
    let deleted = db.execute("DELETE FROM content WHERE id = $1", &[(&id, Type::UUID)]).await?;
    Ok(deleted > 0)
}

/// What a patch leaves unsaid stands in the row, so these rules can only be checked there.
fn named(error: Error) -> Error {
    let (field, rule) = match error.constraint() {
        Some("content_author_id_fkey") => ("author_id", "is not a user of this tenant"),
        Some("content_scheduled_at_check") => ("scheduled_at", "is needed for a scheduled piece"),
        Some("content_published_at_check") => ("published_at", "is needed for a published piece"),
        _ => return error,
    };
    Error::InvalidField { field, rule }
}
