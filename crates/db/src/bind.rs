//! The bind: what ties one transaction to one tenant.
//!
//! Everything in it is transaction-local, and every transaction ends with [`COMMIT`] or
//! [`ROLLBACK`], which also take back what a session statement may have left. So a server
//! connection goes back to the pooler as it came, whatever happened.

use tokio_postgres::types::PgLsn;

use crate::config::Tier;
use crate::ids::SchemaName;

/// What leaves a session as the next one must find it.
///
/// `CLOSE ALL`, because a cursor `WITH HOLD` outlives its transaction, and the next one to use the
/// connection could fetch the rows of another tenant from it.
macro_rules! clean {
    () => {
        "CLOSE ALL; UNLISTEN *; RESET SESSION AUTHORIZATION; RESET ALL"
    };
}

/// Ends a transaction and keeps its work. One message, so it costs no trip of its own.
pub const COMMIT: &str = concat!("COMMIT; ", clean!());

/// Ends a transaction and undoes its work.
pub const ROLLBACK: &str = concat!("ROLLBACK; ", clean!());

/// As [`COMMIT`], and tells where the primary's WAL stands then: whoever has replayed it shows whatever
/// was committed or seen in the transaction.
///
/// Behind the RESETs, so that nothing that slipped into the session has a say in it. What is flushed is
/// enough where COMMIT waits for that, and a replica can have no more; where it does not wait, what was
/// written last is not flushed yet.
pub(crate) const COMMIT_AND_TELL: &str = concat!(
    "COMMIT; ",
    clean!(),
    "; SELECT p.at, pg_catalog.left(pg_catalog.pg_walfile_name(p.at), 8) FROM (SELECT CASE \
       WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
       WHEN pg_catalog.current_setting('synchronous_commit') = 'off' THEN pg_catalog.pg_current_wal_insert_lsn() \
       ELSE pg_catalog.pg_current_wal_flush_lsn() END AS at) p"
);

/// As [`COMMIT`], on a replica, and tells how far it has replayed then: no less than what was read.
pub(crate) const COMMIT_AND_TELL_REPLAYED: &str =
    concat!("COMMIT; ", clean!(), "; SELECT pg_catalog.pg_last_wal_replay_lsn()");

/// What a read begins with: the database itself refuses to write. READ COMMITTED is said, because the
/// check of [`on_replica`] relies on it.
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY";

/// Opens a transaction as a tenant.
///
/// The role comes first: without it nothing else matters, since the lane itself has no rights. The
/// path ends with `pg_temp`, or a temporary table would hide the tenant's own.
pub fn statement(schema: SchemaName, tier: &Tier) -> String {
    format!(
        "BEGIN; SET LOCAL ROLE {schema}; SET LOCAL search_path TO {schema}, public, pg_temp; \
         SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
        tier.statement_timeout.as_millis(),
        tier.idle_timeout.as_millis(),
    )
}

/// As the bind `statement`, for a transaction that only reads.
pub(crate) fn read(statement: &str) -> String {
    format!("{BEGIN_READ}{}", after_begin(statement))
}

/// As [`read`], on a replica that must have replayed `needed`: else it fails with a division by zero, and
/// the statement behind it does not run.
///
/// The check comes first, and in READ COMMITTED the statement takes a snapshot of its own after it. So
/// what the check saw replayed is in what the statement sees. A server that was promoted fails the check,
/// too: its history is another from there on. Nothing of the tenant's has a say in it: the lane is still
/// itself there, and has no path.
pub(crate) fn on_replica(statement: &str, needed: PgLsn) -> String {
    format!(
        "{BEGIN_READ}; SELECT 1 / (pg_catalog.pg_is_in_recovery() AND \
         pg_catalog.pg_last_wal_replay_lsn() >= '{needed}'::pg_catalog.pg_lsn)::pg_catalog.int4{}",
        after_begin(statement)
    )
}

fn after_begin(statement: &str) -> &str {
    statement.strip_prefix("BEGIN").expect("a bind begins with BEGIN")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::TenantId;

    #[test]
    fn the_bind_is_local_to_its_transaction() {
        let id: TenantId = "6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90".parse().unwrap();
        let tier = Tier {
            slots: 5,
            slot_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(10),
            retention: None,
        };
        let bind = statement(id.schema(), &tier);
        insta::assert_snapshot!(bind, @"BEGIN; SET LOCAL ROLE tenant_6f1c0c529a3e4a558f0e0d5a3c2b1a90; SET LOCAL search_path TO tenant_6f1c0c529a3e4a558f0e0d5a3c2b1a90, public, pg_temp; SET LOCAL statement_timeout = 15000; SET LOCAL idle_in_transaction_session_timeout = 10000");
        for part in bind.split("; ").skip(1) {
            assert!(part.starts_with("SET LOCAL "), "{part}");
        }
        let (_, same) = bind.split_once("; ").unwrap();
        assert_eq!(read(&bind), format!("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {same}"));
        let checked = on_replica(&bind, 0x1_0000_00FF.into());
        assert!(
            checked.ends_with(&format!(" >= '1/FF'::pg_catalog.pg_lsn)::pg_catalog.int4; {same}"))
        );
    }
}
