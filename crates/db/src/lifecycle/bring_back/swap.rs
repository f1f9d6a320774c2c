//! The moment in which one schema takes the other's name.
//!
//! All tables of the tenant are locked first, so that whatever it was writing is committed, and in the schema
//! that is kept; what comes meanwhile waits, and goes on in the other one. Waits for a lock only briefly, below
//! the time after which the server looks for deadlocks: others are held up for moments, and none of their
//! transactions is ended for it. What is undone goes the same way back.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::load::Loaded;
use super::{BringBackError, keep, require_served, require_whole};
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::{CopyName, TenantId};
use crate::lifecycle::purge::{take_alone, that_hold_locks};
use crate::models::audit::{self, Action, Actor};
use crate::models::kept_schemas::{self, Standing};
use crate::models::tenants;

/// A server looks for a deadlock after a second, and may end whoever waits then.
const LOCK_TIMEOUT_MS: u32 = 400;
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(150);

/// A tenant that was taken back.
#[derive(Debug, Clone, Serialize)]
pub struct Replaced {
    /// The tenant.
    pub tenant: TenantId,
    /// The schema that holds what it had until now.
    pub kept_as: String,
    /// Until when that is kept.
    pub keep_until: Timestamp,
    /// The version that the earlier state had.
    pub from_version: i64,
    /// Its version now.
    pub version: i64,
    /// How many rows it has now.
    pub rows: u64,
    /// About how many rows the state has that was replaced, by the server's own counters.
    pub rows_replaced: i64,
}

/// A tenant that has again what it had before it was taken back.
#[derive(Debug, Clone, Serialize)]
pub struct Undone {
    /// The tenant.
    pub tenant: TenantId,
    /// To which moment it had been taken back; none if that was an undo, too.
    pub restored_to: Option<Timestamp>,
    /// When.
    pub replaced_at: Timestamp,
    /// The schema that holds what it had until now.
    pub kept_as: String,
    /// Until when that is kept.
    pub keep_until: Timestamp,
    /// Its version now.
    pub version: i64,
    /// The version that it had until now.
    pub former_version: i64,
}

/// What takes the tenant's name.
struct Swap<'a> {
    tenant: TenantId,
    incoming: CopyName,
    standing: &'a Standing,
    /// The version that the tenant must still be at.
    expected: Option<i64>,
    restored_to: Option<Timestamp>,
    keep: Duration,
    action: Action,
    actor: &'a Actor,
}

struct Swapped {
    kept: CopyName,
    keep_until: Timestamp,
    former: Standing,
    rows_replaced: i64,
}

impl Loaded {
    /// Gives the tenant its earlier state, and keeps what it had until now for as long as `keep`.
    ///
    /// Dropped or killed, it has done all of it or nothing.
    ///
    /// # Errors
    /// [`BringBackError::InUse`] if the tenant's tables can't be had; [`Error::InvalidState`] and
    /// [`Error::ChangedMeanwhile`] if the tenant was deleted or migrated meanwhile.
    pub async fn swap(
        mut self,
        admin: &AdminDb,
        moment: Option<Timestamp>,
        keep: Duration,
        actor: &Actor,
    ) -> Result<Replaced, Error> {
        let (tenant, standing) = (self.earlier.tenant, &self.earlier.standing);
        let swap = Swap {
            tenant,
            incoming: CopyName::Restoring(tenant),
            standing,
            expected: Some(standing.version),
            restored_to: moment,
            keep,
            action: Action::TenantRewound,
            actor,
        };
        let swapped = match swap.run(&mut self.client, admin).await {
            Ok(swapped) => swapped,
            Err(error) => {
                // Where that fails, too, a service drops it.
                let dropped = keep::drop_copy(&mut self.client, admin, swap.incoming).await;
                if let Err(left) = dropped {
                    tracing::debug!(tenant.id = %tenant, %left, "what was loaded is left behind");
                }
                return Err(error);
            }
        };
        Ok(Replaced {
            tenant,
            kept_as: swapped.kept.to_string(),
            keep_until: swapped.keep_until,
            from_version: self.earlier.from_version,
            version: standing.version,
            rows: self.rows,
            rows_replaced: swapped.rows_replaced,
        })
    }
}

