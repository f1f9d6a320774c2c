//! Column statistics hold values: e-mail addresses, for instance. Their rows go with the tables, but the
//! bytes stay in the files of `pg_statistic` until these are written anew.
//!
//! Refuses to call them gone while a transaction is under way that is older: PostgreSQL then keeps what that
//! one could still see, in the new file too.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::lifecycle::ErasureError;
use crate::models::purges;

/// What holds values of columns.
const CATALOGS: [&str; 2] = ["pg_catalog.pg_statistic", "pg_catalog.pg_statistic_ext_data"];

/// How long the rewrite waits for its lock: while it waits, whoever plans a query waits behind it.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Writes the statistics of the whole database anew, without those of tenants that were purged before.
/// While it runs, nobody can plan a query. Yields of how many purges it was the last trace.
///
/// # Errors
/// [`Error::Busy`] where somebody keeps the catalog in use, [`ErasureError::StatisticsHeld`] where a
/// transaction that began before does not end within `lanes.settle_timeout`: call it again later.
pub async fn rewrite_statistics(admin: &AdminDb) -> Result<u64, Error> {
    // A session of its own: its settings must not come back to the pool.
    let session = admin.session().await?;
    let limit = format!("SET lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    session.batch_execute(&limit).await.doing("set a lock timeout")?;
    // First these: whoever ends later is for the next time.
    let purged = purges::list_with_statistics(&session).await?;
    forget_names(&session, admin).await?;
    wait_for_older(&session, admin).await?;
    for catalog in CATALOGS {
        let before = file(&session, catalog).await?;
        let statement = format!("VACUUM (FULL) {catalog}");
        busy(catalog, session.batch_execute(&statement).await)?;
        // Whoever does not belong to the database's owner, as the admin does, is only warned.
        if file(&session, catalog).await? == before {
            let problem =
                format!("`{catalog}` was not written anew, though the server did not refuse");
            return Err(Error::UnsuitableServer(problem));
        }
    }
    purges::set_statistics_rewritten(&session, &purged).await
}

/// The register's own statistics may hold a purged tenant's name, and those of two catalogs what a comment or
/// a large object said. Of other shared tables, none hold values (migration 0010).
async fn forget_names(session: &Client, admin: &AdminDb) -> Result<(), Error> {
    let owner = admin.roles.owner();
    session.batch_execute(&format!("SET ROLE {owner}")).await.doing("act as the owner")?;
    let analyze = "ANALYZE public.tenants, pg_catalog.pg_description, pg_catalog.pg_largeobject";
    busy("public.tenants", session.batch_execute(analyze).await)?;
    session.batch_execute("RESET ROLE").await.doing("act as the admin")
}

fn busy(what: &str, done: Result<(), tokio_postgres::Error>) -> Result<(), Error> {
    match done {
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            Err(Error::Busy(format!("`{what}`")))
        }
        done => done.doing("write the statistics anew"),
    }
}

/// Waits until nobody sees this database as it was before now, and until what began to write before, in
/// whichever database of the server, has ended: whatever looks, as the rewrite itself does, counts all of
/// these as running, and keeps what is younger.
async fn wait_for_older(session: &Client, admin: &AdminDb) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(50);
    let row = session
        .query_typed_one(
            "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), pg_current_xact_id()::text",
            &[],
        )
        .await
        .doing("ask for the newest transaction")?;
    if !row.get::<_, bool>(0) {
        let problem = "the admin is not in `pg_monitor`, so nobody can tell which transactions still see the statistics";
        return Err(Error::UnsuitableServer(problem.to_owned()));
    }
    let now: String = row.get(1);
    let deadline = tokio::time::Instant::now() + admin.settle_timeout;
    loop {
        let older = session
            .query_typed_opt(
                // Of two numbers, the older one has the greater age; they go round, so that they can't be
                // compared as such.
                "WITH holders AS (
                     SELECT 'pid ' || pid AS name, backend_xid AS xid FROM pg_stat_activity
                      WHERE pid <> pg_backend_pid()
                     UNION ALL
                     SELECT 'pid ' || pid, backend_xmin FROM pg_stat_activity
                      WHERE (datname = current_database() OR datname IS NULL) AND pid <> pg_backend_pid()
                     UNION ALL
                     SELECT 'the replication slot `' || slot_name || '`', unnest(ARRAY[xmin, catalog_xmin])
                       FROM pg_replication_slots
                     UNION ALL
                     SELECT 'the prepared transaction `' || gid || '`', transaction FROM pg_prepared_xacts
                 )
                 SELECT name FROM holders
                 WHERE xid IS NOT NULL AND age(xid) >= age($1::text::xid8::xid) ORDER BY age(xid) DESC LIMIT 1",
                &[(&now, Type::TEXT)],
            )
            .await
            .doing("look for older transactions")?;
        let Some(older) = older else { return Ok(()) };
        if tokio::time::Instant::now() >= deadline {
            return Err(ErasureError::StatisticsHeld(older.get(0)).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The number of the file that the catalog lies in.
async fn file(session: &Client, catalog: &str) -> Result<u32, Error> {
    let statement = format!("SELECT pg_relation_filenode('{catalog}')");
    let row =
        session.query_typed_one(&statement, &[]).await.doing("look where the statistics lie")?;
    Ok(row.get(0))
}
