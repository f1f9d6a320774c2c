//! Who may act as a tenant, in the database itself: giving its role to a lane, taking it from all, and
//! the proof that nobody is left.
//!
//! A cache that is stale lets nobody in: without the role, a lane cannot bind (invariant 4). Refuses to
//! believe that a REVOKE did what it says; PostgreSQL only warns where the grant is somebody else's.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::{LaneId, TenantId};
use crate::operate::{close_shells_of, end_sessions};
use crate::roles::RolePrefix;

/// Gives the tenant's role to a lane.
pub(super) async fn grant(
    tx: &impl GenericClient,
    roles: &RolePrefix,
    tenant: TenantId,
    lane: LaneId,
) -> Result<(), Error> {
    let control = roles.control_schema();
    let statement = format!("SELECT {control}.grant_tenant_role('{tenant}', {})", lane.number());
    tx.batch_execute(&statement).await.doing(format!("give the tenant's role to lane {lane}"))
}

/// Whom [`shut_out`] has shut out.
pub(super) struct ShutOut {
    /// The lanes that served the tenant.
    pub(super) lanes: Vec<LaneId>,
    /// The numbers of its shells' roles, for [`end_sessions`] once more after the commit: one may have
    /// come in between.
    pub(super) shells: Vec<u32>,
}

/// Takes the tenant's role from everybody, lanes and operators' shells, and proves it. The shells' sessions
/// are ended before the commit, so that a program that dies there leaves none.
///
/// # Errors
/// As [`require_nobody`]; [`Error::Busy`] if a shell does not end.
pub(super) async fn shut_out(
    tx: &impl GenericClient,
    roles: &RolePrefix,
    tenant: TenantId,
) -> Result<ShutOut, Error> {
    let lanes = revoke(tx, roles, tenant, None).await?;
    let shells = close_shells_of(tx, roles, tenant).await?;
    require_nobody(tx, roles, tenant).await?;
    end_sessions(tx, &shells).await?;
    Ok(ShutOut { lanes, shells })
}

/// Takes the tenant's role from every lane but the one that may keep it.
pub(super) async fn revoke(
    tx: &impl GenericClient,
    roles: &RolePrefix,
    tenant: TenantId,
    keep: Option<LaneId>,
) -> Result<Vec<LaneId>, Error> {
    let lanes: Vec<String> = LaneId::all().map(|lane| roles.lane(lane)).collect();
    let members = tx
        .query_typed(
            "SELECT m.rolname::text
             FROM pg_auth_members am
             JOIN pg_roles g ON g.oid = am.roleid
             JOIN pg_roles m ON m.oid = am.member
             WHERE g.rolname = $1 AND m.rolname = ANY ($2)",
            &[(&tenant.schema().to_string(), Type::TEXT), (&lanes, Type::TEXT_ARRAY)],
        )
        .await
        .doing("look who serves the tenant")?;
    let is_member = |lane: &LaneId| {
        let name = roles.lane(*lane);
        members.iter().any(|row| row.get::<_, &str>(0) == name)
    };
    let left: Vec<LaneId> =
        LaneId::all().filter(is_member).filter(|lane| Some(*lane) != keep).collect();
    let control = roles.control_schema();
    for lane in &left {
        let statement =
            format!("SELECT {control}.revoke_tenant_role('{tenant}', {})", lane.number());
        tx.batch_execute(&statement)
            .await
            .doing(format!("take the tenant's role from lane {lane}"))?;
    }
    Ok(left)
}

/// The tenants that another lane than their own still serves.
pub(super) async fn list_served_twice(
    db: &impl GenericClient,
    roles: &RolePrefix,
) -> Result<Vec<TenantId>, Error> {
    let lanes: Vec<String> = LaneId::all().map(|lane| roles.lane(lane)).collect();
    let rows = db
        .query_typed(
            "SELECT DISTINCT t.id
             FROM public.tenants t
             JOIN pg_roles g ON g.rolname = 'tenant_' || replace(t.id::text, '-', '')
             JOIN pg_auth_members am ON am.roleid = g.oid
             JOIN pg_roles m ON m.oid = am.member
             WHERE m.rolname = ANY ($1) AND m.rolname <> ($1)[t.lane + 1]",
            &[(&lanes, Type::TEXT_ARRAY)],
        )
        .await
        .doing("look which tenants two lanes serve")?;
    Ok(rows.iter().map(|row| row.get::<_, uuid::Uuid>(0).into()).collect())
}

/// Proves that no lane and no other ordinary login can act as the tenant, directly or through a role
/// in between.
///
/// # Errors
/// [`Error::StillReachable`], which names those who can.
async fn require_nobody(
    tx: &impl GenericClient,
    roles: &RolePrefix,
    tenant: TenantId,
) -> Result<(), Error> {
    let lanes: Vec<String> = LaneId::all().map(|lane| roles.lane(lane)).collect();
    let members = tx
        .query_typed(
            "SELECT m.rolname::text
             FROM pg_roles g, pg_roles m
             WHERE g.rolname = $1 AND (m.rolname = ANY ($2) OR m.rolcanlogin AND NOT m.rolsuper)
               AND pg_has_role(m.oid, g.oid, 'MEMBER')
             ORDER BY 1",
            &[(&tenant.schema().to_string(), Type::TEXT), (&lanes, Type::TEXT_ARRAY)],
        )
        .await
        .doing("look who can still act as the tenant")?;
    let members: Vec<String> = members.iter().map(|row| row.get(0)).collect();
    if members.is_empty() { Ok(()) } else { Err(Error::StillReachable { tenant, members }) }
}

/// Waits for the transactions of some lanes that began before now, then ends those that are left:
/// they may have been bound before a revocation, which does not reach them. Nobody sees from outside
/// whose they are, so a transaction of another tenant may be among them. Yields how many were ended.
///
/// # Errors
/// [`Error::Busy`] if one would not end.
pub(super) async fn settle(admin: &AdminDb, lanes: &[LaneId]) -> Result<usize, Error> {
    const PAUSE: Duration = Duration::from_millis(50);
    const ENDING: Duration = Duration::from_secs(5);
    let db = admin.connection().await?;
    let lanes: Vec<String> = lanes.iter().map(|lane| admin.roles.lane(*lane)).collect();
    let now = db
        .query_typed_one("SELECT clock_timestamp()", &[])
        .await
        .doing("read the server's clock")?;
    let now: Timestamp = now.get(0);
    let mut ended = HashSet::new();
    for (statement, patience) in [(OLDER, admin.settle_timeout), (END_OLDER, ENDING)] {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let older = db
                .query_typed(statement, &[(&lanes, Type::TEXT_ARRAY), (&now, Type::TIMESTAMPTZ)])
                .await
                .doing("look for transactions under way")?;
            if older.is_empty() {
                return Ok(ended.len());
            }
            if statement == END_OLDER {
                ended.extend(older.iter().map(|row| row.get::<_, i32>(0)));
            }
            if tokio::time::Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Err(Error::Busy("a transaction that does not end, so the tenant".to_owned()))
}

const OLDER: &str = "SELECT pid FROM pg_stat_activity
    WHERE usename = ANY ($1) AND datname = current_database() AND xact_start < $2";

const END_OLDER: &str = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = ANY ($1) AND datname = current_database() AND xact_start < $2";
