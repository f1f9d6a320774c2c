//! The library against real servers, which `with-servers` starts once for all of these tests.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod attacks;
mod cancel;
mod changes;
mod deletion;
mod directory;
mod doctor;
mod drift;
mod init;
mod leaks;
mod migrate;
mod models;
mod moving;
mod operating;
mod pooler;
mod provisioning;
mod purging;
mod ready_pool;
mod ready_pool_failures;
mod replicas;
mod rig;
mod rights;
mod sealing;
mod suspension;
mod tenant_db;
mod transfer;
mod verify;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// The SQLSTATE with which the server refuses the statement.
async fn refusal(client: &Client, statement: &str) -> SqlState {
    match client.batch_execute(statement).await {
        Ok(()) => panic!("`{statement}` was allowed"),
        Err(e) => e.code().unwrap_or_else(|| panic!("`{statement}`: {e}")).clone(),
    }
}

/// The first column of a query's rows, as text.
async fn texts(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query_typed(query, &[]).await.unwrap_or_else(|e| panic!("`{query}`: {e:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}
