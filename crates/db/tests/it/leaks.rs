//! Invariants 1, 2 and 9 where it is tightest: one server connection for a whole lane, so that every
//! tenant gets the one that another has just left.

use futures_util::future::join_all;
use tenantry_db::bind::{COMMIT, ROLLBACK, statement};
use tenantry_db::{LaneId, TenantDb};
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::texts;

/// Servers of this test's own with one server connection for each lane, and tenants that all
/// belong to lane 0.
struct Rig {
    db: TestDatabase,
    tenants: Vec<TenantDb>,
    _stack: tenantry_stack::Stack,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new(tenants: usize) -> Self {
        let dir = temp_dir().unwrap();
        let (stack, servers) = Servers::start(dir.path(), 1).await.unwrap();
        let mut db = TestDatabase::on(servers).await;
        let layers = db.servers().layers(db.name(), "shared").flag("test", "lanes.count", 1);
        db.config = tenantry_db::Config::from_layers(layers).unwrap();
        let installation = db.installation();
        let mut opened = Vec::new();
        for n in 0..tenants {
            let tenant = db.tenant(&format!("t{n}")).await;
            let entry = installation.directory().find(tenant.id).await.unwrap().unwrap();
            opened.push(installation.tenant_db(entry).unwrap());
        }
        Self { db, tenants: opened, _stack: stack, _dir: dir }
    }

    /// A client of the lane that binds nothing and trusts nobody.
    async fn bare(&self) -> Client {
        self.db.lane(LaneId::new(0).unwrap()).await
    }

    fn bind(&self, tenant: usize) -> String {
        let tier = self.db.config.tiers["free"];
        statement(self.tenants[tenant].tenant().id.schema(), &tier)
    }

    /// The next user of the connection finds it as new, and every tenant still sees its own.
    async fn assert_clean(&self, after: &str) {
        let next = self.bare().await;
        let state = "SELECT concat_ws(' ', current_user, session_user, current_setting('search_path'), current_setting('role'),
                            current_setting('default_transaction_read_only'), current_setting('statement_timeout'))";
        assert_eq!(
            texts(&next, state).await,
            ["shared_lane_00 shared_lane_00 \"\" none off 0"],
            "after {after}"
        );
        let refused = next.batch_execute("SELECT FROM public.countries").await.unwrap_err();
        assert_eq!(refused.code().map(|c| c.code()), Some("42501"), "after {after}");
        for tenant in &self.tenants {
            let own = tenant.query_one("SELECT current_user = concat('tenant_', replace(this_tenant()::text, '-', ''))", &[]).await.unwrap();
            assert!(own.get::<_, bool>(0), "after {after}");
        }
    }
}

#[tokio::test]
async fn tenants_that_share_one_connection_see_their_own_rows_only() {
    let rig = Rig::new(6).await;
    let work = rig.tenants.iter().map(async |tenant| {
        let mine = tenant.tenant().id.to_string();
        let mut pids = Vec::new();
        for round in 0..20 {
            let email = format!("{round}@{mine}.example");
            let add = "INSERT INTO users (email, name, role) VALUES ($1, $2, 'member')";
            tenant.execute(add, &[(&email, Type::TEXT), (&mine, Type::TEXT)]).await.unwrap();
            let mut tx = tenant.begin().await.unwrap();
            for row in tx
                .query("SELECT name, tenant_id::text, pg_backend_pid() FROM users", &[])
                .await
                .unwrap()
            {
                assert_eq!(
                    (row.get::<_, &str>(0), row.get::<_, &str>(1)),
                    (mine.as_str(), mine.as_str())
                );
                pids.push(row.get::<_, i32>(2));
            }
            assert_eq!(
                tx.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get::<_, i64>(0),
                round + 1
            );
            if round % 3 == 0 { tx.rollback().await.unwrap() } else { tx.commit().await.unwrap() }
        }
        pids
    });
    let mut pids: Vec<i32> = join_all(work).await.into_iter().flatten().collect();
    pids.sort_unstable();
    pids.dedup();
    // Without this the test would prove nothing.
    assert_eq!(pids.len(), 1, "all of them used one server connection");
    rig.assert_clean("all of it").await;
}

