//! `replicas`: one lookup by key, read on the primary and on one or two replicas, and what the check costs.
//!
//! The floor is the same lookup through `TenantDb::read` in a process that knows no replica: bind, statement
//! and COMMIT in one trip, and no check. On one machine the replicas share their processors with the
//! primary, so more of them need not be faster here; what a check adds to a trip is what can be seen.

use std::time::Duration;

use anyhow::Context as _;
use tenantry_db::replicas::{ReadOn, State, watch};
use tenantry_db::{Config, Installation, TenantDb, TenantId, TenantRead};
use tenantry_stack::StackOptions;
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio::task::JoinSet;
use tokio_postgres::types::Type;

use crate::lookup::{self, EMAIL, LOOKUP, Options, POOL_SIZE};

const WAYS: [&str; 5] = [
    "no replica known (floor)",
    "1 replica, without a token",
    "1 replica, with a token",
    "2 replicas, with a token",
    "1 replica known, on the primary",
];

/// A process with so many replicas, and the reads of each of its clients.
struct Process {
    installation: Installation,
    _jobs: JoinSet<()>,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = temp_dir()?;
    let two = |stack: &mut StackOptions| {
        stack.replicas = 2;
        stack.settings.push(("synchronous_commit".to_owned(), "on".to_owned()));
    };
    let (mut stack, servers) = Servers::start_with(dir.path(), POOL_SIZE, two).await?;
    let db = TestDatabase::on(servers).await;
    stack.start_replicas().await?;
    let tenants = lookup::prepare(&db, options, |_| String::new()).await?;
    let processes = [
        Process::start(&db, 0).await?,
        Process::start(&db, 1).await?,
        Process::start(&db, 2).await?,
    ];
    let mut ways: [Vec<TenantRead>; 5] = Default::default();
    for id in &tenants {
        let [none, one, both] = [
            processes[0].tenant(*id).await?,
            processes[1].tenant(*id).await?,
            processes[2].tenant(*id).await?,
        ];
        none.execute("UPDATE users SET name = name WHERE email = $1", &[(&EMAIL, Type::TEXT)])
            .await?;
        let token = none.token().context("a write gives a token")?;
        ways[0].push(none.read());
        ways[1].push(one.read());
        ways[2].push(one.read().after(&token));
        ways[3].push(both.read().after(&token));
        // Nobody knows what this token asks for.
        ways[4].push(one.read().after("?"));
    }
    println!("{}", options.headline());
    lookup::compare(WAYS, &ways, options, find).await?;
    for (number, process) in processes.iter().enumerate().skip(1) {
        println!("reads of the process with {number}: {}", process.counts());
    }
    stack.stop().await?;
    Ok(())
}

impl Process {
    async fn start(db: &TestDatabase, replicas: usize) -> anyhow::Result<Self> {
        let mut layers = db.servers().layers(db.name(), "shared").flag("bench", "lanes.count", 1);
        layers = layers.flag("bench", "lanes.pool_size", i64::from(POOL_SIZE));
        let (mut pooled, mut direct) = db.servers().replica_urls(db.name());
        pooled.truncate(replicas);
        direct.truncate(replicas);
        layers = layers.flag("bench", "database.replica_urls", pooled).flag(
            "bench",
            "database.replica_direct_urls",
            direct,
        );
        let installation = Installation::new(Config::from_layers(layers)?)?;
        let mut jobs = JoinSet::new();
        jobs.spawn(watch(installation.clone(), std::future::pending()));
        let directory = installation.directory().clone();
        jobs.spawn(async move { directory.follow().await });
        let process = Self { installation, _jobs: jobs };
        while !process.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    fn is_ready(&self) -> bool {
        let views = self.installation.replicas().views();
        self.installation.directory().is_following()
            && views.iter().all(|view| view.state == State::Healthy)
    }

    async fn tenant(&self, id: TenantId) -> anyhow::Result<TenantDb> {
        let entry = self.installation.directory().find(id).await?.context("it was created")?;
        Ok(self.installation.tenant_db(entry)?)
    }

    fn counts(&self) -> String {
        let counts = self.installation.replicas().counts().filter(|(_, count)| *count > 0);
        let shown = |(on, count): (ReadOn, u64)| format!("{} {count}", on.as_str());
        counts.map(shown).collect::<Vec<_>>().join(", ")
    }
}

async fn find(read: &TenantRead) -> anyhow::Result<()> {
    let found = read.query_opt(LOOKUP, &[(&EMAIL, Type::TEXT)]).await?;
    anyhow::ensure!(found.is_some(), "the row is there");
    Ok(())
}
