//! What is kept is dropped some day: after its time, or if nobody needs it.
//!
//! The row goes first, and with it the way back. Whatever is called like a copy and has no row is nobody's then,
//! as is what somebody left who was killed: dropped in batches that take few locks, while nobody else is at the
//! tenant's schemas. Refuses to believe a single clock, and keeps everything of a tenant under a legal hold.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::background;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::CopyName;
use crate::installation::Installation;
use crate::lifecycle::purge::{drop_next, list_outside, try_alone};
use crate::models::audit::{self, Action, Actor};
use crate::models::kept_schemas;

const CHECK_EVERY: Duration = Duration::from_secs(600);

/// Drops what is kept no longer, again and again, until it is to stop.
pub async fn keep_dropping_kept(installation: Installation, stop: impl Future<Output = ()> + Send) {
    let actor = Actor::new("service:kept-schemas");
    background::repeat("drop schemas that are kept no longer", CHECK_EVERY, stop, async || {
        drop_what_is_nobodys(installation.admin(), Timestamp::now(), &actor).await.map(drop)
    })
    .await;
}

/// Drops schemas that were kept long enough, and those that somebody left who was killed. `host_now` is what
/// the clock of this machine says. Yields how many.
///
/// Dropped at any point, the next one does the rest.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn drop_what_is_nobodys(
    admin: &AdminDb,
    host_now: Timestamp,
    actor: &Actor,
) -> Result<usize, Error> {
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    for kept in kept_schemas::forget_expired(&tx, host_now).await? {
        let details = json!({ "kept_as": kept.to_string() });
        audit::record(&tx, actor, Action::KeptDropped, kept.tenant(), &details).await?;
    }
    tx.commit().await.doing("forget what was kept long enough")?;
    let mut dropped = 0;
    for name in kept_schemas::list_nobodys(&**db).await? {
        // Somebody who loads an earlier state, or purges the tenant, holds it.
        let Some(mut client) = try_alone(admin, name.tenant()).await? else { continue };
        dropped += usize::from(drop_if_nobodys(&mut client, admin, name).await?);
    }
    Ok(dropped)
}

/// It may have become somebody's before the lock was had.
async fn drop_if_nobodys(
    client: &mut Client,
    admin: &AdminDb,
    name: CopyName,
) -> Result<bool, Error> {
    if !kept_schemas::list_nobodys(client).await?.contains(&name) {
        return Ok(false);
    }
    let schema = name.to_string();
    let outside = list_outside(client, &schema, &format!("{schema}__")).await?;
    if !outside.is_empty() {
        // It would be dropped with the schema, and is not Tenantry's.
        tracing::warn!(tenant.id = %name.tenant(), %name, objects = outside.join("; "), "a schema can't be dropped: somebody's objects rest on it");
        return Ok(false);
    }
    drop_copy(client, admin, name).await?;
    tracing::info!(tenant.id = %name.tenant(), %name, "a schema that nobody needs was dropped");
    Ok(true)
}

/// Drops a copy, if it is there, in batches. The client holds the tenant's lock.
pub(super) async fn drop_copy(
    client: &mut Client,
    admin: &AdminDb,
    name: CopyName,
) -> Result<(), Error> {
    let schema = name.to_string();
    let prepare = format!(
        "SET LOCAL lock_timeout = {}; SET LOCAL ROLE {}",
        admin.limits.lock_timeout.as_millis().max(1),
        admin.roles.owner()
    );
    loop {
        let tx = client.transaction().await.doing("begin a transaction")?;
        tx.batch_execute(&prepare).await.doing("act as the owner")?;
        // No schema's name begins so: this one alone.
        let dropped = drop_next(&tx, &schema, &format!("{schema}__")).await?;
        if dropped == 0 {
            let there = tx
                .query_typed_opt(
                    "SELECT FROM pg_namespace WHERE nspname = $1",
                    &[(&schema, Type::TEXT)],
                )
                .await
                .doing("look for the schema")?;
            if there.is_some() {
                tx.batch_execute(&format!("DROP SCHEMA {schema}"))
                    .await
                    .doing("drop a schema that nobody needs")?;
            }
        }
        tx.commit().await.doing("commit the drop of a schema that nobody needs")?;
        if dropped == 0 {
            return Ok(());
        }
    }
}
