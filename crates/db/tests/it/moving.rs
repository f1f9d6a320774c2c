//! Tenants move between lanes while they are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use tenantry_db::lifecycle::{Relocated, resize_lanes, suspend_tenant};
use tenantry_db::{Error, TenantDb};
use tenantry_testing::TestDatabase;

use crate::texts;

/// Tenants, the lane in their row, and the lanes that serve them, as the superuser sees it.
async fn places(db: &TestDatabase) -> Vec<String> {
    let superuser = db.superuser().await;
    let places = "SELECT concat_ws(' ', t.subdomain, t.lane, (
                      SELECT string_agg(right(m.rolname, 2), ',' ORDER BY m.rolname)
                      FROM pg_auth_members am JOIN pg_roles m ON m.oid = am.member
                      WHERE am.roleid = ('tenant_' || replace(t.id::text, '-', ''))::regrole))
                  FROM public.tenants t ORDER BY t.subdomain";
    texts(&superuser, places).await
}

fn expected(name: &str, lane: u128) -> String {
    format!("{name} {lane} {lane:02}")
}

#[tokio::test]
async fn no_request_fails_while_its_tenant_moves() {
    let db = TestDatabase::new().await;
    // It never hears of a change, so it has to find out by being refused.
    let installation = db.installation();
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(db.tenant(&format!("t{n}")).await.id);
    }
    let mut tenants: Vec<TenantDb> = Vec::new();
    for id in &ids {
        let entry = installation.directory().find(*id).await.unwrap().unwrap();
        tenants.push(installation.tenant_db(entry).unwrap());
    }
    let (stop, served) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let load = join_all(tenants.iter().map(async |tenant| {
        let own = tenant.tenant().id.to_string();
        while !stop.load(Ordering::Relaxed) {
            let row = tenant.query_one("SELECT this_tenant()::text", &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), own);
            let mut tx = tenant.begin().await.unwrap();
            tx.query("SELECT count(*) FROM users", &[]).await.unwrap();
            tx.commit().await.unwrap();
            served.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let moves = async {
        for count in [11, 3, 1, 4] {
            let before = served.load(Ordering::Relaxed);
            let config = &with_pool(&db, count);
            resize_lanes(&db.admin, config, count, &db.actor(), |_, _| {}).await.unwrap();
            for (n, place) in places(&db).await.iter().enumerate() {
                let lane = ids[n].as_uuid().as_u128() % u128::from(count);
                assert_eq!(*place, expected(&format!("t{n}"), lane));
            }
            while served.load(Ordering::Relaxed) < before + 2 * ids.len() {
                tokio::task::yield_now().await;
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, moves);
}

/// A budget that so many lanes fit in.
fn with_pool(db: &TestDatabase, count: u8) -> tenantry_db::Config {
    let budget = 12 * i64::from(count);
    let layers = db.servers().layers(db.name(), "shared").flag(
        "test",
        "lanes.server_connections",
        budget.max(48),
    );
    tenantry_db::Config::from_layers(layers).unwrap()
}

#[tokio::test]
async fn an_interrupted_resize_is_finished_by_the_next() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let id = acme.id.as_uuid().as_u128();
    let next = (acme.lane.number() + 1) % 4;
    let halfway = format!("GRANT {} TO shared_lane_{next:02}", acme.schema());
    db.superuser().await.batch_execute(&halfway).await.unwrap();
    let done = resize_lanes(&db.admin, &db.config, 4, &db.actor(), |_, _| {}).await.unwrap();
    assert_eq!(done, Relocated { moved: 0, ended: 0 });
    assert_eq!(places(&db).await, [expected("acme", id % 4)]);
}

#[tokio::test]
async fn one_that_is_shut_out_moves_without_being_let_in() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let id = acme.id.as_uuid().as_u128();
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    resize_lanes(&db.admin, &db.config, 3, &db.actor(), |_, _| {}).await.unwrap();
    assert_eq!(places(&db).await, [format!("acme {}", id % 3)]);
}

#[tokio::test]
async fn more_lanes_than_the_budget_holds_are_refused() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let before = places(&db).await;
    let error = resize_lanes(&db.admin, &db.config, 5, &db.actor(), |_, _| {}).await.unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error}");
    assert!(error.to_string().contains("lanes.server_connections"), "{error}");
    assert_eq!(places(&db).await, before);
}
