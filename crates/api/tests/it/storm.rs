//! The leak test of the whole service: many requests of many tenants over few server connections,
//! with clients that leave, statements that are ended and transactions that panic.

#![expect(clippy::print_stderr, reason = "the seed, so that a failure can be had again")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tenantry_api::auth::Role;
use tenantry_api::{Settings, serve};
use tenantry_db::{Config, Installation, TenantId};
use tenantry_stack::Stack;
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;

use crate::service::{SECRET, Service, answer, until};

const LANES: u16 = 4;
const POOL_SIZE: u16 = 5;
const BUDGET: i64 = 20;

/// How much of it.
struct Shape {
    tenants: usize,
    clients: u64,
    lasts: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_storm_shows_nobody_a_foreign_row() {
    storm(Shape { tenants: 20, clients: 100, lasts: Duration::from_secs(5) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes more than a minute: part of `script/test --full`"]
async fn a_storm_shows_nobody_a_foreign_row() {
    storm(Shape { tenants: 200, clients: 500, lasts: Duration::from_secs(60) }).await;
}

async fn storm(shape: Shape) {
    let seed = match std::env::var("TENANTRY_STORM_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => TenantId::random().as_uuid().as_u64_pair().0,
    };
    // Shown if it fails. The order of events is the scheduler's, the requests are the seed's.
    eprintln!("TENANTRY_STORM_SEED={seed}");
    let field = Arc::new(Field::new(shape.tenants).await);
    let mut at_work: Vec<JoinHandle<()>> = Vec::new();
    for n in 0..shape.clients {
        at_work.push(tokio::spawn(client(Arc::clone(&field), Dice::new(seed, n))));
    }
    at_work.push(tokio::spawn(locker(Arc::clone(&field), Dice::new(seed, u64::MAX))));
    for n in 1..=4 {
        let dice = Dice::new(seed, u64::MAX - n);
        at_work.push(tokio::spawn(transactions(Arc::clone(&field), dice)));
    }
    at_work.push(tokio::spawn(connections(Arc::clone(&field))));
    let end = Instant::now() + shape.lasts;
    while Instant::now() < end && !at_work.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    field.stop.store(true, Ordering::SeqCst);
    for work in at_work {
        work.await.unwrap();
    }
    field.assert_calm().await;
}

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, end: u64) -> u64 {
        // The constants are Knuth's (MMIX); the low bits are the poor ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

struct Member {
    id: TenantId,
    token: String,
}

/// The servers, the service, the tenants, and what was seen.
struct Field {
    db: TestDatabase,
    service: Service,
    installation: Installation,
    members: Vec<Member>,
    stop: AtomicBool,
    next_name: AtomicUsize,
    answers: Mutex<BTreeMap<u16, usize>>,
    left: AtomicUsize,
    rows_seen: AtomicUsize,
    /// Which tenants each server connection served.
    served: Mutex<BTreeMap<i32, BTreeSet<TenantId>>>,
    panics: AtomicUsize,
    most_connections: AtomicI64,
    _stack: Stack,
    _dir: tempfile::TempDir,
}

impl Field {
    async fn new(tenants: usize) -> Self {
        let dir = temp_dir().unwrap();
        let (stack, servers) = Servers::start(dir.path(), POOL_SIZE).await.unwrap();
        let db = TestDatabase::on(servers).await;
        let mut layers =
            db.servers().layers(db.name(), "shared").flag("test", "auth.secret", SECRET);
        for (key, number) in [
            ("lanes.count", i64::from(LANES)),
            ("lanes.pool_size", i64::from(POOL_SIZE)),
            ("lanes.server_connections", BUDGET),
            ("tiers.free.slots", 3),
            ("tiers.pro.slots", 3),
            ("tiers.enterprise.slots", 3),
        ] {
            layers = layers.flag("test", key, number);
        }
        layers = layers.flag("test", "tiers.free.statement_timeout", "250ms");
        let config = Config::from_layers(layers).unwrap();
        let installation = Installation::new(config.clone()).unwrap();
        let service = service(&config, installation.clone()).await;
        let mut members = Vec::new();
        for n in 0..tenants {
            let id = db.tenant(&format!("t{n}")).await.id;
            members.push(Member { id, token: service.token(id, Role::Owner) });
        }
        Self {
            db,
            service,
            installation,
            members,
            stop: AtomicBool::default(),
            next_name: AtomicUsize::default(),
            answers: Mutex::default(),
            left: AtomicUsize::default(),
            rows_seen: AtomicUsize::default(),
            served: Mutex::default(),
            panics: AtomicUsize::default(),
            most_connections: AtomicI64::default(),
            _stack: stack,
            _dir: dir,
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Everything has ended as it should, and everything was tried.
    async fn assert_calm(&self) {
        let superuser = self.db.superuser().await;
        let busy = "SELECT count(*) FROM pg_stat_activity
                     WHERE usename LIKE 'shared_lane%' AND state <> 'idle'";
        until(async || superuser.query_typed_one(busy, &[]).await.unwrap().get::<_, i64>(0) == 0)
            .await;
        for Member { id, .. } in &self.members {
            let schema = id.schema();
            let foreign = format!(
                "SELECT (SELECT count(*) FROM {schema}.users WHERE name <> $1)
                      + (SELECT count(*) FROM {schema}.content WHERE body <> $1)"
            );
            let marker = id.to_string();
            let foreign = superuser.query_typed_one(&foreign, &[(&marker, Type::TEXT)]).await;
            assert_eq!(
                foreign.unwrap().get::<_, i64>(0),
                0,
                "rows in {schema} that are not its own"
            );
        }
        let most = self.most_connections.load(Ordering::SeqCst);
        assert!(most <= BUDGET, "{most} server connections, {BUDGET} are allowed");
        let answers = self.answers.lock().unwrap();
        let seen = |status: u16| answers.get(&status).copied().unwrap_or_default();
        let left = self.left.load(Ordering::SeqCst);
        let panics = self.panics.load(Ordering::SeqCst);
        eprintln!("answers {answers:?}, {left} left, {panics} panics, at most {most} connections");
        // Without these the test would prove less than it seems to.
        assert!(seen(200) > 100 && seen(201) > 100 && seen(503) > 0, "{answers:?}");
        let rows = self.rows_seen.load(Ordering::SeqCst);
        assert!(left > 10 && panics > 5 && rows > 500, "{rows} rows, {left} left, {panics} panics");
        let shared =
            self.served.lock().unwrap().values().filter(|tenants| tenants.len() > 1).count();
        assert!(shared > 0, "no server connection served several tenants");
    }
}

async fn service(config: &Config, installation: Installation) -> Service {
    let settings = Settings::from_config(config).unwrap();
    let auth = settings.auth.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let running = tokio::spawn(serve(listener, installation, settings, std::future::pending()));
    Service { base, client: reqwest::Client::new(), auth, stop: None, running }
}

/// One client after the other, each of some tenant.
async fn client(field: Arc<Field>, mut dice: Dice) {
    let mut known: BTreeMap<TenantId, String> = BTreeMap::new();
    while field.goes_on() {
        let member = dice.of(&field.members);
        let request = request(&field, &mut dice, member, known.get(&member.id));
        if dice.below(12) == 0 {
            let patience = Duration::from_micros(dice.below(15_000));
            if tokio::time::timeout(patience, request.send()).await.is_err() {
                field.left.fetch_add(1, Ordering::SeqCst);
            }
            continue;
        }
        let found = answer(request).await;
        let status = found.status.as_u16();
        // 404: the row has just been deleted. 429: the tenant has no slot. 503: its table is locked,
        // and nothing else is a reason.
        let provoked = "a statement took longer than the tenant's tier allows";
        assert!(
            matches!(status, 200 | 201 | 204 | 404 | 429) || found.body["detail"] == provoked,
            "{found:?}"
        );
        *field.answers.lock().unwrap().entry(status).or_default() += 1;
        if status >= 400 {
            continue;
        }
        let rows = found.body["data"].as_array().cloned();
        for row in rows.unwrap_or_else(|| vec![found.body]).iter().filter(|row| row.is_object()) {
            let marker = if row["email"].is_string() { &row["name"] } else { &row["body"] };
            assert_eq!(marker, &json!(member.id), "{} was shown a foreign row: {row}", member.id);
            field.rows_seen.fetch_add(1, Ordering::SeqCst);
            if row["title"].is_string() {
                known.insert(member.id, row["id"].as_str().unwrap().to_owned());
            }
        }
    }
}

fn request(
    field: &Field,
    dice: &mut Dice,
    member: &Member,
    known: Option<&String>,
) -> RequestBuilder {
    let Member { id, token } = member;
    let n = field.next_name.fetch_add(1, Ordering::SeqCst);
    let user = json!({"email": format!("{n}@{id}.example"), "name": id, "role": "member"});
    let content = json!({"title": format!("{n}"), "body": id});
    let own = known.map(|row| format!("/api/content/{row}"));
    let (method, path, body): (_, _, Option<Value>) = match (dice.below(20), own) {
        (0..=3, _) => (Method::POST, "/api/users".to_owned(), Some(user)),
        (4..=7, _) => (Method::POST, "/api/content".to_owned(), Some(content)),
        (8 | 9, Some(own)) => (Method::PATCH, own, Some(json!({"title": format!("again {n}")}))),
        (10, Some(own)) => (Method::DELETE, own, None),
        (11 | 12, Some(own)) => (Method::GET, own, None),
        (13..=16, _) => (Method::GET, "/api/content?limit=20".to_owned(), None),
        _ => (Method::GET, "/api/users?limit=20".to_owned(), None),
    };
    let request = field.service.request(method, &path).bearer_auth(token);
    match body {
        Some(body) => request.json(&body),
        None => request,
    }
}

/// Locks the tables of some tenant for longer than its statements may take.
async fn locker(field: Arc<Field>, mut dice: Dice) {
    let superuser = field.db.superuser().await;
    while field.goes_on() {
        let schema = dice.of(&field.members).id.schema();
        let lock = format!("BEGIN; LOCK TABLE {schema}.users, {schema}.content");
        superuser.batch_execute(&lock).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        superuser.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// Transactions of the library beside the service's, every other of which panics half-way.
async fn transactions(field: Arc<Field>, mut dice: Dice) {
    while field.goes_on() {
        let (id, panics) = (dice.of(&field.members).id, dice.below(2) == 0);
        let task = tokio::spawn(transaction(Arc::clone(&field), id, panics));
        if task.await.is_err_and(|end| end.is_panic()) {
            field.panics.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn transaction(field: Arc<Field>, id: TenantId, panics: bool) {
    let entry = field.installation.directory().find(id).await.unwrap().unwrap();
    let tenant = field.installation.tenant_db(entry).unwrap();
    // A tenant may be locked or busy; then this one is left out.
    let Ok(mut tx) = tenant.begin().await else { return };
    let Ok(backend) = tx.query_one("SELECT pg_backend_pid()", &[]).await else { return };
    field.served.lock().unwrap().entry(backend.get(0)).or_default().insert(id);
    let name = if panics { "never kept".to_owned() } else { id.to_string() };
    let add = "INSERT INTO users (email, name, role) VALUES (gen_random_uuid() || '@example.org', $1, 'x')";
    if tx.execute(add, &[(&name, Type::TEXT)]).await.is_err() {
        return;
    }
    if panics {
        // As a panic does, without its message.
        std::panic::resume_unwind(Box::new("on purpose"));
    }
    let _ = tx.commit().await;
}

/// Counts the lanes' server connections: those that two looks in a row find. One that PgBouncer closed
/// is still there for a moment, while the one in its place has begun.
async fn connections(field: Arc<Field>) {
    let superuser = field.db.superuser().await;
    let pids = "SELECT array_agg(pid) FROM pg_stat_activity WHERE usename LIKE 'shared_lane%'";
    let mut before: Vec<i32> = Vec::new();
    while field.goes_on() {
        let row = superuser.query_typed_one(pids, &[]).await.unwrap();
        let now: Vec<i32> = row.get::<_, Option<_>>(0).unwrap_or_default();
        let stayed = now.iter().filter(|pid| before.contains(pid)).count();
        field.most_connections.fetch_max(stayed.try_into().unwrap(), Ordering::SeqCst);
        before = now;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
