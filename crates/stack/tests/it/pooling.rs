//! PgBouncer: who is let in, and how it comes back.

use tenantry_stack::{Error, PoolerLogin, Server, Stack};
use tokio_postgres::NoTls;

use crate::place::{Place, eventually, fill, first_order, kill_9, pooled, settings, value};

async fn with_pooler(place: &Place) -> Stack {
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    stack.start_primary().await.unwrap();
    fill(&stack).await;
    stack.start_pooler(&settings()).await.unwrap();
    stack
}

#[tokio::test]
async fn a_wrong_password_is_a_clear_refusal() {
    let place = Place::new();
    let mut stack = with_pooler(&place).await;
    let refused = pooled(&stack, "shop").password("wrong").connect(NoTls).await.err().unwrap();
    let answer = refused.as_db_error().unwrap().message();
    assert!(answer.contains("SASL authentication failed"), "{answer}");
    let refused = pooled(&stack, "shop").user("stranger").connect(NoTls).await.err().unwrap();
    assert!(refused.as_db_error().is_some(), "{refused}");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_pooler_is_reported_and_comes_back_on_its_port() {
    let place = Place::new();
    let mut stack = with_pooler(&place).await;
    kill_9(stack.pid(Server::Pooler).unwrap());
    assert_eq!(stack.wait_for_exit().await.server, Server::Pooler);
    assert_eq!(first_order(&pooled(&stack, "shop")).await, None);
    assert!(matches!(stack.reload_pooler(&settings()), Err(Error::NotRunning { .. })));

    stack.start_pooler(&settings()).await.unwrap();
    assert_eq!(first_order(&pooled(&stack, "shop")).await.as_deref(), Some("first"));
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn the_pooler_outlives_a_restart_of_the_primary() {
    let place = Place::new();
    let mut stack = with_pooler(&place).await;
    assert!(first_order(&pooled(&stack, "shop")).await.is_some());
    stack.stop_server(Server::Primary).await.unwrap();
    stack.start_primary().await.unwrap();
    let config = pooled(&stack, "shop");
    eventually("an answer", async || first_order(&config).await.is_some()).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_login_can_be_added_while_it_runs() {
    let place = Place::new();
    let mut stack = with_pooler(&place).await;
    let pid = stack.pid(Server::Pooler);
    let create = "CREATE ROLE second LOGIN PASSWORD 'two'";
    value(&stack.superuser_config(), create).await;
    let mut more = settings();
    more.logins.push(PoolerLogin { name: "second".to_owned(), password: "two".to_owned() });
    let mut second = pooled(&stack, "shop");
    second.user("second").password("two");
    assert_eq!(value(&second, "SELECT 1").await, None);

    stack.reload_pooler(&more).unwrap();
    eventually("the new login", async || value(&second, "SELECT 1").await.is_some()).await;

    // Starting it again does the same.
    stack.start_pooler(&settings()).await.unwrap();
    eventually("the end of it", async || value(&second, "SELECT 1").await.is_none()).await;
    assert_eq!(stack.pid(Server::Pooler), pid);
    stack.stop().await.unwrap();
}
