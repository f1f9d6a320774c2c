//! The directory hears of changes at once, and believes nothing for long when it can't.

use std::time::Duration;

use futures_util::future::join_all;
use tenantry_db::lifecycle::{resume_tenant, suspend_tenant};
use tenantry_db::models::tenants::Status;
use tenantry_db::{Config, ErrorKind, Installation, TenantId};
use tenantry_testing::{Proxy, TestDatabase, Wire};
use tokio::task::JoinHandle;

/// An installation whose direct connections go through a proxy.
async fn through_a_proxy(db: &TestDatabase, changes: &[(&str, &str)]) -> (Proxy, Installation) {
    let proxy = Proxy::start(db.servers().postgres_port, Duration::ZERO).await.unwrap();
    let toml = db.servers().toml(db.name());
    let line = toml.lines().find(|line| line.starts_with("direct_url")).unwrap();
    let here = format!(":{}/", db.servers().postgres_port);
    let url = line.split('"').nth(1).unwrap().replace(&here, &format!(":{}/", proxy.port()));
    let mut layers =
        db.servers().layers(db.name(), "shared").flag("test", "database.direct_url", url);
    for (key, value) in changes {
        layers = layers.flag("test", key, *value);
    }
    (proxy, Installation::new(Config::from_layers(layers).unwrap()).unwrap())
}

async fn following(installation: &Installation) -> JoinHandle<()> {
    let directory = installation.directory().clone();
    let task = tokio::spawn(async move { directory.follow().await });
    until(async || installation.directory().is_following()).await;
    task
}

async fn until(condition: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come true within 10 s");
}

async fn status(installation: &Installation, id: TenantId) -> Option<Status> {
    installation.directory().find(id).await.unwrap().map(|entry| entry.status)
}

#[tokio::test]
async fn a_change_is_heard_of_by_every_instance() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let instances = [db.installation(), db.installation()];
    let mut tasks = Vec::new();
    for instance in &instances {
        tasks.push(following(instance).await);
        assert_eq!(status(instance, acme.id).await, Some(Status::Active));
    }
    let subdomain = "globex".parse().unwrap();
    for instance in &instances {
        assert!(instance.directory().find_by_subdomain(&subdomain).await.unwrap().is_none());
    }
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    let globex = db.tenant("globex").await.id;
    for instance in &instances {
        until(async || status(instance, acme.id).await == Some(Status::Suspended)).await;
        until(async || {
            let found = instance.directory().find_by_subdomain(&subdomain).await.unwrap();
            found.is_some_and(|entry| entry.id == globex)
        })
        .await;
    }
    // By hand, too, and under the old name as well as the new one.
    db.superuser()
        .await
        .batch_execute("UPDATE public.tenants SET subdomain = 'initech' WHERE subdomain = 'globex'")
        .await
        .unwrap();
    for instance in &instances {
        until(async || instance.directory().find_by_subdomain(&subdomain).await.unwrap().is_none())
            .await;
    }
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn what_was_missed_is_forgotten() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let (proxy, installation) = through_a_proxy(&db, &[("directory.unannounced_ttl", "1h")]).await;
    let task = following(&installation).await;
    assert_eq!(status(&installation, acme.id).await, Some(Status::Active));
    proxy.set(Wire::Cut);
    until(async || !installation.directory().is_following()).await;
    // Not read from the cache, and nothing is made up.
    let error = installation.directory().find(acme.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    proxy.set(Wire::Open);
    until(async || installation.directory().is_following()).await;
    assert_eq!(status(&installation, acme.id).await, Some(Status::Suspended));
    task.abort();
}

#[tokio::test]
async fn a_connection_that_died_without_a_word_is_noticed() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let (proxy, installation) = through_a_proxy(&db, &[]).await;
    let task = following(&installation).await;
    assert_eq!(status(&installation, acme.id).await, Some(Status::Active));
    proxy.set(Wire::RepliesHeld);
    let noticed = async {
        while installation.directory().is_following() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), noticed).await.unwrap();
    task.abort();
}

#[tokio::test]
async fn without_announcements_entries_are_believed_for_a_short_time() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let (_proxy, installation) =
        through_a_proxy(&db, &[("directory.unannounced_ttl", "100ms")]).await;
    assert_eq!(status(&installation, acme.id).await, Some(Status::Active));
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    until(async || status(&installation, acme.id).await == Some(Status::Suspended)).await;
    resume_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    until(async || status(&installation, acme.id).await == Some(Status::Active)).await;
}

#[tokio::test]
async fn many_askers_cost_one_query_and_an_unknown_one_is_remembered() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await.id;
    let (proxy, installation) = through_a_proxy(&db, &[("directory.unannounced_ttl", "1h")]).await;
    // The first one also connects.
    status(&installation, TenantId::random()).await;
    for id in [acme, TenantId::random()] {
        let before = proxy.requests();
        join_all((0..500).map(|_| status(&installation, id))).await;
        join_all((0..500).map(|_| status(&installation, id))).await;
        // One trip asks whether the connection still stands, one is the query.
        assert!(proxy.requests() - before <= 2, "{}", proxy.requests() - before);
    }
}