/// Gives a tenant again what it had before it was last taken back, and keeps what it had until now instead.
///
/// Undone twice, it is as before. Dropped or killed, it has done all of it or nothing.
///
/// # Errors
/// [`BringBackError::NothingKept`], [`BringBackError::InUse`]; [`Error::InvalidState`]; [`Error::Busy`] if
/// somebody else is at the tenant's schemas.
pub async fn undo_bring_back(
    admin: &AdminDb,
    tenant: TenantId,
    keep: Duration,
    actor: &Actor,
) -> Result<Undone, Error> {
    let mut client = take_alone(admin, tenant).await?;
    let kept = kept_schemas::find_newest(&client, tenant).await?;
    let kept = kept.ok_or(BringBackError::NothingKept(tenant))?;
    let swap = Swap {
        tenant,
        incoming: CopyName::kept(tenant, kept.number),
        standing: &kept.standing,
        expected: None,
        restored_to: None,
        keep,
        action: Action::TenantRewindUndone,
        actor,
    };
    let swapped = swap.run(&mut client, admin).await?;
    Ok(Undone {
        tenant,
        restored_to: kept.restored_to,
        replaced_at: kept.replaced_at,
        kept_as: swapped.kept.to_string(),
        keep_until: swapped.keep_until,
        version: kept.standing.version,
        former_version: swapped.former.version,
    })
}

