//! PgBouncer is really between, and the lanes really are its users.

use tenantry_db::pooler::{lane_pools, userlist};
use tenantry_db::{Config, LaneId};
use tenantry_testing::TestDatabase;
use tokio_postgres::NoTls;

use crate::texts;

#[tokio::test]
async fn the_console_shows_a_pool_for_each_lane_that_was_used() {
    let db = TestDatabase::new().await;
    assert!(lane_pools(&db.config).await.unwrap().is_empty());
    let (first, second) = (LaneId::new(0).unwrap(), LaneId::new(1).unwrap());
    let (one, two) = (db.lane(first).await, db.lane(second).await);
    one.batch_execute("BEGIN; SELECT 1").await.unwrap();
    assert_eq!(texts(&two, "SELECT current_user::text").await, ["shared_lane_01"]);
    let pools = lane_pools(&db.config).await.unwrap();
    assert_eq!(pools.keys().copied().collect::<Vec<_>>(), [first, second]);
    assert_eq!((pools[&first].servers_active, pools[&first].clients_active), (1, 1));
    assert_eq!((pools[&second].servers_active, pools[&second].servers_idle), (0, 1));
}

#[tokio::test]
async fn clients_share_a_server_connection_between_transactions() {
    let db = TestDatabase::new().await;
    let lane = LaneId::new(2).unwrap();
    let (one, two) = (db.lane(lane).await, db.lane(lane).await);
    let pid = "SELECT pg_backend_pid()::text";
    assert_eq!(texts(&one, pid).await, texts(&two, pid).await);
}

#[tokio::test]
async fn a_wrong_password_is_refused_in_plain_words() {
    let db = TestDatabase::new().await;
    let layers =
        db.servers().layers(db.name(), "shared").flag("test", "lanes.secret", "x".repeat(32));
    let wrong = Config::from_layers(layers).unwrap();
    let error = lane_pools(&wrong).await.unwrap_err();
    assert!(error.to_string().contains("/pgbouncer refuses the login: "), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn the_userlist_holds_all_lanes_and_the_console_login() {
    let db = TestDatabase::new().await;
    let list = userlist(&db.config).unwrap();
    let names: Vec<&str> = list.lines().map(|line| line.split('"').nth(1).unwrap()).collect();
    assert_eq!(names.len(), 33, "a resize makes no new file necessary");
    assert_eq!(
        (names[0], names[31], names[32]),
        ("shared_lane_00", "shared_lane_31", "shared_stats")
    );
    let password = list.lines().next().unwrap().split('"').nth(3).unwrap();
    let server = db
        .config
        .database
        .direct_as("shared_lane_00", &tenantry_db::Secret::new(password))
        .unwrap();
    let _ = server.connect(NoTls).await.unwrap();
}
