//! `tenantry up` and what belongs to it, on servers of each test's own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tenantry_testing::{free_port, temp_dir};

use crate::program::{Ended, ended, run, tenantry};

pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) ports: [String; 4],
    /// The requests that it printed.
    curl: Vec<String>,
}

impl Up {
    fn flags(ports: &[String; 4]) -> Vec<String> {
        let names = ["--postgres-port", "--replica-port", "--pgbouncer-port", "--http-port"];
        names
            .iter()
            .zip(ports)
            .flat_map(|(name, port)| [(*name).to_owned(), port.clone()])
            .collect()
    }

    pub(crate) fn spawn(dir: &Path, ports: [String; 4], more: &[&str]) -> Self {
        let mut command = tenantry(dir);
        let command = command.arg("up").args(Self::flags(&ports)).arg("--no-demo").args(more);
        Self { child: piped(command), ports, curl: Vec::new() }
    }

    /// Starts it, and returns when it says that it is up.
    pub(crate) fn start(dir: &Path, ports: [String; 4], more: &[&str]) -> Self {
        Self::spawn(dir, ports, more).announced()
    }

    fn announced(mut self) -> Self {
        let up = &mut self;
        let lines = BufReader::new(up.child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            up.curl.extend(line.starts_with("curl ").then_some(line));
            if up.curl.len() == 3 {
                return self;
            }
        }
        panic!("it did not come up: {}", self.wait().stderr);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> Ended {
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        Ended { code, stdout: String::new(), stderr }
    }
}

fn piped(command: &mut std::process::Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What `doctor` finds wrong, but for the backups: the first one may be under way, and the machine's disk full.
pub(crate) fn bad(doctor: &str) -> Vec<&str> {
    let is_bad = |line: &&str| line.starts_with("FAILED") || line.starts_with("warning");
    doctor.lines().filter(is_bad).filter(|line| !line.contains(" backups ")).collect()
}

pub(crate) fn free_ports() -> [String; 4] {
    std::array::from_fn(|_| free_port().unwrap().to_string())
}

fn servers(dir: &Path) -> Vec<(String, Option<i64>)> {
    let status = ended(tenantry(dir).args(["status", "--output", "json"]).output().unwrap()).json();
    let server = |s: &Value| (s["name"].as_str().unwrap().to_owned(), s["pid"].as_i64());
    status["servers"].as_array().unwrap().iter().map(server).collect()
}

fn running(dir: &Path) -> usize {
    servers(dir).iter().filter(|(_, pid)| pid.is_some()).count()
}

#[test]
fn it_comes_up_serves_and_stops_cleanly() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--ready-pool", "3"]);
    assert_eq!(running(dir.path()), 3);
    let ready =
        || run(dir.path(), &["status", "--output", "json"]).json()["tenants"]["ready"].clone();
    assert_eq!(ready(), 3, "filled before it is said to be up");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.path().join(".tenantry/tenantry.toml")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    // Every other command run from the same directory finds it.
    assert_eq!(
        run(dir.path(), &["tenant", "create", "--name", "A", "--subdomain", "acme"]).code,
        0
    );
    let doctor = run(dir.path(), &["doctor"]);
    assert!(doctor.stdout.contains("replica"), "{}", doctor.stdout);
    assert_eq!(bad(&doctor.stdout), Vec::<&str>::new());

    let second = Up::spawn(dir.path(), free_ports(), &[]).wait();
    assert_eq!(second.code, 5, "{}", second.stderr);
    assert!(second.stderr.contains(&up.child.id().to_string()), "{}", second.stderr);
    assert_eq!(run(dir.path(), &["down"]).code, 5);

    let ports = up.ports.clone();
    up.signal(Signal::INT);
    let stopped = up.wait();
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert_eq!(running(dir.path()), 0);

    // A second start reuses the data, and what the user wrote into the file. The pool is full again.
    let file = dir.path().join(".tenantry/tenantry.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[tiers.gold]\nslots = 9 # ours\n")).unwrap();
    let up = Up::start(dir.path(), ports, &["--lanes", "6", "--no-replica"]);
    assert_eq!(run(dir.path(), &["tenant", "show", "acme"]).code, 0);
    assert_eq!(ready(), 3);
    assert_eq!(
        run(dir.path(), &["tenant", "create", "--name", "B", "--subdomain", "b", "--tier", "gold"])
            .code,
        0
    );
    assert!(std::fs::read_to_string(&file).unwrap().contains("slots = 9 # ours"));
    let lanes = run(dir.path(), &["lanes", "list", "--output", "json"]).json();
    assert_eq!(lanes["data"].as_array().unwrap().len(), 6);
    // Nothing is kept for the replica that is not wanted any more.
    assert_eq!(bad(&run(dir.path(), &["doctor"]).stdout), Vec::<&str>::new());
    up.signal(Signal::TERM);
    let stopped = up.wait();
    assert_eq!(stopped.code, 0);
    assert!(stopped.stderr.contains("the replica is not wanted now"), "{}", stopped.stderr);
}

