//! Asking a replica, and the primary, how they are. As the reader, past PgBouncer.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::health::{Facts, Reason, Receiver};
use super::track::PrimaryFacts;
use crate::error::{Doing, Error};
use crate::roles::RolePrefix;

/// What is asked of a replica.
pub(crate) fn question(roles: &RolePrefix) -> String {
    format!(
        "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started,
                pg_is_in_recovery() AS in_recovery,
                pg_last_wal_replay_lsn() AS replayed,
                CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() <> 'not paused'
                     ELSE false END AS paused,
                r.status, r.timeline, r.primary_end, r.silence_ms,
                (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint
                    AS committed_at,
                (SELECT (extract(epoch FROM beat_at) * 1000000)::bigint FROM public.heartbeat) AS beat_at
           FROM {}.wal_receiver() r",
        roles.control_schema()
    )
}

/// What a replica says of itself, or why it does not.
pub(crate) async fn replica(client: &Client, question: &str) -> Result<Facts, (Reason, Error)> {
    let row = client.query_typed_one(question, &[]).await.map_err(|source| {
        let reason = match source.code() {
            Some(&SqlState::UNDEFINED_TABLE) => Reason::NoHeartbeat,
            Some(
                &SqlState::UNDEFINED_FUNCTION
                | &SqlState::INVALID_SCHEMA_NAME
                | &SqlState::INSUFFICIENT_PRIVILEGE,
            ) => Reason::NotPermitted,
            _ => Reason::Unreachable,
        };
        (reason, Error::Database { doing: "ask the replica how it is".to_owned(), source })
    })?;
    facts(&row).doing("read how the replica is").map_err(|error| (Reason::Unreachable, error))
}

fn facts(row: &Row) -> Result<Facts, tokio_postgres::Error> {
    let status: Option<&str> = row.try_get("status")?;
    let timeline: Option<i32> = row.try_get("timeline")?;
    let silence_ms: Option<i64> = row.try_get("silence_ms")?;
    let receiver = match status {
        Some(status) => Some(Receiver {
            streaming: status == "streaming",
            timeline: timeline.and_then(|timeline| u32::try_from(timeline).ok()),
            primary_end: row.try_get("primary_end")?,
            silence: silence_ms.map(|ms| Duration::from_millis(ms.try_into().unwrap_or(0))),
        }),
        None => None,
    };
    Ok(Facts {
        started_micros: row.try_get("started")?,
        in_recovery: row.try_get("in_recovery")?,
        paused: row.try_get("paused")?,
        replayed: row.try_get("replayed")?,
        receiver,
        beat_at_micros: row.try_get("beat_at")?,
        committed_at_micros: row.try_get("committed_at")?,
    })
}

/// Asks a server by way of PgBouncer, as a lane that is bound to nobody, when it was started.
pub(crate) async fn way(client: &Client) -> Result<i64, Error> {
    const QUESTION: &str =
        "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint";
    let doing = "ask by way of PgBouncer";
    client.query_typed_one(QUESTION, &[]).await.doing(doing)?.try_get(0).doing(doing)
}

/// What the primary says of itself. An error on a server that is none.
pub(crate) async fn primary(client: &Client) -> Result<PrimaryFacts, Error> {
    const QUESTION: &str = "
        SELECT pg_current_wal_flush_lsn(),
               ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint,
               (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = client.query_typed_one(QUESTION, &[]).await.doing("ask the primary how it is")?;
    let read = || -> Result<PrimaryFacts, tokio_postgres::Error> {
        let timeline: i64 = row.try_get(1)?;
        Ok(PrimaryFacts {
            flushed: row.try_get(0)?,
            timeline: u32::try_from(timeline).unwrap_or_default(),
            now_micros: row.try_get(2)?,
        })
    };
    read().doing("read how the primary is")
}
