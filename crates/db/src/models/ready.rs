//! The ready pool in `public.tenants`: rows of the status `ready`, nobody's yet, and the one statement
//! that makes one of them somebody's.

use serde::Serialize;
use serde_json::{Map, Value};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::direct::ReaderDb;
use crate::error::{Doing, Error};
use crate::ids::{LaneId, Subdomain, TenantId};
use crate::migrate::{MigrationSet, Migrations};
use crate::models::audit::{Action, Actor, insert_audit};
use crate::models::tenants::{Tenant, busy_subdomain, is_taken_subdomain, tenant_columns};

/// Who of the pool may be handed out: whoever is like every other tenant of the program that asks. The
/// only place that says so; `$1` is the head of its tenant set, `$2` the digest of that set's repeatable
/// files.
macro_rules! claimable {
    () => {
        "status = 'ready' AND schema_version = $1 AND repeatable_digest = $2"
    };
}

/// Up to where the program's migrations go.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    public: i64,
    tenant: i64,
    repeatable_digest: Vec<u8>,
}

impl Heads {
    pub(crate) fn of(migrations: &Migrations) -> Self {
        let Migrations { public, tenant } = migrations;
        Self {
            public: public.head(),
            tenant: tenant.head(),
            repeatable_digest: tenant.repeatable_digest(),
        }
    }
}

/// What the claimed one becomes.
pub(crate) struct Claim<'a> {
    pub(crate) name: &'a str,
    pub(crate) subdomain: &'a Subdomain,
    pub(crate) tier: &'a str,
    pub(crate) settings: &'a Map<String, Value>,
    /// For the audit log.
    pub(crate) details: &'a Value,
}

/// Takes the oldest that may be handed out and that nobody else is taking, and writes the audit entry:
/// one statement, so outside a transaction it is one. None if there is none, or if the public schema is
/// below its head.
///
/// Where another transaction is about to take the same subdomain, waits for its end.
///
/// # Errors
/// [`Error::SubdomainTaken`]: then nothing was taken.
pub(crate) async fn claim(
    db: &impl GenericClient,
    heads: &Heads,
    claim: &Claim<'_>,
    actor: &Actor,
) -> Result<Option<Tenant>, Error> {
    let claimed = db
        .query_typed_opt(
            concat!(
                "WITH claimed AS (
                     UPDATE public.tenants
                     SET status = 'active', name = $4, subdomain = $5, tier = $6, settings = $7,
                         created_at = now()
                     WHERE id = (SELECT id FROM public.tenants
                                 WHERE ",
                claimable!(),
                "
                                   AND (SELECT max(version) FROM public.migrations
                                        WHERE schema_name = 'public') >= $3
                                 ORDER BY created_at, id LIMIT 1
                                 FOR UPDATE SKIP LOCKED)
                     RETURNING ",
                tenant_columns!(),
                "
                 ), audited AS (",
                insert_audit!(),
                "SELECT $8, $9, id, $11, $10 FROM claimed)
                 SELECT ",
                tenant_columns!(),
                " FROM claimed"
            ),
            &[
                (&heads.tenant, Type::INT8),
                (&heads.repeatable_digest, Type::BYTEA),
                (&heads.public, Type::INT8),
                (&claim.name, Type::TEXT),
                (&claim.subdomain.as_str(), Type::TEXT),
                (&claim.tier, Type::TEXT),
                (&Value::Object(claim.settings.clone()), Type::JSONB),
                (&actor.as_str(), Type::TEXT),
                (&Action::Created.as_str(), Type::TEXT),
                (claim.details, Type::JSONB),
                (&actor.request_id(), Type::TEXT),
            ],
        )
        .await;
    match claimed {
        Ok(row) => row.as_ref().map(Tenant::from_row).transpose(),
        Err(e) if is_taken_subdomain(&e) => Err(Error::SubdomainTaken(claim.subdomain.to_string())),
        Err(e) => Err(e).doing("claim a tenant of the ready pool").map_err(busy_subdomain),
    }
}

/// What the pool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReadyStock {
    /// Those that can be handed out.
    pub claimable: i64,
    /// Those of a newer program than this one.
    pub ahead: i64,
    /// All of them, also those that wait for a migration.
    pub all: i64,
}

impl ReadyStock {
    /// How many more are needed. What waits for a migration does not count as stock, since nobody can
    /// have it; but the pool never holds more than twice its target, whatever stands against migrating.
    pub(crate) fn missing(self, target: u16) -> i64 {
        let target = i64::from(target);
        (target - self.claimable - self.ahead).min(2 * target - self.all).max(0)
    }
}

/// Looks what the pool holds, for a program with this tenant set.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn ready_stock(reader: &ReaderDb, set: &MigrationSet) -> Result<ReadyStock, Error> {
    count(&**reader.connection().await?, set).await
}

pub(crate) async fn count(
    db: &impl GenericClient,
    set: &MigrationSet,
) -> Result<ReadyStock, Error> {
    let row = db
        .query_typed_one(
            concat!(
                "SELECT count(*) FILTER (WHERE ",
                claimable!(),
                "),
                        count(*) FILTER (WHERE schema_version > $1), count(*)
                 FROM public.tenants WHERE status = 'ready'"
            ),
            &[(&set.head(), Type::INT8), (&set.repeatable_digest(), Type::BYTEA)],
        )
        .await
        .doing("look what the ready pool holds")?;
    Ok(ReadyStock { claimable: row.get(0), ahead: row.get(1), all: row.get(2) })
}

/// Inserts rows that the caller's transaction makes schemas for.
pub(crate) async fn insert(
    tx: &impl GenericClient,
    tenants: &[(TenantId, LaneId)],
    head: i64,
) -> Result<(), Error> {
    let ids: Vec<Uuid> = tenants.iter().map(|(id, _)| *id.as_uuid()).collect();
    let lanes: Vec<i16> = tenants.iter().map(|(_, lane)| lane.number().into()).collect();
    tx.execute_typed(
        "INSERT INTO public.tenants (id, name, tier, status, lane, schema_version)
         SELECT u.id, '', '', 'ready', u.lane, $3
         FROM unnest($1::uuid[], $2::smallint[]) AS u (id, lane)",
        &[(&ids, Type::UUID_ARRAY), (&lanes, Type::INT2_ARRAY), (&head, Type::INT8)],
    )
    .await
    .doing("record tenants of the ready pool")?;
    Ok(())
}

/// Whether this transaction, and no other, fills the pool until it ends. Never waits.
pub(crate) async fn lock_filling(tx: &impl GenericClient, prefix: &str) -> Result<bool, Error> {
    let row = tx
        .query_typed_one(
            "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))",
            &[(&format!("{prefix}:ready_pool"), Type::TEXT)],
        )
        .await
        .doing("see whether somebody fills the ready pool")?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_have_is_made_up_for_within_bounds() {
        let missing =
            |claimable, ahead, all, target| ReadyStock { claimable, ahead, all }.missing(target);
        assert_eq!(missing(0, 0, 0, 10), 10);
        assert_eq!(missing(7, 0, 7, 10), 3);
        // Ten wait for a migration: ten more are made, and no eleventh.
        assert_eq!(missing(0, 0, 10, 10), 10);
        assert_eq!(missing(3, 0, 20, 10), 0);
        // A newer program filled it: this one does not fill it with old ones.
        assert_eq!(missing(0, 10, 10, 10), 0);
        // The target was lowered.
        assert_eq!(missing(10, 0, 10, 4), 0);
        assert_eq!(missing(3, 0, 3, 0), 0);
    }
}
