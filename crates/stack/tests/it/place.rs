//! A place for one test: a directory that the servers' user can reach, free ports, and a look at
//! what runs there.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tenantry_stack::{
    Durability, PoolerLogin, PoolerSettings, Ports, Server, Stack, StackOptions, Status,
};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

pub(crate) const LOGIN: &str = "lane";
pub(crate) const PASSWORD: &str = r#"p"a s'sword"#;

pub(crate) struct Place {
    dir: TempDir,
    ports: Ports,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("stack-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Self { dir, ports: free_ports() }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn options(&self) -> StackOptions {
        StackOptions {
            ports: self.ports,
            database: "shop".to_owned(),
            durability: Durability::Volatile,
            ..StackOptions::new(self.data_dir())
        }
    }

    pub(crate) fn without_replica(&self) -> StackOptions {
        StackOptions { replicas: 0, ..self.options() }
    }

    /// The processes that have this place on their command line, but not this test.
    pub(crate) fn processes(&self) -> Vec<String> {
        let output = Command::new("ps").args(["-ww", "-eo", "pid=,stat=,args="]).output().unwrap();
        let place = self.dir.path().to_str().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter(|line| line.contains(place))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) async fn expect_no_processes(&self) {
        eventually("all processes to be gone", async || self.processes().is_empty()).await;
    }

    /// Runs a test of this binary that is marked as ignored, in a process of its own that can be
    /// killed.
    pub(crate) fn run_apart(&self, test: &str) -> Child {
        self.command_apart(test).spawn().unwrap()
    }

    pub(crate) fn command_apart(&self, test: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env("STACK_PLACE", self.dir.path())
            .env("STACK_PORTS", format!("{:?}", ports_array(self.ports)));
        command
    }

    /// The place of the test that started this process with [`Self::run_apart`]; `None` if
    /// somebody ran the ignored tests by hand.
    pub(crate) fn of_caller() -> Option<StackOptions> {
        let dir = PathBuf::from(std::env::var_os("STACK_PLACE")?);
        let ports = std::env::var("STACK_PORTS").ok()?;
        let ports: Vec<u16> =
            ports.trim_matches(['[', ']']).split(", ").map(|port| port.parse().unwrap()).collect();
        Some(StackOptions {
            ports: Ports { postgres: ports[0], replica: ports[1], pgbouncer: ports[2] },
            database: "shop".to_owned(),
            durability: Durability::Volatile,
            ..StackOptions::new(dir.join("data"))
        })
    }
}

fn ports_array(ports: Ports) -> [u16; 3] {
    [ports.postgres, ports.replica, ports.pgbouncer]
}

/// All held at once, so that they differ. The one behind the replica's is free, too.
fn free_ports() -> Ports {
    let held: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |index: usize| held[index].local_addr().unwrap().port();
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let replica = first.local_addr().unwrap().port();
        if replica < u16::MAX && TcpListener::bind(("127.0.0.1", replica + 1)).is_ok() {
            return Ports { postgres: port(0), replica, pgbouncer: port(1) };
        }
    }
}

pub(crate) fn settings() -> PoolerSettings {
    let login = PoolerLogin { name: LOGIN.to_owned(), password: PASSWORD.to_owned() };
    PoolerSettings {
        logins: vec![login],
        stats_users: vec![LOGIN.to_owned()],
        ..Default::default()
    }
}

pub(crate) async fn start_all(stack: &mut Stack) {
    stack.start_primary().await.unwrap();
    stack.start_replicas().await.unwrap();
    stack.start_pooler(&settings()).await.unwrap();
}

/// The login, its database, and in it a table with one row.
pub(crate) async fn fill(stack: &Stack) {
    let admin = connect(&stack.superuser_config()).await;
    let password = PASSWORD.replace('\'', "''");
    admin.batch_execute(&format!("CREATE ROLE {LOGIN} LOGIN PASSWORD '{password}'")).await.unwrap();
    admin.batch_execute(&format!("CREATE DATABASE shop OWNER {LOGIN}")).await.unwrap();
    let login = connect(stack.superuser_config().dbname("shop")).await;
    login
        .batch_execute(&format!(
            "CREATE TABLE public.orders AS SELECT 'first' AS name; ALTER TABLE orders OWNER TO {LOGIN}"
        ))
        .await
        .unwrap();
}

pub(crate) async fn first_order(config: &Config) -> Option<String> {
    value(config, "SELECT name FROM orders").await
}

pub(crate) fn pooled(stack: &Stack, database: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(stack.ports().pgbouncer).user(LOGIN).password(PASSWORD);
    config.dbname(database).connect_timeout(Duration::from_secs(5));
    config
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The first value that the statement returns; `None` also if nothing answers.
pub(crate) async fn value(config: &Config, sql: &str) -> Option<String> {
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    client.simple_query(sql).await.ok()?.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

pub(crate) fn is_running(status: &Status, server: Server) -> bool {
    status.servers.iter().any(|it| {
        it.server == server && matches!(it.state, tenantry_stack::ServerState::Running { .. })
    })
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A directory of links to the real programs of these names.
pub(crate) fn links_to(programs: &[&str], dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for name in programs {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut places: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        places.extend(std::env::split_paths(&path));
        places.push("/usr/sbin".into());
        let program = places.iter().map(|place| place.join(name)).find(|it| it.is_file());
        std::os::unix::fs::symlink(program.unwrap(), dir.join(OsStr::new(name))).unwrap();
    }
}
