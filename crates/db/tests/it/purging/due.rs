//! Purging in the background: once, by whichever service, and by no clock that may be wrong.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tenantry_db::lifecycle::{
    Authority, ErasureError, Round, begin_purge, hold_tenant, purge_due, run_due_purges,
};
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Config, Error, Installation};
use tenantry_testing::TestDatabase;

use super::{Alone, by};
use crate::deletion::{delete, try_delete};
use crate::texts;

async fn delete_at_once(db: &TestDatabase, name: &str) -> Tenant {
    let tenant = db.tenant(name).await;
    try_delete(db, tenant.id, Some(name), Some(Duration::ZERO)).await.unwrap()
}

async fn round(db: &TestDatabase, host_now: Timestamp) -> Round {
    purge_due(&db.installation(), &db.ledger(), host_now, &db.actor()).await.unwrap()
}

async fn statuses(db: &TestDatabase) -> Vec<String> {
    let query = "SELECT status FROM public.tenants ORDER BY created_at";
    texts(&db.superuser().await, query).await
}

fn done(purged: usize) -> Round {
    Round { purged, ..Round::default() }
}

#[tokio::test]
async fn what_is_due_goes_and_what_is_not_stays() {
    let db = Alone::new().await;
    delete_at_once(&db, "due").await;
    delete(&db, &db.tenant("later").await).await;
    let held = delete_at_once(&db, "held").await;
    hold_tenant(&db.admin, held.id, true, &db.actor()).await.unwrap();
    db.tenant("active").await;
    let begun = db.tenant("begun").await;
    delete(&db, &begun).await;
    begin_purge(&db.admin, &db.ledger(), begun.id, by("begun"), &db.actor()).await.unwrap();
    assert_eq!(round(&db, Timestamp::now()).await, done(2));
    assert_eq!(statuses(&db).await, ["purged", "deleted", "deleted", "active", "purged"]);
    assert_eq!(round(&db, Timestamp::now()).await, done(0));
    hold_tenant(&db.admin, held.id, false, &db.actor()).await.unwrap();
    assert_eq!(round(&db, Timestamp::now()).await, done(1));
    let rewritten = "SELECT (count(statistics_rewritten_at))::text FROM public.purges";
    assert_eq!(
        texts(&db.superuser().await, rewritten).await,
        ["2"],
        "once for many purges, and not at every round"
    );
}

#[tokio::test]
async fn several_services_purge_each_tenant_once() {
    let db = TestDatabase::new().await;
    for n in 0..8 {
        delete_at_once(&db, &format!("t{n}")).await;
    }
    let services: Vec<Installation> = (0..4).map(|_| db.installation()).collect();
    let (ledger, actor) = (db.ledger(), db.actor());
    let mut purged = 0;
    // Whoever finds another one looking at the clock begins nothing in that round.
    for _ in 0..20 {
        let rounds = services.iter().map(|s| purge_due(s, &ledger, Timestamp::now(), &actor));
        for round in join_all(rounds).await {
            let round = round.unwrap();
            assert_eq!(round.failed, 0);
            purged += round.purged;
        }
        if purged == 8 {
            break;
        }
    }
    assert_eq!(purged, 8);
    let mut entries: Vec<_> =
        ledger.entries().unwrap().into_iter().map(|entry| entry.tenant_id).collect();
    entries.sort();
    entries.dedup();
    assert_eq!((entries.len(), ledger.entries().unwrap().len()), (8, 8));
    let recorded = "SELECT action || ' ' || count(*) || ' ' || count(DISTINCT tenant_id)
                    FROM public.audit_log WHERE action LIKE 'tenant.purge%' GROUP BY action ORDER BY 1";
    assert_eq!(
        texts(&db.superuser().await, recorded).await,
        ["tenant.purge_begun 8 8", "tenant.purged 8 8"]
    );
}

#[tokio::test]
async fn one_wrong_clock_purges_nothing_early() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let day = Duration::from_secs(86_400);
    try_delete(&db, tenant.id, Some("acme"), Some(day)).await.unwrap();
    let now = Timestamp::now();
    // The machine's clock is a year ahead.
    assert_eq!(round(&db, now + SignedDuration::from_hours(366 * 24)).await, done(0));
    // The server's is two days ahead: by it, the tenant was deleted two days ago. The machine's is right.
    db.superuser()
        .await
        .batch_execute(
            "UPDATE public.tenants SET deleted_at = deleted_at - interval '2 days', purge_after = purge_after - interval '2 days'",
        )
        .await
        .unwrap();
    assert_eq!(round(&db, now - SignedDuration::from_hours(48)).await, done(0));
    // Whoever looks and whoever decides ask both clocks.
    let authority = Authority::Due { host_now: now - SignedDuration::from_hours(48) };
    let decided = begin_purge(&db.admin, &db.ledger(), tenant.id, authority, &db.actor()).await;
    let decided = decided.unwrap_err();
    assert!(matches!(decided, Error::Erasure(ErasureError::NotDue { .. })), "{decided}");
    assert_eq!(statuses(&db).await, ["deleted"]);
    // Both agree.
    assert_eq!(round(&db, now).await, done(1));
}