#[test]
fn who_is_back_and_was_erased_goes_again_before_anybody_is_served() {
    let dir = temp_dir().unwrap();
    let ports = free_ports();
    let up = Up::start(dir.path(), ports.clone(), &["--no-replica", "--no-backup"]);
    let made = ["tenant", "create", "--name", "A", "--subdomain", "back", "--output", "json"];
    let id = run(dir.path(), &made).json()["id"].as_str().unwrap().to_owned();
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
    // As if the servers' directories had been put back from a copy of before the purge.
    let entry = format!(
        "{{\"sequence\":1,\"recorded_at\":\"2026-01-01T00:00:00Z\",\"tenant_id\":\"{id}\",\"previous\":\"{}\"}}\n",
        "0".repeat(64)
    );
    std::fs::write(dir.path().join(".tenantry/erasure/erasures.jsonl"), entry).unwrap();
    let up = Up::start(dir.path(), ports, &["--no-replica", "--no-backup"]);
    let shown = run(dir.path(), &["tenant", "show", &id, "--output", "json"]).json();
    assert_eq!(shown["status"], "purged", "{shown}");
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
}

#[test]
fn the_demo_tenants_are_there_once_and_have_rows() {
    let dir = temp_dir().unwrap();
    let start = || {
        let ports = free_ports();
        let mut command = tenantry(dir.path());
        let command = command.arg("up").args(Up::flags(&ports)).arg("--no-replica");
        Up { child: piped(command), ports, curl: Vec::new() }.announced()
    };
    for _ in 0..2 {
        let up = start();
        let list = run(dir.path(), &["tenant", "list", "--output", "json"]).json();
        let names: Vec<_> =
            list["data"].as_array().unwrap().iter().map(|t| t["subdomain"].clone()).collect();
        assert_eq!(names, ["acme", "globex"]);
        up.signal(Signal::INT);
        assert_eq!(up.wait().code, 0);
    }
}

#[test]
fn the_printed_requests_work_as_they_stand() {
    let dir = temp_dir().unwrap();
    let place = dir.path().join("a place's $data");
    let shell = |line: &str| {
        let mut command = std::process::Command::new("sh");
        ended(command.arg("-c").arg(line).current_dir(dir.path()).output().unwrap())
    };
    let data_dir = ["--no-replica", "--data-dir", place.to_str().unwrap()];
    for more in [&["--no-replica"][..], &data_dir] {
        let up = Up::start(dir.path(), free_ports(), more);
        let answers: Vec<Value> = up.curl.iter().map(|line| shell(line).json()).collect();
        assert_eq!(answers[0]["subdomain"], "initech", "{answers:?}");
        assert_eq!(answers[1]["title"], "Hello", "{answers:?}");
        assert_eq!(answers[2]["data"][0]["id"], answers[1]["id"], "{answers:?}");
        up.signal(Signal::INT);
        assert_eq!(up.wait().code, 0);
    }
}

#[test]
fn the_service_is_seen_and_its_port_may_be_taken() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    let status =
        || ended(tenantry(dir.path()).args(["status", "--output", "json"]).output().unwrap());
    let seen = status().json()["api"].clone();
    assert_eq!(seen["address"], format!("127.0.0.1:{}", up.ports[3]));
    assert_eq!(seen["answers"], true);
    // Another one on the same servers.
    let port = free_port().unwrap().to_string();
    let mut alone = tenantry(dir.path());
    let mut alone = piped(alone.args(["serve", "--log-format", "json", "--http-port", &port]));
    let mut log = BufReader::new(alone.stderr.take().unwrap()).lines();
    assert!(log.next().unwrap().unwrap().starts_with("serving on"));
    let busy = run(dir.path(), &["serve", "--http-port", &port]);
    assert_eq!(busy.code, 1, "{}", busy.stderr);
    assert!(busy.stderr.contains("--http-port"), "{}", busy.stderr);
    kill_process(Pid::from_child(&alone), Signal::TERM).unwrap();
    assert_eq!(alone.wait().unwrap().code(), Some(0));
    let stopping: Value = serde_json::from_str(&log.next().unwrap().unwrap()).unwrap();
    assert_eq!(stopping["level"], "INFO");
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
    // Whoever answers there now is not ours.
    assert_eq!(status().json()["api"], Value::Null);
}

