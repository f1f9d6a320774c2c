//! One link of the chain: what a seal is the hash of. Read in the same way for sealing and for verifying.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type, accepts};
use uuid::Uuid;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// Before the first seal.
pub(super) const GENESIS: Hash = [0; 32];

/// Microseconds since 2000-01-01T00:00:00Z: a `timestamptz` as PostgreSQL keeps it. Every value can be
/// read, also those beyond any calendar that somebody put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Micros(pub(super) i64);

impl Micros {
    const UNIX_EPOCH: i64 = -946_684_800_000_000;

    pub(super) fn of(moment: Timestamp) -> Self {
        Self(moment.as_microsecond().saturating_add(Self::UNIX_EPOCH))
    }

    /// None beyond the calendar.
    pub(super) fn moment(self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.0.checked_sub(Self::UNIX_EPOCH)?).ok()
    }
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMPTZ);
}

/// An entry of the log, every column of it. Where the table allows no NULL, somebody may have changed the
/// table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) id: i64,
    pub(super) recorded_at: Option<Micros>,
    pub(super) actor: Option<String>,
    pub(super) action: Option<String>,
    pub(super) tenant_id: Option<Uuid>,
    pub(super) request_id: Option<String>,
    /// As PostgreSQL writes `jsonb`.
    pub(super) details: Option<String>,
}

/// The columns of [`LogEntry`], of a table called `l`.
macro_rules! entry_columns {
    () => {
        "l.id, l.recorded_at, l.actor, l.action, l.tenant_id, l.request_id, l.details::text AS details"
    };
}

pub(super) use entry_columns;

impl LogEntry {
    pub(super) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            recorded_at: row.try_get("recorded_at")?,
            actor: row.try_get("actor")?,
            action: row.try_get("action")?,
            tenant_id: row.try_get("tenant_id")?,
            request_id: row.try_get("request_id")?,
            details: row.try_get("details")?,
        })
    }
}

/// Where an entry stands in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) previous: Hash,
    pub(super) position: i64,
    pub(super) sealed_at: Micros,
}

/// The seal of an entry: SHA-256 over these, one after another, numbers as 64 bits with the highest byte
/// first.
///
/// | | |
/// | --- | --- |
/// | the text `tenantry audit seal 1` and a line feed | so that it is no hash of anything else |
/// | the seal before, 32 bytes | zeros for the first |
/// | position, time of sealing, entry's id | times in microseconds since 2000-01-01T00:00:00Z |
/// | recorded_at, actor, action, tenant_id, request_id, details | each: a zero byte for NULL; else a one, the number of bytes, and these |
///
/// Texts are in UTF-8, `details` as PostgreSQL writes jsonb as text, `tenant_id` in its 16 bytes,
/// `recorded_at` in 8. With lengths before them, no two entries run together into the same bytes.
pub(super) fn seal(place: Place, entry: &LogEntry) -> Hash {
    let mut hash = Sha256::new();
    hash.update(b"tenantry audit seal 1\n");
    hash.update(place.previous);
    hash.update(place.position.to_be_bytes());
    hash.update(place.sealed_at.0.to_be_bytes());
    hash.update(entry.id.to_be_bytes());
    let mut field = |bytes: Option<&[u8]>| match bytes {
        None => hash.update([0]),
        Some(bytes) => {
            hash.update([1]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
    };
    let recorded_at = entry.recorded_at.map(|at| at.0.to_be_bytes());
    field(recorded_at.as_ref().map(<[u8; 8]>::as_slice));
    field(entry.actor.as_deref().map(str::as_bytes));
    field(entry.action.as_deref().map(str::as_bytes));
    field(entry.tenant_id.as_ref().map(|id| id.as_bytes().as_slice()));
    field(entry.request_id.as_deref().map(str::as_bytes));
    field(entry.details.as_deref().map(str::as_bytes));
    hash.finalize().into()
}

#[cfg(test)]
pub(super) mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    pub(in crate::audit) fn entry(id: i64) -> LogEntry {
        LogEntry {
            id,
            recorded_at: Some(Micros(848_000_000_000_000 + id)),
            actor: Some("cli:alice".to_owned()),
            action: Some("tenant.created".to_owned()),
            tenant_id: Some(Uuid::from_u128(7)),
            request_id: None,
            details: Some("{\"tier\": \"pro\"}".to_owned()),
        }
    }

    fn place() -> Place {
        Place { previous: GENESIS, position: 1, sealed_at: Micros(848_000_000_500_000) }
    }

    /// The same by another hand (Python's hashlib). Whoever changes this makes every log that was sealed before look broken.
    #[test]
    fn a_seal_is_what_it_was() {
        insta::assert_snapshot!(HEXLOWER.encode(&seal(place(), &entry(1))), @"8090aac43ab24bdda78b66c46794d235614dacc9f7c76d0781b2db7f254df7e1");
    }

    #[test]
    fn everything_counts() {
        let whole = seal(place(), &entry(1));
        let changed = |change: fn(&mut LogEntry)| {
            let mut entry = entry(1);
            change(&mut entry);
            seal(place(), &entry)
        };
        let others = [
            changed(|e| e.id = 2),
            changed(|e| e.recorded_at = Some(Micros(1))),
            changed(|e| e.actor = Some("cli:bob".to_owned())),
            changed(|e| e.action = Some("tenant.changed".to_owned())),
            changed(|e| e.tenant_id = None),
            changed(|e| e.request_id = Some(String::new())),
            changed(|e| e.details = Some("{}".to_owned())),
            // What is moved from one field to the next, or from NULL to nothing.
            changed(|e| {
                e.actor = Some("cli:alic".to_owned());
                e.action = Some("etenant.created".to_owned());
            }),
            changed(|e| e.actor = None),
            changed(|e| e.actor = Some(String::new())),
            seal(Place { position: 2, ..place() }, &entry(1)),
            seal(Place { sealed_at: Micros(0), ..place() }, &entry(1)),
            seal(Place { previous: [1; 32], ..place() }, &entry(1)),
        ];
        let distinct: std::collections::BTreeSet<_> = others.iter().chain([&whole]).collect();
        assert_eq!(distinct.len(), others.len() + 1);
    }

    #[test]
    fn moments_survive() {
        let moment: Timestamp = "2026-11-24T10:00:00.123456Z".parse().unwrap();
        assert_eq!(Micros::of(moment).moment(), Some(moment));
        assert_eq!(Micros(0).moment(), Some("2000-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(Micros(i64::MAX).moment(), None, "PostgreSQL's `infinity`");
        assert_eq!(Micros(i64::MIN).moment(), None);
    }
}
