//! `tenantry migrate` as a process: signals, `kill -9`, two at once, exit codes, and what it prints.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use crate::program::{Ended, ended, installation, run, tenantry, with_migration};

/// Whatever a test waits for comes sooner, or never.
const PATIENCE: Duration = Duration::from_secs(60);

const SLEEPING: &str =
    "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";

/// Tenants, a directory of theirs, and a file of the tenant set with version 5.
struct Site {
    _db: TestDatabase,
    superuser: Client,
    dir: tempfile::TempDir,
}

impl Site {
    async fn new(tenants: &[&str], up: &str) -> Self {
        let db = TestDatabase::new().await;
        for tenant in tenants {
            db.tenant(tenant).await;
        }
        let dir = installation(&db);
        with_migration(dir.path(), up);
        Self { superuser: db.superuser().await, _db: db, dir }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join("sql").join(file), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        run(self.dir.path(), &[&["migrate"], arguments].concat())
    }

    /// What it says goes to a file, so that a test can read along.
    fn start(&self, arguments: &[&str]) -> Running {
        let said = self.dir.path().join("said");
        let mut command = tenantry(self.dir.path());
        command.arg("migrate").args(arguments).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(&said).unwrap());
        Running { child: Some(command.spawn().unwrap()), said }
    }

    async fn count(&self, query: &str) -> i64 {
        self.superuser.query_typed_one(query, &[]).await.unwrap().get(0)
    }

    async fn until(&self, query: &str, wanted: i64) {
        let waiting = async {
            while self.count(query).await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await;
        came.unwrap_or_else(|_| panic!("`{query}` does not become {wanted}"));
    }

    async fn until_asleep(&self, backends: i64) {
        self.until(&format!("SELECT count(*) {SLEEPING}"), backends).await;
    }

    /// How many have the table, the version and the ledger's entry: the same number.
    async fn migrated(&self) -> i64 {
        let tables = self.count("SELECT count(*) FROM pg_class WHERE relname = 'note'").await;
        for same in [
            "SELECT count(*) FROM public.tenants WHERE schema_version = 5",
            "SELECT count(*) FROM public.migrations WHERE version = 5 AND schema_name <> 'public'",
        ] {
            assert_eq!(self.count(same).await, tables, "{same}");
        }
        tables
    }

    async fn last_run(&self) -> String {
        let query = "SELECT state FROM public.migration_runs ORDER BY started_at DESC LIMIT 1";
        self.superuser.query_typed_one(query, &[]).await.unwrap().get(0)
    }
}

/// A process that a test started; it does not outlive it.
struct Running {
    child: Option<Child>,
    said: PathBuf,
}

