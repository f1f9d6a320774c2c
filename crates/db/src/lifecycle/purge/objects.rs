//! Emptying and dropping the tenant's schemas, in batches.
//!
//! Each batch is a transaction of its own with a bounded number of locks: a schema with thousands of tables
//! would fill the server's lock table, and others would fail. Refuses to drop what other schemas rest on,
//! since CASCADE would take that, too.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::blockers;
use super::report::PurgeProgress;
use super::session::PurgeSession;
use crate::error::{Doing, Error};
use crate::lifecycle::ErasureError;

/// Far below the lock table of a server with default settings: 64 for each of 100 connections.
const LOCKS_PER_BATCH: i64 = 1000;
const OBJECTS_PER_BATCH: i64 = 200;

/// Yields how many objects were dropped, schemas aside.
pub(super) async fn drop_all(
    session: &mut PurgeSession<'_>,
    progress: &mut (dyn FnMut(&PurgeProgress) + Send),
) -> Result<u64, Error> {
    require_nothing_outside(session).await?;
    let mut dropped = 0;
    loop {
        let batch = match drop_batch(session).await {
            Err(error) if is_lock_timeout(&error) => return Err(blocked(session, error).await),
            batch => batch?,
        };
        if batch == 0 {
            break;
        }
        dropped += batch;
        progress(&PurgeProgress::dropping(dropped));
    }
    match drop_schemas(session).await {
        Err(error) if is_lock_timeout(&error) => Err(blocked(session, error).await),
        done => done.map(|()| dropped),
    }
}

async fn drop_batch(session: &mut PurgeSession<'_>) -> Result<u64, Error> {
    let owner = session.admin.roles.owner();
    let (schema, copies) = session.names();
    let tx = session.begin_dropping().await?;
    act_as(&tx, &owner).await?;
    let dropped = drop_next(&tx, &schema, &copies).await?;
    tx.commit().await.doing("commit the drop of the tenant's objects")?;
    Ok(dropped)
}

/// Drops the next batch of a schema and of those whose names begin with `copies`, in a transaction that acts
/// as the owner. Yields how many objects that were.
pub(in crate::lifecycle) async fn drop_next(
    tx: &Transaction<'_>,
    schema: &str,
    copies: &str,
) -> Result<u64, Error> {
    let statements = tx
        .query_typed(
            include_str!("objects.sql"),
            &[
                (&schema, Type::TEXT),
                (&copies, Type::TEXT),
                (&LOCKS_PER_BATCH, Type::INT8),
                (&OBJECTS_PER_BATCH, Type::INT8),
            ],
        )
        .await
        .doing("look for the tenant's objects")?;
    let texts: Vec<&str> = statements.iter().map(|row| row.get(0)).collect();
    tx.batch_execute(&texts.join("; ")).await.doing("drop the tenant's objects")?;
    Ok(texts.len() as u64)
}

/// Without CASCADE: they are empty, or somebody has added something.
async fn drop_schemas(session: &mut PurgeSession<'_>) -> Result<(), Error> {
    let owner = session.admin.roles.owner();
    let (schema, copies) = session.names();
    let tx = session.begin_dropping().await?;
    act_as(&tx, &owner).await?;
    let statements = tx
        .query_typed(
            "SELECT format('DROP SCHEMA %I', nspname) FROM pg_namespace
             WHERE nspname = $1 OR starts_with(nspname, $2) ORDER BY nspname",
            &[(&schema, Type::TEXT), (&copies, Type::TEXT)],
        )
        .await
        .doing("look for the tenant's schemas")?;
    for statement in statements {
        tx.batch_execute(statement.get(0)).await.doing("drop the tenant's schemas")?;
    }
    tx.commit().await.doing("commit the drop of the tenant's schemas")
}

async fn act_as(tx: &Transaction<'_>, owner: &str) -> Result<(), Error> {
    tx.batch_execute(&format!("SET LOCAL ROLE {owner}")).await.doing("act as the owner")
}

fn is_lock_timeout(error: &Error) -> bool {
    match error {
        Error::Database { source, .. } => source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE),
        _ => false,
    }
}

/// Who it was that had the lock, if they can still be seen.
async fn blocked(session: &PurgeSession<'_>, error: Error) -> Error {
    let (schema, copies) = session.names();
    match blockers::that_hold_locks(&session.client, &schema, &copies).await {
        Ok(holders) if !holders.is_empty() => {
            let by = holders.iter().map(ToString::to_string).collect();
            ErasureError::Blocked { tenant: session.tenant, by }.into()
        }
        Ok(_) => Error::Busy(format!("a table of tenant `{}`", session.tenant)),
        Err(_) => error,
    }
}

/// Views, keys, defaults and others of other schemas that would go with the tenant's objects, and
/// extensions in the tenant's schema, which others may use.
async fn require_nothing_outside(session: &PurgeSession<'_>) -> Result<(), Error> {
    let (schema, copies) = session.names();
    match list_outside(&session.client, &schema, &copies).await? {
        none if none.is_empty() => Ok(()),
        objects => Err(ErasureError::UsedOutside { tenant: session.tenant, objects }.into()),
    }
}

/// What rests on a schema, or on those whose names begin with `copies`, and is in none of them.
pub(in crate::lifecycle) async fn list_outside(
    db: &impl GenericClient,
    schema: &str,
    copies: &str,
) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(include_str!("outside.sql"), &[(&schema, Type::TEXT), (&copies, Type::TEXT)])
        .await
        .doing("look what rests on the tenant's objects")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
