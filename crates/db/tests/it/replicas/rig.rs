//! Servers of a test's own with replicas, and processes that serve from them.

use std::time::Duration;

use tenantry_db::config::Layers;
use tenantry_db::replicas::{ReadOn, State, watch};
use tenantry_db::{Config, Installation, ServedBy, TenantDb, TenantId};
use tenantry_stack::{Stack, StackOptions};
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use crate::texts;

pub(crate) const ADD: &str = "INSERT INTO teams (name) VALUES ($1)";
pub(crate) const FIND: &str = "SELECT name FROM teams WHERE name = $1";

pub(crate) struct Rig {
    pub(crate) stack: Stack,
    pub(crate) db: TestDatabase,
    _dir: tempfile::TempDir,
}

/// A process that serves: it hears of changes and watches the replicas.
pub(crate) struct Process {
    pub(crate) installation: Installation,
    _jobs: JoinSet<()>,
}

impl Rig {
    pub(crate) async fn new(replicas: u16) -> Self {
        Self::with(replicas, |_| {}).await
    }

    /// With some of the servers' options changed. COMMIT waits for what replicas can get, as it does in
    /// production; the test's disk does not matter.
    pub(crate) async fn with(replicas: u16, change: impl FnOnce(&mut StackOptions)) -> Self {
        let dir = temp_dir().unwrap();
        let options = |options: &mut StackOptions| {
            options.replicas = replicas;
            options.settings.push(("synchronous_commit".to_owned(), "on".to_owned()));
            change(options);
        };
        let (mut stack, servers) = Servers::start_with(dir.path(), 12, options).await.unwrap();
        let mut db = TestDatabase::on(servers).await;
        let one_lane = db.servers().layers(db.name(), "shared").flag("test", "lanes.count", 1);
        db.config = Config::from_layers(one_lane).unwrap();
        stack.start_replicas().await.unwrap();
        Self { stack, db, _dir: dir }
    }

    /// The settings of a process; looks are frequent, so that tests are short.
    pub(crate) fn layers(&self) -> Layers {
        self.db
            .servers()
            .layers(self.db.name(), "shared")
            .flag("test", "lanes.count", 1)
            .flag("test", "replicas.poll_every", "50ms")
            .flag("test", "replicas.poll_timeout", "500ms")
    }

    /// The settings of a process that looks once, and notices nothing later.
    pub(crate) fn patient(&self) -> Layers {
        self.layers().flag("test", "replicas.poll_every", "1h").flag(
            "test",
            "replicas.poll_timeout",
            "10s",
        )
    }

    /// A process whose replicas have all been found healthy.
    pub(crate) async fn process(&self) -> Process {
        let process = Process::start(self.layers());
        process.until_all(State::Healthy).await;
        process
    }

    /// A tenant, known on every replica.
    pub(crate) async fn tenant(&self, subdomain: &str) -> TenantId {
        let tenant = self.db.tenant(subdomain).await;
        self.until_caught_up().await;
        tenant.id
    }

    /// A superuser in the test's database on a replica.
    pub(crate) async fn on_replica(&self, number: u16) -> Client {
        let mut server = self.stack.replica_superuser_config(number);
        server.dbname(self.db.name());
        let (client, connection) = server.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Stops what the replica replays; what it receives goes on.
    pub(crate) async fn pause(&self, number: u16) {
        let replica = self.on_replica(number).await;
        replica.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
        let paused = "SELECT pg_get_wal_replay_pause_state()";
        // It pauses before the next record.
        self.db.superuser().await.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        until("the replay to pause", async || texts(&replica, paused).await == ["paused"]).await;
    }

    pub(crate) async fn resume(&self, number: u16) {
        let replica = self.on_replica(number).await;
        replica.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    }

    /// Waits until each replica that runs has replayed what the primary has written by now.
    pub(crate) async fn until_caught_up(&self) {
        let primary = self.db.superuser().await;
        let at = texts(&primary, "SELECT pg_current_wal_insert_lsn()::text").await.remove(0);
        for number in 1..=u16::try_from(self.db.servers().replica_ports.len()).unwrap() {
            if self.stack.pid(tenantry_stack::Server::Replica(number)).is_none() {
                continue;
            }
            let replica = self.on_replica(number).await;
            let there = format!("SELECT (pg_last_wal_replay_lsn() >= '{at}')::text");
            until("the replica to catch up", async || {
                // What was inserted and not flushed would never come by itself.
                let nothing = "SELECT pg_logical_emit_message(true, 'test', '')";
                primary.batch_execute(nothing).await.unwrap();
                texts(&replica, &there).await == ["true"]
            })
            .await;
        }
    }
}

impl Process {
    /// One that has not looked yet.
    pub(crate) fn start(layers: Layers) -> Self {
        let installation = Installation::new(Config::from_layers(layers).unwrap()).unwrap();
        let mut jobs = JoinSet::new();
        jobs.spawn(watch(installation.clone(), std::future::pending()));
        let directory = installation.directory().clone();
        jobs.spawn(async move { directory.follow().await });
        Self { installation, _jobs: jobs }
    }

    pub(crate) async fn until_all(&self, state: State) {
        let healthy = || {
            let views = self.installation.replicas().views();
            !views.is_empty() && views.iter().all(|view| view.state == state)
        };
        let following = || self.installation.directory().is_following();
        until("the replicas' state", async || healthy() && following()).await;
    }

    /// The states of the replicas, and what speaks against them.
    pub(crate) fn health(&self) -> Vec<String> {
        let views = self.installation.replicas().views();
        let shown = |view: &tenantry_db::replicas::ReplicaView| {
            let reasons: Vec<&str> = view.reasons.iter().map(|reason| reason.as_str()).collect();
            format!("{} {}", view.state.as_str(), reasons.join(",")).trim_end().to_owned()
        };
        views.iter().map(shown).collect()
    }

    /// Waits for a replica to be left or read from, for this reason or none.
    pub(crate) async fn until_health(&self, number: usize, health: &str) {
        until(health, async || self.health()[number - 1] == health).await;
    }

    pub(crate) async fn tenant(&self, id: TenantId) -> TenantDb {
        let entry = self.installation.directory().find(id).await.unwrap().unwrap();
        self.installation.tenant_db(entry).unwrap()
    }

    /// How many reads were answered so.
    pub(crate) fn count(&self, on: ReadOn) -> u64 {
        let mut counts = self.installation.replicas().counts();
        counts.find(|(other, _)| *other == on).unwrap().1
    }
}

pub(crate) async fn add(tenant: &TenantDb, name: &str) {
    tenant.execute(ADD, &[(&name, Type::TEXT)]).await.unwrap();
}

/// Whether a read finds the team, and who answered.
pub(crate) async fn find(read: &tenantry_db::TenantRead, name: &str) -> (bool, ServedBy) {
    let rows = read.query(FIND, &[(&name, Type::TEXT)]).await.unwrap();
    (!rows.is_empty(), read.served_by().unwrap())
}

/// Reads until a replica answers.
pub(crate) async fn until_on_replica(tenant: &TenantDb) {
    until("a replica to answer", async || find(&tenant.read(), "").await.1 == ServedBy::Replica)
        .await;
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 30 s for {what}");
}