#[tokio::test]
async fn a_clock_that_jumped_makes_everybody_wait() {
    let db = TestDatabase::new().await;
    assert_eq!(round(&db, Timestamp::now()).await, done(0));
    delete_at_once(&db, "acme").await;
    let begun = db.tenant("begun").await;
    delete(&db, &begun).await;
    begin_purge(&db.admin, &db.ledger(), begun.id, by("begun"), &db.actor()).await.unwrap();
    let superuser = db.superuser().await;
    // For the database, a clock that jumped forward and a last look long ago are the same.
    let jump = "UPDATE public.purge_watch SET seen_at = seen_at - interval '40 days'";
    superuser.batch_execute(jump).await.unwrap();
    // What has begun goes on: about that nothing is left to decide.
    assert_eq!(round(&db, Timestamp::now()).await, Round { purged: 1, failed: 0, paused: true });
    for _ in 0..2 {
        assert_eq!(round(&db, Timestamp::now()).await, Round { paused: true, ..done(0) });
    }
    assert_eq!(statuses(&db).await, ["deleted", "purged"]);
    let hour = "UPDATE public.purge_watch SET paused_until = now() - interval '1 second'";
    superuser.batch_execute(hour).await.unwrap();
    assert_eq!(round(&db, Timestamp::now()).await, done(1));
    // Back again: nothing is due earlier for it, and no old pause lasts for years.
    superuser
        .batch_execute(
            "UPDATE public.purge_watch SET seen_at = now() + interval '2 years', paused_until = now() + interval '2 years'",
        )
        .await
        .unwrap();
    delete_at_once(&db, "next").await;
    assert_eq!(round(&db, Timestamp::now()).await, done(1));
}

#[tokio::test]
async fn an_hour_has_a_bound() {
    let mut db = TestDatabase::new().await;
    let layers = db.servers().layers(db.name(), "shared").flag("test", "erasure.max_per_hour", 2);
    db.config = Config::from_layers(layers).unwrap();
    for n in 0..3 {
        delete_at_once(&db, &format!("t{n}")).await;
    }
    assert_eq!(round(&db, Timestamp::now()).await, Round { paused: true, ..done(2) });
    assert_eq!(round(&db, Timestamp::now()).await, Round { paused: true, ..done(0) });
    let hour = "UPDATE public.purges SET begun_at = begun_at - interval '1 hour'";
    db.superuser().await.batch_execute(hour).await.unwrap();
    assert_eq!(round(&db, Timestamp::now()).await, done(1));
}

#[tokio::test]
async fn one_that_can_not_go_on_waits_and_the_others_do_not() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let stuck = db.tenant("stuck").await;
    let schema = stuck.schema();
    let view = format!("CREATE VIEW public.report AS SELECT name FROM {schema}.users");
    superuser.batch_execute(&view).await.unwrap();
    try_delete(&db, stuck.id, Some("stuck"), Some(Duration::ZERO)).await.unwrap();
    delete_at_once(&db, "free").await;
    assert_eq!(round(&db, Timestamp::now()).await, Round { purged: 1, failed: 1, paused: false });
    let noted = "SELECT concat_ws(' ', failures, last_error ~ 'view report', retry_after > now()) FROM public.purges
                 WHERE finished_at IS NULL";
    assert_eq!(texts(&superuser, noted).await, ["1 t t"]);
    assert_eq!(round(&db, Timestamp::now()).await, done(0), "it waits");
    superuser
        .batch_execute("DROP VIEW public.report; UPDATE public.purges SET retry_after = now()")
        .await
        .unwrap();
    assert_eq!(round(&db, Timestamp::now()).await, done(1));
}

#[tokio::test]
async fn a_service_goes_on_by_itself_also_after_the_ledger_was_away() {
    let mut db = TestDatabase::new().await;
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "erasure.check_every", "50ms");
    db.config = Config::from_layers(layers).unwrap();
    let dir = db.config.erasure.ledger_dir.clone().unwrap();
    std::fs::write(&dir, "a file where its directory should be").unwrap();
    delete_at_once(&db, "acme").await;
    let installation = db.installation();
    let refused = purge_due(&installation, &db.ledger(), Timestamp::now(), &db.actor()).await;
    assert!(refused.unwrap_err().to_string().contains("erasure ledger"));
    assert_eq!(statuses(&db).await, ["deleted"]);
    let db = Arc::new(db);
    let service = tokio::spawn(run_due_purges(installation, std::future::pending()));
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert!(!service.is_finished(), "it never ends");
    std::fs::remove_file(&dir).unwrap();
    for _ in 0..400 {
        if statuses(&db).await == ["purged"] {
            service.abort();
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it was not purged within 10 s");
}
