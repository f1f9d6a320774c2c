//! What all lists share: `limit` and `cursor` in, `data` and `next_cursor` out.

use axum::Json;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tenantry_db::models::page::{Listed, Page, Position};

use crate::cursor;
use crate::fields::Fields;

/// A page ends before its rows take more, whatever its `limit`: an answer is held in memory until a
/// slow client has taken it.
const MAX_BYTES: usize = 1024 * 1024;

/// A list's answer.
#[derive(Debug, Serialize)]
pub(super) struct List {
    data: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

impl List {
    /// A page of a list.
    pub(super) fn page<T, R>(listed: Listed<R>) -> Json<Self>
    where
        T: Serialize,
        R: Clone + Into<T>,
    {
        let mut bytes = 0;
        let mut data = Vec::new();
        for row in &listed.rows {
            let row = written::<T, R>(row.clone());
            bytes += row.get().len();
            if bytes > MAX_BYTES && !data.is_empty() {
                break;
            }
            data.push(row);
        }
        let next = listed.shortened(data.len()).next;
        Json(Self { data, next_cursor: next.as_ref().map(cursor::encode) })
    }

    /// A list that is short enough to be given whole.
    pub(super) fn whole<T, R>(rows: Vec<R>) -> Json<Self>
    where
        T: Serialize,
        R: Into<T>,
    {
        Json(Self { data: rows.into_iter().map(written::<T, R>).collect(), next_cursor: None })
    }
}

fn written<T: Serialize, R: Into<T>>(row: R) -> Box<RawValue> {
    serde_json::value::to_raw_value(&row.into()).expect("a row has no key that is not text")
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
