//! Invariants 1, 2 and 9 where it is tightest: one server connection for a whole lane, so that every
//! tenant gets the one that another has just left.

use futures_util::future::join_all;
use tenantry_db::bind::COMMIT;
use tokio_postgres::types::Type;

use crate::rig::Rig;
use crate::texts;

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
    let next = rig.bare().await;
    // Without this the test would prove nothing.
    assert_eq!(pids.len(), 1, "all of them used one server connection");
    rig.assert_clean(&next, "all of it").await;
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
async fn a_broken_bind_gives_no_rights() {
    let rig = Rig::new(1).await;
    let (client, next) = (rig.bare().await, rig.bare().await);
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
        rig.assert_clean(&next, &bind).await;
    }
    let count = rig.tenants[0].query_one("SELECT count(*) FROM users", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn errors_and_dropped_calls_hand_on_a_clean_connection() {
    let rig = Rig::new(2).await;
    let (one, next) = (&rig.tenants[0], rig.bare().await);
    one.query("SELECT 1/0", &[]).await.unwrap_err();
    rig.assert_clean(&next, "an error").await;
    let mut tx = one.begin().await.unwrap();
    tx.query("SELECT nonsense", &[]).await.unwrap_err();
    drop(tx);
    rig.assert_clean(&next, "a dropped failed transaction").await;
    let mut tx = one.begin().await.unwrap();
    tx.execute(
        "INSERT INTO users (email, name, role) VALUES ('a@example.org', 'A', 'member')",
        &[],
    )
    .await
    .unwrap();
    drop(tx);
    rig.assert_clean(&next, "a dropped open transaction").await;
    for micros in [0, 50, 200, 500, 1000, 3000] {
        let call = one.query("SELECT pg_sleep(0.002)", &[]);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(micros), call).await;
        rig.assert_clean(&next, &format!("a call dropped after {micros} µs")).await;
    }
    assert_eq!(one.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get::<_, i64>(0), 0);
}
