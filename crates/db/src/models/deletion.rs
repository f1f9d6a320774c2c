//! `public.tenants`, as far as deletion goes: the statements behind deleting, restoring, holding and
//! purging. Each is sent with the tenant's row locked.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::tenants::{Tenant, columns};
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// Deletes, or gives a deleted one another retention. It counts from the deletion.
pub(crate) async fn set_deleted(
    tx: &impl GenericClient,
    tenant: TenantId,
    retention: Duration,
) -> Result<Tenant, Error> {
    let row = tx
        .query_typed_one(
            concat!(
                "UPDATE public.tenants
                 SET status = 'deleted', deleted_at = coalesce(deleted_at, now()),
                     purge_after = coalesce(deleted_at, now()) + make_interval(secs => $2)
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ),
            &[(tenant.as_uuid(), Type::UUID), (&retention.as_secs_f64(), Type::FLOAT8)],
        )
        .await
        .doing("record the deletion")?;
    Tenant::from_row(&row)
}

/// Makes a deleted tenant what it was.
pub(crate) async fn set_restored(
    tx: &impl GenericClient,
    tenant: TenantId,
) -> Result<Tenant, Error> {
    let row = tx
        .query_typed_one(
            concat!(
                "UPDATE public.tenants
                 SET status = CASE WHEN suspended_at IS NULL THEN 'active' ELSE 'suspended' END,
                     deleted_at = NULL, purge_after = NULL
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ),
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("record the restoration")?;
    Tenant::from_row(&row)
}

/// Sets or lifts a legal hold.
pub(crate) async fn set_legal_hold(
    tx: &impl GenericClient,
    tenant: TenantId,
    held: bool,
) -> Result<Tenant, Error> {
    let row = tx
        .query_typed_one(
            concat!(
                "UPDATE public.tenants SET legal_hold = $2 WHERE id = $1 RETURNING ",
                columns!()
            ),
            &[(tenant.as_uuid(), Type::UUID), (&held, Type::BOOL)],
        )
        .await
        .doing("record the legal hold")?;
    Tenant::from_row(&row)
}

/// Whether a deleted tenant's retention is over, by the server's clock and by another one. Of two
/// clocks, the earlier is believed.
pub(crate) async fn is_due(
    tx: &impl GenericClient,
    tenant: TenantId,
    other_clock: Timestamp,
) -> Result<bool, Error> {
    let row = tx
        .query_typed_one(
            "SELECT coalesce(purge_after <= least(clock_timestamp(), $2), false)
             FROM public.tenants WHERE id = $1",
            &[(tenant.as_uuid(), Type::UUID), (&other_clock, Type::TIMESTAMPTZ)],
        )
        .await
        .doing("look whether the tenant is due")?;
    Ok(row.get(0))
}

/// Begins a purge, or takes its beginning back.
pub(crate) async fn set_purging(
    tx: &impl GenericClient,
    tenant: TenantId,
    purging: bool,
) -> Result<Tenant, Error> {
    let row = tx
        .query_typed_one(
            concat!(
                "UPDATE public.tenants SET status = CASE WHEN $2 THEN 'purging' ELSE 'deleted' END
                 WHERE id = $1 RETURNING ",
                columns!()
            ),
            &[(tenant.as_uuid(), Type::UUID), (&purging, Type::BOOL)],
        )
        .await
        .doing("record the tenant's status")?;
    Tenant::from_row(&row)
}

/// Begins the purge of one that was erased before, whatever it is now.
pub(crate) async fn set_purging_again(
    tx: &impl GenericClient,
    tenant: TenantId,
) -> Result<(), Error> {
    tx.execute_typed(
        "UPDATE public.tenants SET status = 'purging', legal_hold = false, purged_at = NULL WHERE id = $1",
        &[(tenant.as_uuid(), Type::UUID)],
    )
    .await
    .doing("record the tenant's status")?;
    Ok(())
}

/// Leaves the id and the dates of a tenant, and frees its subdomain.
pub(crate) async fn bury(tx: &impl GenericClient, tenant: TenantId) -> Result<Tenant, Error> {
    let row = tx
        .query_typed_one(
            concat!(
                "UPDATE public.tenants
                 SET status = 'purged', purged_at = now(), name = '', subdomain = NULL, settings = '{}'
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ),
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("record the end of the purge")?;
    Tenant::from_row(&row)
}

/// A tenant that the service may purge now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) tenant: TenantId,
    /// Whether its purge has begun, so that there is nothing left to decide.
    pub(crate) begun: bool,
}

/// The tenants to be purged: those whose purge has begun first, then those that are due the longest.
pub(crate) async fn list_due(
    db: &impl GenericClient,
    other_clock: Timestamp,
    limit: i64,
) -> Result<Vec<Due>, Error> {
    let rows = db
        .query_typed(
            "SELECT t.id, t.status = 'purging' AS begun
             FROM public.tenants t LEFT JOIN public.purges p ON p.tenant_id = t.id
             WHERE (t.status = 'purging'
                    OR (t.status = 'deleted' AND NOT t.legal_hold
                        AND t.purge_after <= least(now(), $1)))
               -- Far ahead, it was set by a clock that has gone back since.
               AND (p.retry_after IS NULL OR p.retry_after NOT BETWEEN now() AND now() + interval '2 hours')
             ORDER BY begun DESC, t.purge_after, t.id
             LIMIT $2",
            &[(&other_clock, Type::TIMESTAMPTZ), (&limit, Type::INT8)],
        )
        .await
        .doing("look which tenants are due")?;
    Ok(rows
        .iter()
        .map(|row| Due { tenant: row.get::<_, Uuid>(0).into(), begun: row.get(1) })
        .collect())
}
