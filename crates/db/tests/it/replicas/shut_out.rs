//! Tenants that are new, shut out, moved or changed while a replica does not know it yet.

use std::time::Duration;

use tenantry_db::lifecycle::{resume_tenant, suspend_tenant};
use tenantry_db::models::tenants::Status;
use tenantry_db::replicas::{ReadOn, State};
use tenantry_db::{Error, ServedBy, TenantDb};
use tenantry_testing::{Proxy, Wire};

use super::rig::{FIND, Process, Rig, find, until, until_on_replica};
use tokio_postgres::types::Type;

async fn is_suspended(tenant: &TenantDb) -> bool {
    let read = tenant.read().query(FIND, &[(&"", Type::TEXT)]).await;
    matches!(read, Err(Error::TenantNotServed { status: Status::Suspended, .. }))
}

#[tokio::test]
async fn a_tenant_that_is_suspended_is_refused_though_no_replica_knows() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let proxy = Proxy::start(rig.db.servers().postgres_port, Duration::ZERO).await.unwrap();
    let direct = rig.db.servers().toml(rig.db.name());
    let direct = direct.lines().find(|line| line.starts_with("direct_url")).unwrap();
    let here = format!(":{}/", rig.db.servers().postgres_port);
    let direct = direct.split('"').nth(1).unwrap().replace(&here, &format!(":{}/", proxy.port()));
    let looks = rig.patient();
    let (told, deaf) = (
        Process::start(looks.clone()),
        Process::start(looks.flag("test", "database.direct_url", direct)),
    );
    let mut handles = Vec::new();
    for process in [&told, &deaf] {
        process.until_all(State::Healthy).await;
        let tenant = process.tenant(id).await;
        until_on_replica(&tenant).await;
        handles.push(tenant);
    }
    rig.pause(1).await;
    // This process is cut off from the announcements; it still has the tenant cached as active.
    proxy.set(Wire::Cut);
    until("the loss", async || !deaf.installation.directory().is_following()).await;
    suspend_tenant(&rig.db.admin, id, &rig.db.actor()).await.unwrap();

    // The replica would still let it in: that is what these are saved from.
    let lane = "SELECT pg_has_role('shared_lane_00', $1, 'MEMBER')";
    let role = id.schema().to_string();
    let member = rig.on_replica(1).await.query_typed_one(lane, &[(&role, Type::TEXT)]).await;
    assert!(member.unwrap().get::<_, bool>(0));

    until("the announcement", async || is_suspended(&handles[0]).await).await;
    let on_replica = deaf.count(ReadOn::Replica);
    let refused = handles[1].read().query(FIND, &[(&"", Type::TEXT)]).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Bind { .. }
                | Error::Unavailable { .. }
                | Error::Shared(_)
                | Error::TenantNotServed { .. }
        ),
        "{refused:?}"
    );
    assert_eq!(deaf.count(ReadOn::Replica), on_replica, "no replica was asked");
    // The way to the directory is back, the replica still behind.
    proxy.set(Wire::Open);
    until("the announcements", async || deaf.installation.directory().is_following()).await;
    assert!(is_suspended(&handles[1]).await);

    // Let in again, it is served at once, though the replica knows of neither.
    resume_tenant(&rig.db.admin, id, &rig.db.actor()).await.unwrap();
    until("the announcement", async || !is_suspended(&handles[0]).await).await;
    assert_eq!(find(&handles[0].read(), "").await.1, ServedBy::Primary);
    rig.resume(1).await;
    rig.until_caught_up().await;
    until_on_replica(&handles[0]).await;
}

#[tokio::test]
async fn a_tenant_of_a_moment_ago_is_read_though_no_replica_has_it() {
    let rig = Rig::new(1).await;
    let process = Process::start(rig.patient());
    process.until_all(State::Healthy).await;
    rig.pause(1).await;
    let id = rig.db.tenant("acme").await.id;
    let acme = process.tenant(id).await;
    for _ in 0..3 {
        assert_eq!(find(&acme.read(), "").await, (false, ServedBy::Primary));
    }
    rig.resume(1).await;
    rig.until_caught_up().await;
    until_on_replica(&acme).await;
}

#[tokio::test]
async fn a_change_of_the_schema_is_seen_at_once_by_whoever_needs_it() {
    let rig = Rig::new(1).await;
    let id = rig.tenant("acme").await;
    let process = Process::start(rig.patient());
    process.until_all(State::Healthy).await;
    let acme = process.tenant(id).await;
    until_on_replica(&acme).await;
    rig.pause(1).await;
    let schema = id.schema();
    let change = format!(
        "SET ROLE shared_owner; ALTER TABLE {schema}.teams ADD COLUMN motto text DEFAULT 'onward';
         CREATE TABLE {schema}.mottos (); GRANT SELECT ON {schema}.mottos TO {schema}"
    );
    rig.db.superuser().await.batch_execute(&change).await.unwrap();
    acme.read().query("SELECT motto FROM teams", &[]).await.unwrap();
    acme.read().query("SELECT FROM mottos", &[]).await.unwrap();
    assert_eq!(acme.served_by(), Some(ServedBy::Primary));
    assert!(process.count(ReadOn::Missing) + process.count(ReadOn::Stale) >= 2);
    // What exists nowhere is an error from the primary, and no reason to leave the replica.
    let error = acme.read().query("SELECT nothing FROM teams", &[]).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    assert_eq!(process.health(), ["healthy"]);
    rig.resume(1).await;
}
