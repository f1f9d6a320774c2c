//! Whose transactions stand in a purge's way.

use std::fmt;

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use crate::error::{Doing, Error};

/// A transaction, as somebody must know it who shall end it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::lifecycle) struct Blocker {
    /// None for a prepared transaction: it has no session.
    pid: Option<i32>,
    /// A prepared transaction's identifier, else the login.
    name: String,
    state: String,
    since: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, state, since } = self;
        match pid {
            Some(pid) => {
                write!(f, "pid {pid} of `{name}` ({state}, its transaction is open since {since})")
            }
            None => write!(f, "the prepared transaction `{name}` (since {since})"),
        }
    }
}

fn read(rows: &[Row]) -> Vec<Blocker> {
    let blocker = |row: &Row| Blocker {
        pid: row.get(0),
        name: row.get(1),
        state: row.get(2),
        since: row.get(3),
    };
    rows.iter().map(blocker).collect()
}

/// Those that may have added to a schema, or still may by a name that they have looked up: they have
/// written something, or belong to somebody who may create everywhere. Lanes may create nothing, and
/// a prepared transaction may hold anything.
pub(super) async fn that_could_create(
    db: &impl GenericClient,
    owner: &str,
) -> Result<Vec<Blocker>, Error> {
    let rows = db
        .query_typed(
            "SELECT a.pid, coalesce(a.usename::text, a.backend_type), coalesce(a.state, 'unknown'),
                    date_trunc('second', a.xact_start)::text
             FROM pg_stat_activity a
             WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
               AND a.backend_type NOT IN ('autovacuum worker', 'parallel worker', 'walsender')
               AND (a.usesysid IS NULL OR pg_has_role(a.usesysid, $1::text::regrole, 'MEMBER')
                    OR a.backend_xid IS NOT NULL AND starts_with(a.usename, $2) IS NOT TRUE)
             UNION ALL
             SELECT NULL, p.gid, 'prepared', date_trunc('second', p.prepared)::text
             FROM pg_prepared_xacts p WHERE p.database = current_database()
             ORDER BY 1, 2",
            &[(&owner, Type::TEXT), (&lanes_begin_with(owner), Type::TEXT)],
        )
        .await
        .doing("look for transactions that could add to the tenant's schemas")?;
    Ok(read(&rows))
}

/// `tenantry_owner` → `tenantry_lane_`.
fn lanes_begin_with(owner: &str) -> String {
    format!("{}_lane_", owner.strip_suffix("_owner").unwrap_or(owner))
}

/// Those that hold a lock on a relation of the tenant's.
pub(in crate::lifecycle) async fn that_hold_locks(
    db: &impl GenericClient,
    schema: &str,
    copies: &str,
) -> Result<Vec<Blocker>, Error> {
    let rows = db
        .query_typed(
            "WITH held AS (
                 SELECT DISTINCT l.pid, l.virtualtransaction
                 FROM pg_locks l
                 JOIN pg_class c ON l.locktype = 'relation' AND c.oid = l.relation
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND (n.nspname = $1 OR starts_with(n.nspname, $2))
             )
             SELECT a.pid, coalesce(a.usename::text, a.backend_type), coalesce(a.state, 'unknown'),
                    coalesce(date_trunc('second', a.xact_start)::text, 'now')
             FROM held JOIN pg_stat_activity a ON a.pid = held.pid
             UNION ALL
             SELECT NULL, p.gid, 'prepared', date_trunc('second', p.prepared)::text
             FROM held JOIN pg_prepared_xacts p
               ON held.pid IS NULL AND held.virtualtransaction LIKE '%/' || p.transaction::text
             ORDER BY 1, 2",
            &[(&schema, Type::TEXT), (&copies, Type::TEXT)],
        )
        .await
        .doing("look who holds locks on the tenant's tables")?;
    Ok(read(&rows))
}
