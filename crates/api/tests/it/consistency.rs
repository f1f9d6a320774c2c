//! `Consistency-Token` and `Served-By`, on servers of each test's own with a replica.

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::Role;
use tenantry_stack::{Server, Stack, StackOptions};
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::NoTls;

use crate::service::{Answer, Service, answer, until};

struct Rig {
    stack: Stack,
    db: TestDatabase,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let dir = temp_dir().unwrap();
        let options = |options: &mut StackOptions| {
            options.replicas = 1;
            options.settings.push(("synchronous_commit".to_owned(), "on".to_owned()));
        };
        let (mut stack, servers) = Servers::start_with(dir.path(), 12, options).await.unwrap();
        let db = TestDatabase::on(servers).await;
        stack.start_replicas().await.unwrap();
        Self { stack, db, _dir: dir }
    }

    async fn on_replica(&self, statement: &str) {
        let server = self.stack.replica_superuser_config(1);
        let (client, connection) = server.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(statement).await.unwrap();
    }

    async fn service(&self, poll_every: &str) -> Service {
        let looks = [("replicas.poll_every", poll_every), ("replicas.poll_timeout", "5s")];
        let service = Service::with(&self.db, &looks).await;
        until(async || ready(&service).await.body["replicas"][0]["state"] == "healthy").await;
        service
    }
}

async fn ready(service: &Service) -> Answer {
    answer(service.request(Method::GET, "/health/ready")).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(name).unwrap_or_else(|| panic!("no `{name}`: {answer:?}"));
    value.to_str().unwrap()
}

async fn get(service: &Service, bearer: &str, path: &str, token: &str) -> Answer {
    let request = service.request(Method::GET, path).bearer_auth(bearer);
    answer(request.header("Consistency-Token", token)).await
}

#[tokio::test]
async fn a_token_carries_what_was_written_to_another_service() {
    let rig = Rig::new().await;
    let id = rig.db.tenant("acme").await.id;
    // The first looks often, the others once: they will not notice that the replica stands still.
    let here = rig.service("50ms").await;
    let (there, elsewhere) = (rig.service("1h").await, rig.service("1h").await);
    let owner = here.token(id, Role::Owner);
    for service in [&here, &there, &elsewhere] {
        until(async || {
            let users = service.get(&owner, "/api/users").await;
            header(&users, "served-by") == "replica"
        })
        .await;
    }
    rig.on_replica("SELECT pg_wal_replay_pause()").await;
    let user = json!({"email": "a@b.co", "name": "A", "role": "editor"});
    let created = here.post(&owner, "/api/users", &user).await;
    assert_eq!(created.status, 201);
    let token = header(&created, "consistency-token");
    assert!(!created.headers.contains_key("served-by"), "that is said of reads");
    let path = format!("/api/users/{}", created.id());

    let told = get(&there, &owner, &path, token).await;
    assert_eq!((told.status.as_u16(), header(&told, "served-by")), (200, "primary"));
    // What a read has shown can be carried on as well.
    let token = header(&told, "consistency-token").to_owned();
    assert_eq!(here.get(&owner, &path).await.status, 200, "and the first remembers by itself");
    // A problem says who answered, too. This service was told nothing, and shows what there is.
    let past = elsewhere.get(&owner, &path).await;
    assert_eq!((past.problem().0, header(&past, "served-by")), (404, "replica"));
    assert_eq!(get(&elsewhere, &owner, &path, &token).await.status, 200);
    // A silly token is no error.
    let silly = get(&elsewhere, &owner, &path, "silly").await;
    assert_eq!((silly.status.as_u16(), header(&silly, "served-by")), (200, "primary"));

    let numbers = answer(there.request(Method::GET, "/metrics")).await.body;
    let numbers = numbers.as_str().unwrap();
    assert!(numbers.contains("tenantry_reads_total{on=\"stale\"} 1"), "{numbers}");
    rig.on_replica("SELECT pg_wal_replay_resume()").await;
    until(async || {
        let read = get(&there, &owner, &path, &token).await;
        assert_eq!(read.status, 200);
        header(&read, "served-by") == "replica"
    })
    .await;
}

#[tokio::test]
async fn a_service_whose_replica_is_gone_stays_ready_and_tells() {
    let mut rig = Rig::new().await;
    let id = rig.db.tenant("acme").await.id;
    let service = rig.service("50ms").await;
    let owner = service.token(id, Role::Owner);
    rig.stack.kill_server(Server::Replica(1)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(service.get(&owner, "/api/users").await.status, 200);
    }
    until(async || ready(&service).await.body["replicas"][0]["state"] == "unhealthy").await;
    let ready = ready(&service).await;
    let gone = json!([{"state": "unhealthy", "reasons": ["unreachable"]}]);
    assert_eq!((ready.status.as_u16(), &ready.body["replicas"]), (200, &gone));
    let numbers = answer(service.request(Method::GET, "/metrics")).await.body;
    let numbers = numbers.as_str().unwrap();
    let gauge = |line: &&str| line.starts_with("tenantry_replica_healthy{") && line.ends_with(" 0");
    assert!(numbers.lines().any(|line| gauge(&line)), "{numbers}");
    let reason = |line: &&str| line.contains("reason=\"unreachable\"") && line.ends_with(" 1");
    assert!(numbers.lines().any(|line| reason(&line)), "{numbers}");
}

#[tokio::test]
async fn without_replicas_the_headers_are_there_too() {
    let db = TestDatabase::new().await;
    let id = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    let owner = service.token(id, Role::Owner);
    let created = service.post(&owner, "/api/content", &json!({"title": "A"})).await;
    let token = header(&created, "consistency-token");
    let read = get(&service, &owner, "/api/content", token).await;
    assert_eq!((read.status.as_u16(), header(&read, "served-by")), (200, "primary"));
    assert_eq!(get(&service, &owner, "/api/content", "silly").await.status, 200);
    let refused = service.post(&owner, "/api/content", &json!({})).await;
    assert!(!refused.headers.contains_key("consistency-token"), "nothing was written");
    assert_eq!(ready(&service).await.body, json!({"status": "ready"}));
}