/// The control: the same rig does leak where binding is done as in many a blog post.
#[tokio::test]
async fn a_session_level_set_does_leak_here() {
    let rig = Rig::new(2).await;
    rig.tenants[0]
        .execute(
            "INSERT INTO users (email, name, role) VALUES ('secret@example.org', 'A', 'member')",
            &[],
        )
        .await
        .unwrap();
    let (careless, next) = (rig.bare().await, rig.bare().await);
    let schema = rig.tenants[0].tenant().id.schema();
    careless
        .batch_execute(&format!("SET ROLE {schema}; SET search_path TO {schema}, public"))
        .await
        .unwrap();
    assert_eq!(texts(&next, "SELECT email::text FROM users").await, ["secret@example.org"]);
}

#[tokio::test]
async fn whatever_slipped_in_is_gone_after_the_transaction() {
    let rig = Rig::new(2).await;
    let other = rig.tenants[1].tenant().id.schema();
    let client = rig.bare().await;
    // Sent past the door, as a bug or an injection would.
    for slipped in [
        format!("SET ROLE {other}"),
        format!("SET SESSION AUTHORIZATION {}", "shared_lane_00"),
        "SET default_transaction_read_only = on".to_owned(),
        format!("SET search_path TO {other}"),
        "SET statement_timeout = 1".to_owned(),
    ] {
        for end in [COMMIT, ROLLBACK] {
            client.batch_execute(&rig.bind(0)).await.unwrap();
            client.query_typed(&slipped, &[]).await.unwrap();
            client.batch_execute(end).await.unwrap();
            rig.assert_clean(&format!("`{slipped}` and {end}")).await;
        }
    }
    for refused in [
        "SELECT pg_advisory_lock(1)",
        "CREATE TEMP TABLE users ()",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE p AS SELECT 1",
        "LISTEN x",
    ] {
        client.batch_execute(&rig.bind(0)).await.unwrap();
        let _ = client.query_typed(refused, &[]).await;
        client.batch_execute(ROLLBACK).await.unwrap();
        rig.assert_clean(refused).await;
    }
}

#[tokio::test]
async fn a_broken_bind_gives_no_rights() {
    let rig = Rig::new(1).await;
    let client = rig.bare().await;
    let schema = rig.tenants[0].tenant().id.schema();
    let missing = tenantry_db::TenantId::random().schema();
    for bind in [
        "BEGIN; SET LOCAL ROLE; SET LOCAL search_path TO public".to_owned(),
        rig.bind(0).replace("SET LOCAL ROLE", "SET LOCAL RULE"),
        rig.bind(0).replace(&schema.to_string(), &missing.to_string()),
        rig.bind(0).replace(&format!("SET LOCAL ROLE {schema}; "), ""),
    ] {
        let insert = format!(
            "INSERT INTO {schema}.users (email, name, role) VALUES ('a@example.org', 'A', 'x')"
        );
        let (bound, ran, ended) = futures_util::future::join3(
            client.batch_execute(&bind),
            client.query_typed(&insert, &[]),
            client.batch_execute(COMMIT),
        )
        .await;
        let code = ran.unwrap_err().code().map(|c| c.code().to_owned());
        // Aborted before, or without a right to do it.
        assert!(
            matches!(code.as_deref(), Some("25P02" | "42501")),
            "{bind}: {code:?}, bind {bound:?}"
        );
        ended.unwrap();
        rig.assert_clean(&bind).await;
    }
    let count = rig.tenants[0].query_one("SELECT count(*) FROM users", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn errors_and_dropped_calls_hand_on_a_clean_connection() {
    let rig = Rig::new(2).await;
    let one = &rig.tenants[0];
    one.query("SELECT 1/0", &[]).await.unwrap_err();
    rig.assert_clean("an error").await;
    let mut tx = one.begin().await.unwrap();
    tx.query("SELECT nonsense", &[]).await.unwrap_err();
    drop(tx);
    rig.assert_clean("a dropped failed transaction").await;
    let mut tx = one.begin().await.unwrap();
    tx.execute(
        "INSERT INTO users (email, name, role) VALUES ('a@example.org', 'A', 'member')",
        &[],
    )
    .await
    .unwrap();
    drop(tx);
    rig.assert_clean("a dropped open transaction").await;
    for micros in [0, 50, 200, 500, 1000, 3000] {
        let call = one.query("SELECT pg_sleep(0.002)", &[]);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(micros), call).await;
        rig.assert_clean(&format!("a call dropped after {micros} µs")).await;
    }
    assert_eq!(one.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get::<_, i64>(0), 0);
}
