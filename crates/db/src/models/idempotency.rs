//! `public.idempotency_keys`: what a sign-up was answered, for the same request sent again.
//!
//! Who asked and with which key is kept as a digest only. Refuses to wait: a request that is still under
//! way is an error, not a queue.

use std::time::Duration;

use futures_util::future::join;
use sha2::{Digest, Sha256};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::background;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::installation::Installation;
use crate::models::tenants::Tenant;

/// A request that may be sent more than once and is to be done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotentRequest {
    id: [u8; 32],
    request: [u8; 32],
}

impl IdempotentRequest {
    /// The request that `caller` marks with `key`. `content` is all that the request asks for; sent again
    /// with another one, it is refused. Two callers do not share keys.
    pub fn new(caller: &str, key: &str, content: &[u8]) -> Self {
        let mut id = Sha256::new();
        // With its length, so that no two pairs run together into one text.
        id.update((caller.len() as u64).to_be_bytes());
        id.update(caller);
        id.update(key);
        Self { id: id.finalize().into(), request: Sha256::digest(content).into() }
    }

    /// For the advisory lock that the request is worked on under.
    fn lock_key(&self) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = self.id;
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Takes on the request until the transaction ends, or yields what it was answered before.
///
/// # Errors
/// [`Error::IdempotencyInProgress`], [`Error::IdempotencyMismatch`].
pub(crate) async fn begin(
    tx: &impl GenericClient,
    request: &IdempotentRequest,
) -> Result<Option<Tenant>, Error> {
    let (key, id) = (request.lock_key(), request.id.as_slice());
    let lock_params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[(&key, Type::INT8)];
    let params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[(&id, Type::BYTEA)];
    // One trip. The lock comes first, and the lookup sees what its former holder committed.
    let (lock, former) = join(
        tx.query_typed_one("SELECT pg_try_advisory_xact_lock($1)", lock_params),
        tx.query_typed_opt(
            "SELECT request, tenant_id AS id, name, subdomain, tier, 'active' AS status, lane,
                    schema_version, false AS legal_hold, settings, created_at,
                    created_at AS updated_at, NULL::timestamptz AS deleted_at,
                    NULL::timestamptz AS purge_after, NULL::timestamptz AS purged_at
             FROM public.idempotency_keys WHERE id = $1",
            params,
        ),
    )
    .await;
    let is_ours: bool = lock.doing("take on a request")?.get(0);
    match former.doing("look whether a request was answered")? {
        Some(row) if row.get::<_, &[u8]>("request") != request.request => {
            Err(Error::IdempotencyMismatch)
        }
        Some(row) => Tenant::from_row(&row).map(Some),
        None if is_ours => Ok(None),
        None => Err(Error::IdempotencyInProgress),
    }
}

/// Remembers the tenant, as it stands now, as the request's answer.
pub(crate) async fn remember(
    tx: &impl GenericClient,
    request: &IdempotentRequest,
    tenant: TenantId,
) -> Result<(), Error> {
    tx.execute_typed(
        "INSERT INTO public.idempotency_keys
             (id, request, tenant_id, name, subdomain, tier, settings, lane, schema_version, created_at)
         SELECT $1, $2, id, name, subdomain, tier, settings, lane, schema_version, created_at
         FROM public.tenants WHERE id = $3",
        &[
            (&request.id.as_slice(), Type::BYTEA),
            (&request.request.as_slice(), Type::BYTEA),
            (tenant.as_uuid(), Type::UUID),
        ],
    )
    .await
    .doing("remember a request")?;
    Ok(())
}

/// Forgets answers of more than 24 hours ago, until `stop` is done.
pub async fn keep_forgetting(installation: Installation, stop: impl Future<Output = ()>) {
    const EVERY: Duration = Duration::from_secs(60);
    let forget = || {
        let installation = installation.clone();
        async move { forget_old_requests(installation.admin()).await.map(drop) }
    };
    background::repeat("forget old requests", EVERY, stop, forget).await;
}

/// Forgets answers of more than 24 hours ago, [`FORGOTTEN_AT_ONCE`] at most. Yields how many.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn forget_old_requests(admin: &AdminDb) -> Result<u64, Error> {
    let db = admin.connection().await?;
    db.execute_typed(
        "DELETE FROM public.idempotency_keys
         WHERE id = ANY (ARRAY(SELECT id FROM public.idempotency_keys
                               WHERE created_at < now() - interval '24 hours'
                               ORDER BY created_at LIMIT $1
                               FOR UPDATE SKIP LOCKED))",
        &[(&FORGOTTEN_AT_ONCE, Type::INT8)],
    )
    .await
    .doing("forget old requests")
}

/// Few enough to be done in milliseconds.
pub const FORGOTTEN_AT_ONCE: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_do_not_share_keys() {
        let id = |caller, key| IdempotentRequest::new(caller, key, b"").id;
        assert_eq!(id("a", "k"), id("a", "k"));
        assert_ne!(id("a", "k"), id("b", "k"));
        assert_ne!(id("ab", "c"), id("a", "bc"));
    }
}