impl Swap<'_> {
    async fn run(&self, client: &mut Client, admin: &AdminDb) -> Result<Swapped, Error> {
        for _ in 0..TRIES {
            match self.once(client, admin).await {
                Err(error) if waited_in_vain(&error) => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
        let schema = self.tenant.schema().to_string();
        let by = that_hold_locks(client, &schema, &format!("{schema}__")).await?;
        let by = by.iter().map(ToString::to_string).collect();
        Err(BringBackError::InUse { tenant: self.tenant, by }.into())
    }

    async fn once(&self, client: &mut Client, admin: &AdminDb) -> Result<Swapped, Error> {
        let tenant = self.tenant;
        let tx = client.transaction().await.doing("begin a transaction")?;
        tx.batch_execute(&format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
            .await
            .doing("set a lock timeout")?;
        let row = tenants::lock_taken(&tx, tenant).await?;
        require_served(&row)?;
        if self.expected.is_some_and(|expected| expected != row.schema_version) {
            return Err(Error::ChangedMeanwhile(tenant));
        }
        require_whole(&tx, tenant).await?;
        tx.batch_execute(&format!("SET LOCAL ROLE {}", admin.roles.owner()))
            .await
            .doing("act as the owner")?;
        let rows_replaced = lock_tables(&tx, tenant).await?;
        let former = kept_schemas::standing_of(&tx, tenant).await?;
        let (number, keep_until) =
            kept_schemas::keep(&tx, tenant, &former, self.restored_to, self.keep).await?;
        let kept = CopyName::kept(tenant, number);
        self.move_sequences_on(&tx).await?;
        self.change_names(&tx, kept).await?;
        kept_schemas::set_standing(&tx, tenant, self.standing).await?;
        if let CopyName::Kept(_, number) = self.incoming {
            kept_schemas::take(&tx, number.cast_signed()).await?;
        }
        let details = self.details(kept, keep_until, &former);
        audit::record(&tx, self.actor, self.action, tenant, &details).await?;
        tx.commit().await.doing("commit the change of names")?;
        tracing::info!(tenant.id = %tenant, %kept, "the tenant's schema was replaced");
        Ok(Swapped { kept, keep_until, former, rows_replaced })
    }

    fn details(&self, kept: CopyName, keep_until: Timestamp, former: &Standing) -> Value {
        json!({
            "to": self.restored_to,
            "kept_as": kept.to_string(),
            "keep_until": keep_until,
            "schema_version": self.standing.version,
            "former_schema_version": former.version,
        })
    }

    /// A number that was given once is not given again: each sequence goes to where the further one is.
    async fn move_sequences_on(&self, tx: &Transaction<'_>) -> Result<(), Error> {
        let live = sequences(tx, &self.tenant.schema().to_string()).await?;
        for (quoted, name) in sequences(tx, &self.incoming.to_string()).await? {
            let Some((former, _)) = live.iter().find(|(_, live)| *live == name) else { continue };
            // A descending one counts the other way.
            let statement = format!(
                "SELECT setval($1::text::regclass, b.last_value, b.is_called)
                 FROM {former} b, {quoted} a, pg_sequence s
                 WHERE s.seqrelid = $1::text::regclass
                   AND CASE WHEN b.last_value = a.last_value THEN b.is_called AND NOT a.is_called
                            WHEN s.seqincrement > 0 THEN b.last_value > a.last_value
                            ELSE b.last_value < a.last_value END"
            );
            tx.query_typed(&statement, &[(&quoted, Type::TEXT)])
                .await
                .doing("move a sequence on")?;
        }
        Ok(())
    }

    async fn change_names(&self, tx: &Transaction<'_>, kept: CopyName) -> Result<(), Error> {
        let (schema, incoming) = (self.tenant.schema(), self.incoming);
        let statement = format!("ALTER SCHEMA {schema} RENAME TO {kept}");
        tx.batch_execute(&statement).await.doing("rename the tenant's schema")?;
        close(tx, kept).await?;
        let statement = format!(
            "ALTER SCHEMA {incoming} RENAME TO {schema}; GRANT USAGE ON SCHEMA {schema} TO {schema}"
        );
        tx.batch_execute(&statement).await.doing("give the tenant the other schema")
    }
}

/// Takes everybody's rights on a schema that is kept, and proves it.
async fn close(tx: &Transaction<'_>, kept: CopyName) -> Result<(), Error> {
    let name = kept.to_string();
    let grants = tx
        .query_typed(
            "SELECT format('REVOKE ALL ON SCHEMA %I FROM %s CASCADE', n.nspname,
                           CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
             FROM pg_namespace n, LATERAL (SELECT DISTINCT grantee FROM aclexplode(n.nspacl)) a
             WHERE n.nspname = $1 AND a.grantee <> n.nspowner",
            &[(&name, Type::TEXT)],
        )
        .await
        .doing("look who may enter the schema")?;
    for grant in &grants {
        tx.batch_execute(grant.get(0)).await.doing("close the schema that is kept")?;
    }
    let role = kept.tenant().schema().to_string();
    let row = tx
        .query_typed_one(
            "SELECT has_schema_privilege($1, $2, 'USAGE') OR has_schema_privilege($1, $2, 'CREATE')",
            &[(&role, Type::TEXT), (&name, Type::TEXT)],
        )
        .await
        .doing("look whether the schema is closed")?;
    if row.get(0) {
        let (tenant, members) = (kept.tenant(), vec![role]);
        return Err(Error::StillReachable { tenant, members });
    }
    Ok(())
}

/// Yields about how many rows they have.
async fn lock_tables(tx: &Transaction<'_>, tenant: TenantId) -> Result<i64, Error> {
    let row = tx
        .query_typed_one(
            "SELECT string_agg(format('ONLY %I.%I', n.nspname, c.relname), ', ' ORDER BY c.oid),
                    coalesce(sum(pg_stat_get_live_tuples(c.oid)), 0)::bigint
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')",
            &[(&tenant.schema().to_string(), Type::TEXT)],
        )
        .await
        .doing("list the tenant's tables")?;
    if let Some(tables) = row.get::<_, Option<&str>>(0) {
        tx.batch_execute(&format!("LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
            .await
            .doing("lock the tenant's tables")?;
    }
    Ok(row.get(1))
}

/// The sequences of a schema: how each is called in a statement, and its name.
pub(super) async fn sequences(
    db: &impl GenericClient,
    schema: &str,
) -> Result<Vec<(String, String)>, Error> {
    let rows = db
        .query_typed(
            "SELECT format('%I.%I', n.nspname, c.relname), c.relname::text FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind = 'S' ORDER BY c.oid",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("list the sequences")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn waited_in_vain(error: &Error) -> bool {
    match error {
        Error::Busy(_) => true,
        Error::Database { source, .. } => source.code().is_some_and(|code| {
            [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
        }),
        _ => false,
    }
}
