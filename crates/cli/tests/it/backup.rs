//! `tenantry backup` on the servers of an `up`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tenantry_testing::temp_dir;

use crate::program::{Ended, ended, run, tenantry};
use crate::up::{Up, bad, free_ports};

fn list(dir: &Path) -> Value {
    run(dir, &["backup", "list", "--output", "json"]).json()
}

/// Waits until `up` has made its first one, 60 seconds at most.
fn first_backup(dir: &Path) -> Value {
    for _ in 0..300 {
        let found = list(dir);
        if found["backups"].as_array().is_some_and(|all| !all.is_empty()) {
            return found;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
    panic!("no backup within 60 s: {}", list(dir));
}

fn mine(dir: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.join(".tenantry").join(name)];
    let root = rustix::process::geteuid().as_raw();
    let owner = std::fs::metadata(dir.join(".tenantry/primary")).unwrap().uid();
    while let Some(path) = open.pop() {
        let is = std::fs::symlink_metadata(&path).unwrap();
        if is.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
        }
        if is.uid() == root && owner != root {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn up_is_backed_up_from_its_first_moment_and_says_how() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    let ports = up.ports.clone();
    let found = first_backup(dir.path());
    assert_eq!(found["backups"][0]["kind"], "full");
    assert_eq!(found["windows"].as_array().unwrap().len(), 1);

    let made = run(dir.path(), &["backup", "run", "--type", "diff", "--output", "json"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(made.json()["kind"], "diff");
    let due = run(dir.path(), &["backup", "run", "--if-due"]);
    assert_eq!((due.code, due.stdout.as_str()), (0, "no backup is due\n"), "{}", due.stderr);
    let checked = run(dir.path(), &["backup", "check", "--verify", "--output", "json"]);
    let checks = checked.json();
    let outcome = |name: &str| {
        let checks = checks["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|it| it["name"] == name).unwrap()["outcome"].clone()
    };
    for name in ["backup_age", "continuity", "archiver", "retention", "verify"] {
        assert_eq!(outcome(name), "ok", "{checks}");
    }
    assert!(checks["server_settings"].to_string().contains("archive-push"));

    // At a glance, from what whoever looked last has stored.
    let doctor = run(dir.path(), &["doctor", "--output", "json"]);
    let checks = doctor.json();
    let seen = checks.as_array().unwrap().iter().find(|it| it["name"] == "backups").unwrap();
    let says = seen["detail"].as_str().unwrap();
    // The machine's disk may be rather full, which is said as well.
    assert!(says.contains("the newest is ") && says.contains("can be recovered"), "{says}");
    assert!(!says.contains("archiver") && !says.contains("continuity"), "{says}");
    let status = run(dir.path(), &["status"]).stdout;
    assert!(status.contains("\nbackups: the newest is "), "{status}");
    let glance = run(dir.path(), &["status", "--output", "json"]).json()["backups"].clone();
    assert!(glance["recoverable_to"].is_string() && glance["unknown"].is_null(), "{glance}");

    // What pgBackRest would take from the environment does not reach it.
    let odd = tenantry(dir.path())
        .args(["backup", "list", "--output", "json"])
        .env("PGBACKREST_REPO1_PATH", "/nowhere")
        .output()
        .unwrap();
    assert_eq!(ended(odd).json()["backups"].as_array().unwrap().len(), 2);
    assert_eq!(mine(dir.path(), "backup"), Vec::<String>::new(), "nothing is root's");
    let wrong = run(dir.path(), &["backup", "run", "--type", "all"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    up.signal(Signal::INT);
    let stopped = up.wait();
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);

    // A stopped server: what is there can be seen, and a new one can't be made.
    assert_eq!(list(dir.path())["backups"].as_array().unwrap().len(), 2);
    let away = run(dir.path(), &["backup", "run"]);
    assert_eq!(away.code, 1, "{}", away.stderr);
    assert!(away.stderr.contains("hint:"), "{}", away.stderr);

    // Without: nothing is archived, and the log has a gap from then on, which is seen later.
    let up = Up::start(dir.path(), ports, &["--no-replica", "--no-backup"]);
    let refused = run(dir.path(), &["backup", "list"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("not turned on"), "{}", refused.stderr);
    for command in ["doctor", "status"] {
        let said = run(dir.path(), &[command]).stdout;
        assert!(said.contains("not configured: nothing here is backed up"), "{said}");
    }
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
}

#[test]
fn two_at_once_and_a_stop_in_the_middle() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    first_backup(dir.path());
    let spawn = || {
        let mut command = tenantry(dir.path());
        let command = command.args(["backup", "run"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let both = [spawn(), spawn()];
    let both: Vec<Ended> =
        both.into_iter().map(|child| ended(child.wait_with_output().unwrap())).collect();
    let mut codes: Vec<i32> = both.iter().map(|it| it.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 5], "{} {}", both[0].stderr, both[1].stderr);
    // `up` goes in the middle of one.
    let running = spawn();
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
    let ended = ended(running.wait_with_output().unwrap());
    assert!([0, 1].contains(&ended.code), "{}", ended.stderr);
}

/// As the runbooks say it: a table is dropped, the server goes back, and is served again with a new replica.
#[test]
fn a_drill_and_the_way_back_of_a_whole_installation() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &[]);
    let ports = up.ports.clone();
    first_backup(dir.path());
    let create = |name: &str| {
        run(dir.path(), &["tenant", "create", "--name", name, "--subdomain", name]).code
    };
    assert_eq!(create("acme"), 0);
    let drilled = run(dir.path(), &["backup", "drill", "--output", "json"]);
    assert_eq!(drilled.code, 0, "{} {}", drilled.stdout, drilled.stderr);
    assert_eq!(drilled.json()["ok"], true);
    // Seconds of the backup's end are whole.
    let before = jiff::Timestamp::now().to_string();
    assert_eq!(create("globex"), 0);
    let restore = |to: &str, more: &[&str]| {
        run(dir.path(), &[&["backup", "restore", "--output", "json", "--to", to], more].concat())
    };
    let local = restore("2026-11-24T14:32:00", &["--yes"]);
    assert_eq!(local.code, 2, "{}", local.stderr);
    assert!(local.stderr.contains("no offset from UTC"), "{}", local.stderr);
    let early = restore("2020-01-01T00:00:00Z", &["--target-dir", "never"]);
    assert_eq!(early.code, 4, "{}", early.stderr);
    assert!(early.stderr.contains("(timeline 1)"), "{}", early.stderr);
    let runs = restore(&before, &["--yes"]);
    assert_eq!(runs.code, 4, "{}", runs.stderr);
    assert!(runs.stderr.contains("runs, as process"), "{}", runs.stderr);
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);

    let unasked = restore(&before, &[]);
    assert_eq!(unasked.code, 4, "{}", unasked.stderr);
    // Killed in the middle, whatever it is at: the server is what it was, and the next one does all.
    let marker = std::fs::metadata(dir.path().join(".tenantry/primary/PG_VERSION")).unwrap().ino();
    for until in ["primary/PG_VERSION", "primary/postmaster.pid"] {
        let mut command = tenantry(dir.path());
        let command = command.args(["backup", "restore", "--to", &before, "--yes"]);
        let mut killed = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let reached = dir.path().join(".tenantry/.primary.restoring").join(until);
        while !reached.exists() {
            if killed.try_wait().unwrap().is_some() {
                let ended = ended(killed.wait_with_output().unwrap());
                panic!("it never came to `{until}`: {} {}", ended.code, ended.stderr);
            }
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        let now = std::fs::metadata(dir.path().join(".tenantry/primary/PG_VERSION")).unwrap().ino();
        assert_eq!(now, marker, "its own directory still");
    }
    let restored = restore(&before, &["--yes"]);
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    let told = restored.json();
    assert_eq!(told["lost_decisions"][0]["subdomain"], "globex");
    assert_eq!(told["lost_decisions"][0]["decision"], "created");
    assert!(Path::new(told["kept"].as_str().unwrap()).join("PG_VERSION").exists());
    assert!(!dir.path().join(".tenantry/.primary.restoring").exists(), "all of it is wiped");

    let up = Up::start(dir.path(), ports, &[]);
    let all = run(dir.path(), &["tenant", "list", "--output", "json"]).stdout;
    assert!(all.contains("acme") && !all.contains("globex"), "{all}");
    // The replica follows the new timeline, and the log is in order.
    let doctor = run(dir.path(), &["doctor"]);
    assert_eq!(bad(&doctor.stdout), Vec::<&str>::new());
    let audit = run(dir.path(), &["audit", "verify"]);
    assert_eq!(audit.code, 0, "{} {}", audit.stdout, audit.stderr);
    let made = run(dir.path(), &["backup", "run"]);
    assert!([0, 5].contains(&made.code), "{}", made.stderr);
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
}

/// Begins to take acme back, and kills the program once a file is there.
fn kill_once_there(dir: &Path, moment: &str, file: &Path) {
    let spawn = || {
        let mut command = tenantry(dir);
        let command = command.args(["backup", "restore-tenant", "acme", "--to", moment, "--yes"]);
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut killed = spawn();
    while !file.exists() {
        if killed.try_wait().unwrap().is_some() {
            let ended = ended(killed.wait_with_output().unwrap());
            // The service may be at the same directory or repository for a moment.
            assert_eq!(ended.code, 5, "it never came to `{}`: {}", file.display(), ended.stderr);
            killed = spawn();
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
}

/// As the runbook says it, and killed wherever it is.
#[test]
fn one_tenant_comes_back_whatever_is_killed() {
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    first_backup(dir.path());
    let made = run(dir.path(), &["tenant", "create", "--name", "acme", "--subdomain", "acme"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let exec = |statement: &str| {
        let done =
            run(dir.path(), &["tenant", "exec", "acme", "--output", "json", "--", statement]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stdout
    };
    let teams = || {
        let found = exec("SELECT name FROM teams");
        ["row-a", "row-b"].map(|name| found.contains(name))
    };
    exec("INSERT INTO teams (name) VALUES ('row-a')");
    let moment = jiff::Timestamp::now().to_string();
    exec("INSERT INTO teams (name) VALUES ('row-b')");
    let restore = |more: &[&str]| {
        run(dir.path(), &[&["backup", "restore-tenant", "acme", "--output", "json"], more].concat())
    };
    for (more, code, said) in [
        (&["--to", &moment] as &[&str], 4, "would be taken back"),
        (&["--to", "2026-11-24T14:32:00", "--yes"], 2, "no offset from UTC"),
        (&["--yes"], 2, "--to"),
        (&["--to", &moment, "--replace", "--as", "x"], 2, "--as"),
        (&["--undo", "--yes"], 6, "no former state"),
        (&["--to", "2020-01-01T00:00:00Z", "--yes"], 4, "was created at"),
    ] {
        let refused = restore(more);
        assert_eq!(refused.code, code, "{more:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{more:?}: {}", refused.stderr);
    }
    let unknown =
        run(dir.path(), &["backup", "restore-tenant", "nobody", "--to", &moment, "--yes"]);
    assert_eq!(unknown.code, 6, "{}", unknown.stderr);
    let scratch = dir.path().join(".tenantry/backup/scratch");
    // The first drill is held beside the first backup.
    let drilled = || run(dir.path(), &["backup", "drill"]).code;
    for _ in 0..60 {
        if drilled() == 0 {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_secs(1));
    }
    for until in ["primary/PG_VERSION", "primary/postmaster.pid", "dumps/post-data.sql"] {
        kill_once_there(dir.path(), &moment, &scratch.join(until));
        assert_eq!(teams(), [true, true], "after `{until}`");
    }
    let restored = restore(&["--to", &moment, "--yes"]);
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert_eq!(restored.json()["replaced"]["rows"], 1, "{}", restored.stdout);
    assert_eq!(teams(), [true, false]);
    assert!(!scratch.exists(), "all of it is wiped");
    assert_eq!(mine(dir.path(), "backup"), Vec::<String>::new(), "nothing is root's");
    exec("INSERT INTO teams (name) VALUES ('row-c')");
    let doctor = run(dir.path(), &["doctor"]);
    assert_eq!(doctor.code, 0, "{}", doctor.stdout);
    let undone = restore(&["--undo", "--yes"]);
    assert_eq!(undone.code, 0, "{}", undone.stderr);
    assert_eq!(teams(), [true, true]);
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
}
