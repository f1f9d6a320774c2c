//! `TenantDb` through a real PgBouncer: the bind, the single trip, and what every accident leaves.

use std::time::Duration;

use tenantry_db::{Config, Error, ErrorKind, Installation, TenantDb};
use tenantry_testing::{Proxy, TestDatabase, Wire};
use tokio_postgres::types::Type;

use crate::texts;

/// The tenant's database, through the given port in PgBouncer's place.
async fn through(db: &TestDatabase, port: u16, subdomain: &str) -> TenantDb {
    let url = format!("postgresql://127.0.0.1:{port}/{}", db.name());
    let layers = db.servers().layers(db.name(), "shared").flag("test", "database.url", url);
    let layers = layers.flag("test", "tiers.free.statement_timeout", "300ms");
    open(Installation::new(Config::from_layers(layers).unwrap()).unwrap(), subdomain).await
}

async fn tenant(db: &TestDatabase, subdomain: &str) -> TenantDb {
    db.tenant(subdomain).await;
    open(db.installation(), subdomain).await
}

async fn open(installation: Installation, subdomain: &str) -> TenantDb {
    let entry = installation
        .directory()
        .find_by_subdomain(&subdomain.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    installation.tenant_db(entry).unwrap()
}

const ADD: &str = "INSERT INTO users (email, name, role) VALUES ($1, 'A', 'member')";
const COUNT: &str = "SELECT count(*) FROM users";

async fn add(db: &TenantDb, email: &str) -> Result<u64, Error> {
    db.execute(ADD, &[(&email, Type::TEXT)]).await
}

async fn count(db: &TenantDb) -> i64 {
    db.query_one(COUNT, &[]).await.unwrap().get(0)
}

/// No backend of this database is left in a transaction, whatever just happened.
async fn assert_none_idle_in_transaction(db: &TestDatabase) {
    let superuser = db.superuser().await;
    let stuck = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    for _ in 0..250 {
        if texts(&superuser, stuck).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("left in a transaction: {:?}", texts(&superuser, stuck).await);
}

#[tokio::test]
async fn a_statement_runs_as_the_tenant_in_its_schema() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    let who = acme
        .query_one(
            "SELECT current_user::text, session_user::text, current_setting('search_path')",
            &[],
        )
        .await
        .unwrap();
    let schema = acme.tenant().id.schema().to_string();
    assert_eq!(who.get::<_, &str>(0), schema);
    assert_eq!(who.get::<_, &str>(1), format!("shared_lane_{}", acme.tenant().lane));
    assert_eq!(who.get::<_, &str>(2), format!("{schema}, public, pg_temp"));
    assert_eq!(add(&acme, "a@example.org").await.unwrap(), 1);
    assert_eq!(count(&acme).await, 1);
    assert_eq!(
        acme.query("SELECT alpha2 FROM countries WHERE alpha2 = $1", &[(&"DE", Type::TEXT)])
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(
        acme.query_opt("SELECT id FROM users WHERE email = $1", &[(&"no@example.org", Type::TEXT)])
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_single_statement_is_one_trip_and_a_transaction_one_for_each_step() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let proxy = Proxy::start(db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
    let acme = through(&db, proxy.port(), "acme").await;
    count(&acme).await;
    // All three messages leave although no reply arrives: nothing waits for the bind's answer.
    let before = proxy.requests();
    proxy.set(Wire::RepliesHeld);
    {
        let call = acme.query_one(COUNT, &[]);
        tokio::pin!(call);
        assert!(futures_util::poll!(&mut call).is_pending());
        let sent = async {
            while proxy.requests() == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = &mut call => panic!("no reply can have come: {done:?}"),
            () = sent => {}
        }
        let superuser = db.superuser().await;
        // The server has seen COMMIT and what is behind it.
        for _ in 0..250 {
            let ended = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'shared_lane%' AND state = 'idle' AND query LIKE 'COMMIT;%'";
            if !texts(&superuser, ended).await.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.set(Wire::Open);
        call.await.unwrap();
    }
    assert_eq!(proxy.requests() - before, 1, "bind, statement and COMMIT in one packet");

    let before = proxy.requests();
    let mut tx = acme.begin().await.unwrap();
    tx.query(COUNT, &[]).await.unwrap();
    tx.query(COUNT, &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(proxy.requests() - before, 3, "bind and first statement, second statement, COMMIT");
}

#[tokio::test]
async fn a_transaction_keeps_all_or_nothing() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    let email = |n: i32| format!("u{n}@example.org");
    let mut tx = acme.begin().await.unwrap();
    for n in 0..2 {
        tx.execute(ADD, &[(&email(n), Type::TEXT)]).await.unwrap();
    }
    assert_eq!(count(&acme).await, 0, "not before the commit");
    tx.commit().await.unwrap();
    assert_eq!(count(&acme).await, 2);

    let mut tx = acme.begin().await.unwrap();
    tx.execute(ADD, &[(&email(3), Type::TEXT)]).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(count(&acme).await, 2);

    // Dropped: rolled back by a task of its own.
    let mut tx = acme.begin().await.unwrap();
    tx.execute(ADD, &[(&email(3), Type::TEXT)]).await.unwrap();
    drop(tx);
    assert_none_idle_in_transaction(&db).await;
    assert_eq!(count(&acme).await, 2);

    // An empty one costs no trip and does nothing.
    acme.begin().await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn commit_fails_if_a_statement_before_it_failed() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    let mut tx = acme.begin().await.unwrap();
    tx.execute(ADD, &[(&"a@example.org", Type::TEXT)]).await.unwrap();
    tx.execute(ADD, &[(&"a@example.org", Type::TEXT)]).await.unwrap_err();
    let after = tx.query(COUNT, &[]).await.unwrap_err();
    assert!(matches!(after, Error::TransactionFailed), "{after}");
    let commit = tx.commit().await.unwrap_err();
    assert!(matches!(commit, Error::TransactionFailed), "{commit}");
    assert_eq!(count(&acme).await, 0);
    assert_none_idle_in_transaction(&db).await;
}

#[tokio::test]
async fn a_constraint_checked_at_commit_is_an_error_of_the_call() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    let schema = acme.tenant().id.schema();
    db.superuser()
        .await
        .batch_execute(&format!(
            "ALTER TABLE {schema}.content ALTER CONSTRAINT content_author_id_fkey DEFERRABLE INITIALLY DEFERRED"
        ))
        .await
        .unwrap();
    let orphan = "INSERT INTO content (title, author_id) VALUES ('T', gen_random_uuid())";
    acme.execute(orphan, &[]).await.unwrap_err();
    let mut tx = acme.begin().await.unwrap();
    tx.execute(orphan, &[]).await.unwrap();
    tx.commit().await.unwrap_err();
    let left: i64 = acme.query_one("SELECT count(*) FROM content", &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
    assert_none_idle_in_transaction(&db).await;
}

#[tokio::test]
async fn a_tenant_without_its_role_gets_the_binds_error_and_nothing_runs() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    let (schema, lane) = (acme.tenant().id.schema(), acme.tenant().lane);
    let superuser = db.superuser().await;
    superuser.batch_execute(&format!("REVOKE {schema} FROM shared_lane_{lane}")).await.unwrap();
    let error = add(&acme, "a@example.org").await.unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error}");
    let mut tx = acme.begin().await.unwrap();
    let error = tx.execute(ADD, &[(&"b@example.org", Type::TEXT)]).await.unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error}");
    assert!(tx.commit().await.is_err());
    superuser.batch_execute(&format!("GRANT {schema} TO shared_lane_{lane}")).await.unwrap();
    assert_eq!(count(&acme).await, 0);
    assert_none_idle_in_transaction(&db).await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let acme = through(&db, db.servers().pgbouncer_port, "acme").await;
    let error = acme.query("SELECT pg_sleep(60)", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(count(&acme).await, 0);
    assert_none_idle_in_transaction(&db).await;
}

#[tokio::test]
async fn a_dropped_call_leaves_no_transaction_and_no_poisoned_connection() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let proxy = Proxy::start(db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
    let acme = through(&db, proxy.port(), "acme").await;
    count(&acme).await;
    // During bind and statement: the requests went out, no reply came.
    for _ in 0..3 {
        proxy.set(Wire::RepliesHeld);
        let call = acme.query("SELECT pg_sleep(0.05)", &[]);
        assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
        proxy.set(Wire::Open);
        let mut tx = acme.begin().await.unwrap();
        tx.query(COUNT, &[]).await.unwrap();
        // In the middle of a transaction, during its statement.
        assert!(
            tokio::time::timeout(Duration::from_millis(20), tx.query("SELECT pg_sleep(0.1)", &[]))
                .await
                .is_err()
        );
        drop(tx);
        assert_eq!(count(&acme).await, 0);
    }
    assert_none_idle_in_transaction(&db).await;
}

#[tokio::test]
async fn a_panic_in_a_transaction_undoes_it() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    let handle = acme.clone();
    let panicked = tokio::spawn(async move {
        let mut tx = handle.begin().await.unwrap();
        tx.execute(ADD, &[(&"a@example.org", Type::TEXT)]).await.unwrap();
        panic!("on purpose");
    })
    .await;
    assert!(panicked.unwrap_err().is_panic());
    assert_none_idle_in_transaction(&db).await;
    assert_eq!(count(&acme).await, 0);
}

#[tokio::test]
async fn a_cut_wire_is_unavailable_and_heals_by_itself() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let proxy = Proxy::start(db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
    let acme = through(&db, proxy.port(), "acme").await;
    count(&acme).await;
    let call = acme.query("SELECT pg_sleep(0.2)", &[]);
    let (cut, ()) = tokio::join!(call, async { proxy.set(Wire::Cut) });
    let error = cut.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(acme.query(COUNT, &[]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    proxy.set(Wire::Open);
    assert_eq!(count(&acme).await, 0);
    assert_none_idle_in_transaction(&db).await;
}

#[tokio::test]
async fn what_the_door_refuses_never_reaches_the_server() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    for sql in ["SET ROLE postgres", "RESET ALL", "COMMIT", "LISTEN x", "DO $$ BEGIN END $$"] {
        assert!(
            matches!(acme.query(sql, &[]).await, Err(Error::ForbiddenStatement { .. })),
            "{sql}"
        );
        let mut tx = acme.begin().await.unwrap();
        assert!(
            matches!(tx.execute(sql, &[]).await, Err(Error::ForbiddenStatement { .. })),
            "{sql}"
        );
        tx.execute(ADD, &[(&"a@example.org", Type::TEXT)]).await.unwrap();
        tx.rollback().await.unwrap();
    }
    // Two statements in one text: the extended protocol takes one.
    let stacked = acme.query("SELECT 1; SET ROLE postgres", &[]).await.unwrap_err();
    assert_eq!(stacked.kind(), ErrorKind::Internal, "{stacked}");
}

#[tokio::test]
async fn one_tenants_flood_leaves_the_others_of_its_lane_their_slots() {
    let db = TestDatabase::new().await;
    let flood = tenant(&db, "flood").await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut tx = flood.begin().await.unwrap();
        tx.query(COUNT, &[]).await.unwrap();
        held.push(tx);
    }
    let busy = flood.query(COUNT, &[]).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::TooManyRequests, "{busy}");
    // Another of the same lane: tenants are made until one falls on it.
    for n in 0.. {
        let other = tenant(&db, &format!("t{n}")).await;
        if other.tenant().lane == flood.tenant().lane {
            count(&other).await;
            break;
        }
    }
    drop(held);
    count(&flood).await;
}

#[tokio::test]
async fn a_thousand_slow_queries_of_one_tenant_do_not_harm_its_lane() {
    let db = TestDatabase::new().await;
    let flood = tenant(&db, "flood").await;
    let mut other = tenant(&db, "t").await;
    for n in 0.. {
        if other.tenant().lane == flood.tenant().lane {
            break;
        }
        other = tenant(&db, &format!("t{n}")).await;
    }
    let slow = async || flood.query("SELECT pg_sleep(0.2)", &[]).await;
    let floods = futures_util::future::join_all((0..1000).map(|_| slow()));
    let calm = async {
        for _ in 0..50 {
            count(&other).await;
        }
    };
    let (answers, ()) = tokio::join!(floods, calm);
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(served >= 5, "its own slots serve it all the same");
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(refused.kind(), ErrorKind::TooManyRequests, "{refused}");
    }
}

#[tokio::test]
async fn a_tenant_that_is_not_active_gets_no_handle() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    db.superuser()
        .await
        .batch_execute("UPDATE public.tenants SET status = 'suspended', suspended_at = now()")
        .await
        .unwrap();
    let installation = db.installation();
    let entry = installation.directory().find(acme.id).await.unwrap().unwrap();
    let refused = installation.tenant_db(entry).unwrap_err();
    assert!(matches!(refused, Error::TenantNotServed { .. }), "{refused}");
    assert!(
        installation.directory().find(tenantry_db::TenantId::random()).await.unwrap().is_none()
    );
}