#[test]
fn a_value_in_a_sections_place_is_told_of() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
    let file = dir.path().join(".tenantry/tenantry.toml");
    std::fs::write(&file, "lanes = 5\n").unwrap();
    let refused = Up::spawn(dir.path(), free_ports(), &["--no-replica"]).wait();
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("`lanes` is a value"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "lanes = 5\n", "it is left as it was");
}

#[test]
fn a_killed_up_leaves_servers_that_down_or_the_next_up_stops() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    let ports = up.ports.clone();
    assert_eq!(
        run(dir.path(), &["tenant", "create", "--name", "A", "--subdomain", "acme"]).code,
        0
    );
    up.signal(Signal::KILL);
    up.wait();
    assert_eq!(running(dir.path()), 2);
    let up = Up::start(dir.path(), ports.clone(), &["--no-replica"]);
    assert_eq!(run(dir.path(), &["tenant", "show", "acme"]).code, 0);
    up.signal(Signal::KILL);
    up.wait();
    let down = run(dir.path(), &["down"]);
    assert_eq!((down.code, down.stdout.lines().count()), (0, 2), "{}", down.stderr);
    assert_eq!(run(dir.path(), &["down"]).stdout, "nothing was running\n");

    // Everything killed at once: crash recovery, and no pid file that is believed blindly.
    let up = Up::start(dir.path(), ports.clone(), &["--no-replica"]);
    up.signal(Signal::STOP);
    for (_, pid) in servers(dir.path()) {
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())) {
            kill_process(pid, Signal::KILL).unwrap();
        }
    }
    up.signal(Signal::KILL);
    up.wait();
    let up = Up::start(dir.path(), ports, &["--no-replica"]);
    assert_eq!(run(dir.path(), &["tenant", "show", "acme"]).code, 0);
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
}

#[test]
fn a_server_that_dies_comes_back() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    for name in ["pgbouncer", "primary"] {
        let before = servers(dir.path()).into_iter().find(|(n, _)| n == name).unwrap().1.unwrap();
        kill_process(Pid::from_raw(i32::try_from(before).unwrap()).unwrap(), Signal::KILL).unwrap();
        let back = (0..500).any(|_| {
            let now = servers(dir.path()).into_iter().find(|(n, _)| n == name).unwrap().1;
            let back =
                now.is_some_and(|pid| pid != before) && run(dir.path(), &["doctor"]).code == 0;
            if !back {
                std::thread::park_timeout(std::time::Duration::from_millis(100));
            }
            back
        });
        assert!(back, "{name} did not come back");
    }
    up.signal(Signal::INT);
    let stopped = up.wait();
    assert!(stopped.stderr.contains("warning: pgbouncer ended"), "{}", stopped.stderr);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
}

#[test]
fn a_busy_port_names_its_flag_and_nothing_is_left_running() {
    let dir = temp_dir().unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut ports = free_ports();
    ports[2] = taken.local_addr().unwrap().port().to_string();
    let ended = Up::spawn(dir.path(), ports, &[]).wait();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("--pgbouncer-port"), "{}", ended.stderr);
    assert_eq!(running(dir.path()), 0);
}

#[test]
fn reset_deletes_only_when_told_to() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    let ports = up.ports.clone();
    assert_eq!(
        run(dir.path(), &["tenant", "create", "--name", "A", "--subdomain", "acme"]).code,
        0
    );
    let while_up =
        Up::spawn(dir.path(), ports.clone(), &["--no-replica", "--reset", "--yes"]).wait();
    assert_eq!(while_up.code, 5, "{}", while_up.stderr);
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
    let mut unconfirmed = tenantry(dir.path());
    let unconfirmed = unconfirmed.args(["up", "--reset"]).stdin(Stdio::null());
    let unconfirmed = ended(unconfirmed.output().unwrap());
    assert_eq!(unconfirmed.code, 4, "{}", unconfirmed.stderr);
    let up = Up::start(dir.path(), ports, &["--no-replica", "--reset", "--yes"]);
    assert_eq!(run(dir.path(), &["tenant", "list"]).stdout, "no tenants\n");
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
}
