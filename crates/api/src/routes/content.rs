//! `/api/content`: what a tenant writes, plans and publishes.

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tenantry_db::models::content::{
    self as rows, Content, ContentFilter, ContentPatch, ContentStatus, NewContent,
};
use uuid::Uuid;

use super::list::{self, List};
use crate::body::{JsonBody, PathId, Query};
use crate::fields::{Rule, any_text, array, one_of, tags, text, timestamp, uuid};
use crate::middleware::db::{ReadTenant, WriteTenant};
use crate::problem::{Code, Problem};

const MAX_TITLE_CHARS: usize = 255;
const MAX_BODY_CHARS: usize = 100_000;
const MAX_MEDIA: usize = 100;

/// A piece of content, as clients see one.
#[derive(Serialize)]
pub(super) struct ContentJson {
    id: Uuid,
    number: i64,
    title: String,
    body: String,
    status: String,
    author_id: Option<Uuid>,
    media: Value,
    tags: Vec<String>,
    scheduled_at: Option<Timestamp>,
    published_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Content> for ContentJson {
    fn from(piece: Content) -> Self {
        Self {
            id: piece.id,
            number: piece.number,
            title: piece.title,
            body: piece.body,
            status: piece.status,
            author_id: piece.author_id,
            media: piece.media,
            tags: piece.tags,
            scheduled_at: piece.scheduled_at,
            published_at: piece.published_at,
            created_at: piece.created_at,
            updated_at: piece.updated_at,
        }
    }
}

fn status() -> impl Rule<ContentStatus> {
    one_of(&ContentStatus::ALL, ContentStatus::as_str)
}

pub(super) async fn list(
    ReadTenant(db): ReadTenant,
    Query(mut fields): Query,
) -> Result<Json<List>, Problem> {
    let page = list::page(&mut fields);
    let filter = ContentFilter {
        status: fields.optional("status", status()),
        author_id: fields.optional("author_id", uuid),
    };
    fields.finish()?;
    Ok(List::page::<ContentJson, _>(rows::list_content(&db, &filter, &page).await?))
}

pub(super) async fn show(
    ReadTenant(db): ReadTenant,
    PathId(id): PathId,
) -> Result<Json<ContentJson>, Problem> {
    let piece = rows::find_content(&db, id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(piece.into()))
}

pub(super) async fn create(
    WriteTenant(db): WriteTenant,
    JsonBody(mut fields): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<ContentJson>), Problem> {
    let new = NewContent {
        title: fields.required("title", text(MAX_TITLE_CHARS)),
        body: fields.optional("body", any_text(MAX_BODY_CHARS)).unwrap_or_default(),
        status: fields.optional("status", status()).unwrap_or(ContentStatus::Draft),
        author_id: fields.nullable("author_id", uuid).flatten(),
        media: fields.optional("media", array(MAX_MEDIA)).unwrap_or_else(|| Value::Array(vec![])),
        tags: fields.optional("tags", tags).unwrap_or_default(),
        scheduled_at: fields.nullable("scheduled_at", timestamp).flatten(),
        published_at: fields.nullable("published_at", timestamp).flatten(),
    };
    if new.status == ContentStatus::Scheduled && new.scheduled_at.is_none() {
        fields.error("scheduled_at", "is needed for a scheduled piece");
    }
    fields.finish()?;
    let piece = rows::create_content(&db, &new).await?;
    let location = [(header::LOCATION, format!("/api/content/{}", piece.id))];
    Ok((StatusCode::CREATED, location, Json(piece.into())))
}

pub(super) async fn update(
    WriteTenant(db): WriteTenant,
    PathId(id): PathId,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<ContentJson>, Problem> {
    if fields.is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "the body names nothing to change"));
    }
    let patch = ContentPatch {
        title: fields.optional("title", text(MAX_TITLE_CHARS)),
        body: fields.optional("body", any_text(MAX_BODY_CHARS)),
        status: fields.optional("status", status()),
        author_id: fields.nullable("author_id", uuid),
        media: fields.optional("media", array(MAX_MEDIA)),
        tags: fields.optional("tags", tags),
        scheduled_at: fields.nullable("scheduled_at", timestamp),
        published_at: fields.nullable("published_at", timestamp),
    };
    fields.finish()?;
    let piece = rows::update_content(&db, id, &patch).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(piece.into()))
}

pub(super) async fn delete(
    WriteTenant(db): WriteTenant,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    if rows::delete_content(&db, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}
