//! What the primary keeps for its replicas.

use super::Check;
use crate::error::{Doing, Error};

const NAME: &str = "replication";

/// A slot that nobody uses keeps WAL until the primary's disk is full, or until the replica's place in it is lost.
/// One without a status was never used, and keeps nothing.
pub(super) async fn check(db: &tokio_postgres::Client) -> Result<Check, Error> {
    let rows = db
        .query_typed(
            "SELECT slot_name::text, active, wal_status,
                    current_setting('max_slot_wal_keep_size') = '-1'
               FROM pg_replication_slots
              WHERE slot_type = 'physical' AND NOT temporary AND wal_status IS NOT NULL
              ORDER BY slot_name",
            &[],
        )
        .await
        .doing("list the replication slots")?;
    let named = |holds: &dyn Fn(&tokio_postgres::Row) -> bool| {
        let names =
            rows.iter().filter(|row| holds(row)).map(|row| format!("`{}`", row.get::<_, &str>(0)));
        names.collect::<Vec<_>>().join(", ")
    };
    let lost = named(&|row| row.get::<_, &str>(2) == "lost");
    let unused = named(&|row| !row.get::<_, bool>(1) && row.get::<_, &str>(2) != "lost");
    let unlimited = rows.iter().any(|row| row.get(3));
    Ok(if !lost.is_empty() {
        Check::warning(
            NAME,
            format!("the replicas of these slots can't come back by themselves: {lost}"),
            "docs/runbooks/replica-slot-lost.md",
        )
    } else if !unused.is_empty() {
        Check::warning(
            NAME,
            format!("nobody uses these slots, and they keep WAL: {unused}"),
            "start the replica; or, if it is gone for good, run `SELECT pg_drop_replication_slot('…')` on the \
             primary as a superuser",
        )
    } else if unlimited {
        Check::warning(
            NAME,
            "a replica that stays away fills the primary's disk: `max_slot_wal_keep_size` is not set",
            "docs/guides/adding-a-replica.md has the settings",
        )
    } else {
        Check::ok(NAME, format!("replication slots in use: {}", rows.len()))
    })
}
