//! Running the program, and looking at what it does to the server.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tenantry_testing::TestDatabase;

/// The program with a clean environment, in a directory.
pub(crate) fn tenantry(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.current_dir(dir).env_clear().envs(
        std::env::vars()
            .filter(|(name, _)| !name.starts_with("TENANTRY_") && !name.starts_with("DATABASE_")),
    );
    command.env("NO_COLOR", "1");
    command
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Ended {
    ended(tenantry(dir).args(arguments).output().unwrap())
}

pub(crate) fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory whose `tenantry.toml` leads to a database of this test's own.
pub(crate) fn installation(db: &TestDatabase) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tenantry.toml");
    std::fs::write(&file, db.servers().toml(db.name())).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    dir
}

/// Gives an installation a directory of migrations: the built-in ones, and a further one of the
/// tenant set.
pub(crate) fn with_migration(dir: &Path, up: &str) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../db/migrations");
    let copied = Command::new("cp").arg("-r").arg(source).arg(dir.join("sql")).status().unwrap();
    assert!(copied.success());
    let config = dir.join("tenantry.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[migrations]\ndir = \"sql\"\n")).unwrap();
    let file = dir.join("sql/tenant/0005_note.up.sql");
    std::fs::write(&file, up).unwrap();
    file
}

/// The number that a query yields.
pub(crate) async fn count(client: &tokio_postgres::Client, query: &str) -> i64 {
    client.query_typed_one(query, &[]).await.unwrap().get(0)
}

/// Waits until it is as wanted, ten seconds at most.
pub(crate) async fn until_equal(client: &tokio_postgres::Client, query: &str, wanted: i64) {
    for _ in 0..500 {
        if count(client, query).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("`{query}` did not become {wanted} within 10 s");
}
