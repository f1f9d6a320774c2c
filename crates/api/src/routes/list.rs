//! What all lists share: `limit` and `cursor` in, `data` and `next_cursor` out.

use axum::Json;
use serde::Serialize;
use serde_json::Value;
use tenantry_db::models::page::{Listed, Page, Position};

use crate::cursor;
use crate::fields::Fields;

/// A list's answer.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A page of a list.
    pub(super) fn page<R>(listed: Listed<R>) -> Json<Self>
    where
        T: From<R>,
    {
        Self::rows(listed.rows, listed.next)
    }

    /// A list that is short enough to be given whole.
    pub(super) fn whole<R>(rows: Vec<R>) -> Json<Self>
    where
        T: From<R>,
    {
        Self::rows(rows, None)
    }

    fn rows<R>(rows: Vec<R>, next: Option<Position>) -> Json<Self>
    where
        T: From<R>,
    {
        let data = rows.into_iter().map(T::from).collect();
        Json(Self { data, next_cursor: next.as_ref().map(cursor::encode) })
    }
}

/// Which part of a list is asked for.
pub(super) fn page(fields: &mut Fields) -> Page {
    const DEFAULT_LIMIT: u16 = 50;
    let limit = fields.optional("limit", limit).unwrap_or(DEFAULT_LIMIT);
    Page { after: fields.optional("cursor", position), limit }
}

fn limit(value: Value) -> Result<u16, String> {
    const MAX: u16 = 200;
    let text = value.as_str().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let number = text.and_then(|text| text.parse().ok());
    number
        .filter(|number| (1..=MAX).contains(number))
        .ok_or_else(|| format!("must be a whole number from 1 to {MAX}"))
}

fn position(value: Value) -> Result<Position, String> {
    let position = value.as_str().and_then(cursor::decode);
    position.ok_or_else(|| "must be the `next_cursor` of an earlier answer".to_owned())
}