impl Running {
    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    async fn until_says(&self, words: &str) {
        let waiting = async {
            while !std::fs::read_to_string(&self.said).unwrap().contains(words) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await;
        came.unwrap_or_else(|_| panic!("it does not say `{words}`"));
    }

    /// Waits for its end, without keeping the test's own connections from being driven.
    async fn end(mut self) -> Ended {
        let child = self.child.take().unwrap();
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends").unwrap();
        let stderr = std::fs::read_to_string(&self.said).unwrap();
        Ended { stderr, ..ended(output) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const SLOW: &str = "CREATE TABLE note (); SELECT pg_sleep(1);";

#[tokio::test]
async fn kill_9_in_the_middle_and_an_immediate_second_run() {
    let site = Site::new(&["a", "b", "c"], SLOW).await;
    let first = site.start(&["run", "--wave", "100%"]);
    site.until_asleep(3).await;
    first.signal("-KILL");
    // The server goes on with what it was sent, and may commit it while the second one is at work.
    let second = site.run(&["run"]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    drop(first);
    assert_eq!(site.migrated().await, 3);
    let runs = "SELECT count(*) FROM public.migration_runs WHERE state = 'interrupted' AND ended_at IS NOT NULL";
    assert_eq!((site.count(runs).await, site.last_run().await.as_str()), (1, "complete"));
    assert_eq!(site.run(&["run"]).stdout, "nothing to do\n");
}

#[tokio::test]
async fn a_second_run_does_not_wait_for_what_a_killed_one_left_in_the_server() {
    let site = Site::new(&["a"], "CREATE TABLE note (); SELECT pg_sleep(600);").await;
    let first = site.start(&["run"]);
    site.until_asleep(1).await;
    first.signal("-KILL");
    drop(first);
    site.write("tenant/0005_note.up.sql", "CREATE TABLE note ();");
    let second = site.run(&["run"]);
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert_eq!(site.migrated().await, 1);
}

#[tokio::test]
async fn sigterm_lets_what_is_under_way_end() {
    let site = Site::new(&["a", "b", "c", "d"], SLOW).await;
    let running = site.start(&["run", "--wave", "100%", "--parallel", "2"]);
    site.until_asleep(2).await;
    running.signal("-TERM");
    let stopped = running.end().await;
    assert_eq!(stopped.code, 3, "{}", stopped.stderr);
    assert!(
        stopped.stdout.contains("2 of 4 done") && stopped.stdout.contains("2 left"),
        "{}",
        stopped.stdout
    );
    for words in ["stopping: 2 tenants are under way", "hint: run again to go on from there"] {
        assert!(stopped.stderr.contains(words), "{}", stopped.stderr);
    }
    assert_eq!((site.migrated().await, site.last_run().await.as_str()), (2, "interrupted"));
    let status = site.run(&["status"]);
    assert!(status.stdout.contains("behind: 2\n"), "{}", status.stdout);
    assert!(status.stdout.contains("interrupted at"), "{}", status.stdout);
    let again = site.run(&["run"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(again.stdout.contains("2 of 2 done"), "{}", again.stdout);
    assert_eq!(site.migrated().await, 4);
}

#[tokio::test]
async fn a_second_signal_rolls_back_what_is_under_way() {
    let site = Site::new(&["a", "b"], "CREATE TABLE note (); SELECT pg_sleep(600);").await;
    let running = site.start(&["run", "--wave", "100%"]);
    site.until_asleep(2).await;
    running.signal("-INT");
    running.until_says("stopping: 2 tenants are under way").await;
    running.signal("-TERM");
    let stopped = running.end().await;
    assert_eq!(stopped.code, 1, "nothing was done: {}", stopped.stderr);
    assert!(stopped.stdout.contains("0 of 2 done"), "{}", stopped.stdout);
    assert_eq!((site.migrated().await, site.last_run().await.as_str()), (0, "interrupted"));
    site.until_asleep(0).await;
}

#[tokio::test]
async fn of_two_runners_one_is_busy_at_once() {
    let site = Site::new(&["a"], "CREATE TABLE note (); SELECT pg_sleep(600);").await;
    let first = site.start(&["run"]);
    site.until_asleep(1).await;
    for arguments in [&["run"] as &[&str], &["rollback", "--to", "2", "--accept-data-loss"]] {
        let second = site.run(arguments);
        assert_eq!(second.code, 5, "{}", second.stderr);
        assert!(second.stderr.contains("being changed by another process"), "{}", second.stderr);
    }
    // Looking is free.
    assert_eq!(site.run(&["status"]).code, 0);
    assert_eq!(site.run(&["plan"]).code, 0);
    drop(first);
}

#[tokio::test]
async fn each_way_to_end_has_its_code() {
    let site = Site::new(&["a", "b", "c"], "CREATE TABLE note ();").await;
    let broken =
        "SELECT 'tenant_' || replace(id::text, '-', '') FROM public.tenants WHERE subdomain = 'b'";
    let schema: String = site.superuser.query_typed_one(broken, &[]).await.unwrap().get(0);
    site.superuser.batch_execute(&format!("CREATE TABLE {schema}.note ()")).await.unwrap();
    for (arguments, code, words) in [
        (&["run", "--tenant", "b"] as &[&str], 1, "failed: b: `"),
        (&["run", "--max-failures", "1"], 3, "hint: what was through stays"),
        (&["run", "--on-error", "stop", "--max-failures", "1"], 2, "leave one of them out"),
        (&["run", "--wave", "ten"], 2, "is neither a number of tenants"),
        (&["run", "--to", "7"], 2, "has no version 7"),
        (&["rollback", "--tenant", "a"], 4, "0005_note.up.sql` has no down file"),
        (&["rollback", "--steps", "99"], 4, "99 steps can't be taken back"),
        (&["rollback", "--tenant", "nobody"], 6, "there is no tenant"),
    ] {
        let ended = site.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{arguments:?}: {}", ended.stderr);
    }
    site.superuser.batch_execute(&format!("DROP TABLE {schema}.note")).await.unwrap();
    assert_eq!(site.run(&["run"]).code, 0);
    site.write("tenant/0005_note.up.sql", "CREATE TABLE other ();");
    let refused = site.run(&["run"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("was changed after it had been applied to `a`, `b`, `c`"),
        "{}",
        refused.stderr
    );
    site.write("tenant/0005_note.up.sql", "CREATE TABLE other (); COMMIT;");
    assert_eq!(site.run(&["run"]).code, 2);
}

#[tokio::test]
async fn rows_at_stake_are_listed_and_a_confirmation_takes_them_back() {
    let site = Site::new(&["a", "b"], "ALTER TABLE teams ADD COLUMN note text;").await;
    site.write("tenant/0005_note.down.sql", "ALTER TABLE teams DROP COLUMN note;");
    assert_eq!(site.run(&["run"]).code, 0);
    let schema: String = site
        .superuser
        .query_typed_one("SELECT 'tenant_' || replace(id::text, '-', '') FROM public.tenants WHERE subdomain = 'b'", &[])
        .await
        .unwrap()
        .get(0);
    let row = format!("INSERT INTO {schema}.teams (name, note) VALUES ('t', 'n')");
    site.superuser.batch_execute(&row).await.unwrap();
    let planned = site.run(&["rollback", "--to", "4", "--dry-run"]);
    assert_eq!(planned.code, 0, "{}", planned.stderr);
    assert!(planned.stdout.contains("b: `teams.note` holds 1 row"), "{}", planned.stdout);
    let refused = site.run(&["rollback", "--to", "4", "--tenant", "b"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("b: `teams.note` holds 1 row"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--accept-data-loss"), "{}", refused.stderr);
    let done = site.run(&[
        "rollback",
        "--to",
        "4",
        "--tenant",
        "a",
        "--tenant",
        "b",
        "--accept-data-loss",
    ]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.starts_with("tenants: 2 of 2 done"), "{}", done.stdout);
}

#[tokio::test]
async fn json_is_one_document_on_stdout_and_events_on_stderr() {
    let site = Site::new(&["a", "b"], "CREATE TABLE note ();").await;
    let planned = site.run(&["run", "--dry-run", "--output", "json"]);
    assert_eq!((planned.code, planned.stderr.as_str()), (0, ""));
    let plan = planned.json();
    assert_eq!((&plan["tenants"], &plan["waves"]), (&2.into(), &serde_json::json!([1, 1])));
    assert_eq!(plan["tenant_files"][0]["tenants"], 2);
    assert_eq!(site.migrated().await, 0, "a plan is no run");
    assert_eq!(site.count("SELECT count(*) FROM public.migration_runs").await, 0);

    let done = site.run(&["run", "--output", "json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let report = done.json();
    assert_eq!((&report["state"], &report["tenants"]["done"]), (&"complete".into(), &2.into()));
    let events: Vec<Value> =
        done.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let wave = ["wave_began", "applied", "tenant_done"];
    assert_eq!(kinds, [wave, wave].concat());
    assert_eq!((&events[1]["subdomain"], &events[1]["version"]), (&"a".into(), &5.into()));
    assert_eq!((&events[5]["done"], &events[5]["total"]), (&2.into(), &2.into()));

    let status = site.run(&["status", "--output", "json"]).json();
    assert_eq!(
        (&status["behind_count"], &status["last_run"]["state"]),
        (&0.into(), &"complete".into())
    );
    assert_eq!(status["last_run"]["id"], report["run"]);
}

#[tokio::test]
async fn create_writes_files_that_run_and_are_taken_back() {
    let db = TestDatabase::new().await;
    db.tenant("a").await;
    let dir = installation(&db);
    let none = run(dir.path(), &["migrate", "create", "add_labels"]);
    assert_eq!(none.code, 2, "{}", none.stderr);
    assert!(none.stderr.contains("`--dir migrations` makes one"), "{}", none.stderr);
    let created = run(dir.path(), &["migrate", "create", "add_labels", "--dir", "sql"]);
    assert_eq!(created.code, 0, "{}", created.stderr);
    // Where the directory is, whatever the configuration file's own is.
    let absolute = dir.path().canonicalize().unwrap().join("sql");
    let hint = format!("`dir = \"{}\"` in `tenantry.toml`", absolute.display());
    assert!(created.stderr.contains(&hint), "{}", created.stderr);
    let written: Vec<&Path> = created.stdout.lines().map(Path::new).collect();
    assert!(written.len() > 2 && written.iter().all(|file| dir.path().join(file).is_file()));
    let [.., up, down] = written.as_slice() else { panic!("{written:?}") };
    let (up, down) = (dir.path().join(up), dir.path().join(down));
    assert!(up.to_string_lossy().ends_with("_add_labels.up.sql"), "{up:?}");
    assert!(down.to_string_lossy().ends_with("_add_labels.down.sql"), "{down:?}");
    for name in ["Add Labels", "../x", "-x", ""] {
        let refused = run(dir.path(), &["migrate", "create", "--dir", "sql", "--", name]);
        assert_eq!(refused.code, 2, "`{name}`: {}", refused.stderr);
    }
    let config = dir.path().join("tenantry.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[migrations]\ndir = \"sql\"\n")).unwrap();
    // Nothing but comments yet: that is no migration.
    let empty = run(dir.path(), &["migrate", "run"]);
    assert_eq!(empty.code, 2, "{}", empty.stderr);
    std::fs::write(&up, "CREATE TABLE labels ();").unwrap();
    std::fs::write(&down, "DROP TABLE labels;").unwrap();
    assert_eq!(run(dir.path(), &["migrate", "run"]).code, 0);
    let back = run(dir.path(), &["migrate", "rollback"]);
    assert_eq!(
        (back.code, back.stdout.starts_with("tenants: 1 of 1 done")),
        (0, true),
        "{}",
        back.stderr
    );
    // The next one has the next number.
    let next = run(dir.path(), &["migrate", "create", "more", "--set", "public"]);
    assert_eq!(next.code, 0, "{}", next.stderr);
    assert!(
        next.stdout.contains("public/") && next.stdout.contains("_more.up.sql"),
        "{}",
        next.stdout
    );
}
