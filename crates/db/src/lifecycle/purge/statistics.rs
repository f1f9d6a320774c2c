//! Column statistics hold values: e-mail addresses, for instance. Their rows go with the tables, but the
//! bytes stay in the files of `pg_statistic` until these are written anew.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::models::purges;

/// What holds values of columns.
const CATALOGS: [&str; 2] = ["pg_catalog.pg_statistic", "pg_catalog.pg_statistic_ext_data"];

/// How long the rewrite waits for its lock: while it waits, whoever plans a query waits behind it.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Writes the statistics of the whole database anew, without those of tenants that were purged before.
/// While it runs, nobody can plan a query. Yields of how many purges it was the last trace.
///
/// # Errors
/// [`Error::Busy`] where somebody keeps the catalog in use: call it again later.
pub async fn rewrite_statistics(admin: &AdminDb) -> Result<u64, Error> {
    // A session of its own: its settings must not come back to the pool.
    let session = admin.session().await?;
    let now = session
        .query_typed_one("SELECT clock_timestamp()", &[])
        .await
        .doing("read the server's clock")?;
    let now: Timestamp = now.get(0);
    let limit = format!("SET lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    session.batch_execute(&limit).await.doing("set a lock timeout")?;
    for catalog in CATALOGS {
        let before = file(&session, catalog).await?;
        match session.batch_execute(&format!("VACUUM (FULL) {catalog}")).await {
            Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(Error::Busy(format!("`{catalog}`")));
            }
            done => done.doing("write the statistics anew")?,
        }
        // Whoever does not belong to the database's owner, as the admin does, is only warned.
        if file(&session, catalog).await? == before {
            let problem =
                format!("`{catalog}` was not written anew, though the server did not refuse");
            return Err(Error::UnsuitableServer(problem));
        }
    }
    purges::set_statistics_rewritten(&session, now).await
}

/// The number of the file that the catalog lies in.
async fn file(session: &Client, catalog: &str) -> Result<u32, Error> {
    let statement = format!("SELECT pg_relation_filenode('{catalog}')");
    let row =
        session.query_typed_one(&statement, &[]).await.doing("look where the statistics lie")?;
    Ok(row.get(0))
}
