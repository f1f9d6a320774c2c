//! Servers that restart, die or can't be reached while requests are under way: an honest answer to
//! each, nothing written twice, and an end of it by itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::Role;
use tenantry_db::TenantId;
use tenantry_stack::{Server, Stack};
use tenantry_testing::{Proxy, Servers, TestDatabase, Wire, temp_dir};
use tokio::task::JoinHandle;

use crate::service::{Service, answer, blocked, until};

/// As `lanes.pool_size` by default.
const POOL_SIZE: u16 = 12;

/// Longer than anything that a request may wait for here: whoever waits longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What became of one write.
struct Outcome {
    title: String,
    status: u16,
}

/// Servers of a test's own, a service, and clients that write and read without end.
struct Load {
    db: TestDatabase,
    stack: Stack,
    proxy: Proxy,
    tenants: Vec<TenantId>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Load {
    async fn start() -> Self {
        let dir = temp_dir().unwrap();
        let (stack, servers) = Servers::start(dir.path(), POOL_SIZE).await.unwrap();
        let db = TestDatabase::on(servers).await;
        // What was answered must be there after a crash of the server, though not of the machine.
        let durable = format!("ALTER DATABASE {} SET synchronous_commit = on", db.name());
        db.superuser().await.batch_execute(&durable).await.unwrap();
        let proxy = Proxy::start(db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
        let url = format!("postgresql://127.0.0.1:{}/{}", proxy.port(), db.name());
        // The directory is read again and again, so that its connections meet the same fate.
        let settings = [("database.url", url.as_str()), ("directory.ttl", "100ms")];
        let service = Arc::new(Service::with(&db, &settings).await);
        let (outcomes, stop) = (Arc::default(), Arc::default());
        let (mut tenants, mut clients) = (Vec::new(), Vec::new());
        for n in 0..4 {
            let tenant = db.tenant(&format!("t{n}")).await.id;
            tenants.push(tenant);
            let (outcomes, stop) = (Arc::clone(&outcomes), Arc::clone(&stop));
            clients.push(tokio::spawn(client(Arc::clone(&service), tenant, outcomes, stop)));
        }
        Self { db, stack, proxy, tenants, outcomes, stop, clients, _dir: dir }
    }

    /// Every tenant has written something since now.
    async fn until_all_are_served(&self) {
        let seen = self.outcomes.lock().unwrap().len();
        until(async || {
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client gave up");
            let outcomes = self.outcomes.lock().unwrap();
            let served = |tenant: &TenantId| {
                let own = format!("{tenant} ");
                let mut new = outcomes.iter().skip(seen);
                new.any(|outcome| outcome.status == 201 && outcome.title.starts_with(&own))
            };
            self.tenants.iter().all(served)
        })
        .await;
    }

    fn refused(&self) -> usize {
        self.outcomes.lock().unwrap().iter().filter(|outcome| outcome.status == 503).count()
    }

    /// Ends it. What was answered 201 stands there once, everything else once or not at all.
    async fn assert_nothing_lost_or_doubled(self) {
        self.until_all_are_served().await;
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        let superuser = self.db.superuser().await;
        let mut found: HashMap<String, usize> = HashMap::new();
        for tenant in &self.tenants {
            let titles = format!("SELECT title FROM {}.content", tenant.schema());
            for row in superuser.query_typed(&titles, &[]).await.unwrap() {
                *found.entry(row.get(0)).or_default() += 1;
            }
        }
        let outcomes = std::mem::take(&mut *self.outcomes.lock().unwrap());
        assert!(outcomes.iter().any(|outcome| outcome.status == 503), "nobody noticed anything");
        for Outcome { title, status } in &outcomes {
            let times = found.remove(title).unwrap_or_default();
            let honest = if *status == 201 { times == 1 } else { times <= 1 };
            assert!(honest, "`{title}` was answered {status} and is there {times} times");
        }
        assert!(found.is_empty(), "nobody wrote {found:?}");
        let open = "SELECT count(*) FROM pg_stat_activity
                     WHERE usename LIKE 'shared_lane%' AND state LIKE 'idle in transaction%'";
        until(async || superuser.query_typed_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0)
            .await;
    }
}

/// Writes and reads until it is told to stop. Whatever happens, only two answers are right.
async fn client(
    service: Arc<Service>,
    tenant: TenantId,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    stop: Arc<AtomicBool>,
) {
    let token = service.token(tenant, Role::Owner);
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let title = format!("{tenant} {n}");
        let body = json!({ "title": title });
        let write = tokio::time::timeout(PATIENCE, service.post(&token, "/api/content", &body));
        let write = write.await.unwrap_or_else(|_| panic!("`{title}` gets no answer"));
        let read = service.request(Method::GET, "/api/content?limit=1").bearer_auth(&token);
        let read = tokio::time::timeout(PATIENCE, answer(read)).await;
        let read = read.unwrap_or_else(|_| panic!("a read after `{title}` gets no answer"));
        for (found, good) in [(&write, 201), (&read, 200)] {
            if found.status != good {
                assert_eq!(found.problem(), (503, "database_unavailable"), "{title}");
                assert_eq!(found.headers["retry-after"], "5");
            }
        }
        let refused = write.status != 201;
        outcomes.lock().unwrap().push(Outcome { title, status: write.status.as_u16() });
        if refused {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn pgbouncer_restarts() {
    let mut load = Load::start().await;
    load.until_all_are_served().await;
    load.stack.stop_server(Server::Pooler).await.unwrap();
    until(async || load.refused() > 0).await;
    let settings = load.db.servers().pooler_settings(POOL_SIZE).unwrap();
    load.stack.start_pooler(&settings).await.unwrap();
    load.until_all_are_served().await;
    // And without a good-bye.
    load.stack.kill_server(Server::Pooler).await.unwrap();
    load.stack.start_pooler(&settings).await.unwrap();
    load.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn the_primary_restarts() {
    let mut load = Load::start().await;
    load.until_all_are_served().await;
    load.stack.stop_server(Server::Primary).await.unwrap();
    until(async || load.refused() > 0).await;
    load.stack.start_primary().await.unwrap();
    load.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn the_primary_crashes() {
    let mut load = Load::start().await;
    load.until_all_are_served().await;
    load.stack.kill_server(Server::Primary).await.unwrap();
    until(async || load.refused() > 0).await;
    load.stack.start_primary().await.unwrap();
    load.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn the_wire_is_cut_in_the_middle_of_statements() {
    let load = Load::start().await;
    load.until_all_are_served().await;
    let (locker, watcher) = (load.db.superuser().await, load.db.superuser().await);
    let tables: Vec<_> =
        load.tenants.iter().map(|tenant| format!("{}.content", tenant.schema())).collect();
    for _ in 0..3 {
        // Each client's statement is in the server and waits there.
        let lock = format!("BEGIN; LOCK TABLE {}", tables.join(", "));
        locker.batch_execute(&lock).await.unwrap();
        until(async || blocked(&watcher).await >= 4).await;
        let before = load.refused();
        load.proxy.set(Wire::Cut);
        until(async || load.refused() > before).await;
        locker.batch_execute("ROLLBACK").await.unwrap();
        load.proxy.set(Wire::Open);
        load.until_all_are_served().await;
    }
    load.assert_nothing_lost_or_doubled().await;
}
