//! `migrate lint`, which needs neither a database nor a configuration.

use std::path::Path;
use std::process::Command;

use crate::program::run;

/// A directory whose migrations are the built-in ones and a further file of the tenant set.
fn with_file(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../db/migrations");
    let copied =
        Command::new("cp").arg("-r").arg(source).arg(dir.path().join("sql")).status().unwrap();
    assert!(copied.success());
    std::fs::write(dir.path().join("tenantry.toml"), "[migrations]\ndir = \"sql\"\n").unwrap();
    std::fs::write(dir.path().join("sql/tenant/0005_note.up.sql"), text).unwrap();
    dir
}

#[test]
fn the_built_in_files_are_looked_at_without_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let ended = run(dir.path(), &["migrate", "lint", "--deny-warnings"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("0 errors, 0 warnings, 10 allowed\n"), "{}", ended.stdout);
}

#[test]
fn an_error_is_refused_and_a_warning_when_asked() {
    let dir = with_file("-- notes\nGRANT SELECT ON users TO somebody;\n");
    let ended = run(dir.path(), &["migrate", "lint"]);
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    let place = "sql/tenant/0005_note.up.sql:2: error[grant]: ";
    assert!(ended.stdout.contains(place), "{}", ended.stdout);
    let json = run(dir.path(), &["migrate", "lint", "--output", "json"]);
    assert_eq!(json.code, 4);
    let document = json.json();
    assert_eq!((&document["errors"], &document["warnings"]), (&1.into(), &1.into()));
    let standing = |f: &&serde_json::Value| f["allowed"].is_null();
    assert_eq!(document["findings"].as_array().unwrap().iter().filter(standing).count(), 2);

    let dir = with_file("UPDATE users SET name = '';\n");
    assert_eq!(run(dir.path(), &["migrate", "lint"]).code, 0);
    assert_eq!(run(dir.path(), &["migrate", "lint", "--deny-warnings"]).code, 4);
}

#[test]
fn files_that_can_not_be_read_are_told_of() {
    let dir = with_file("COMMIT;\n");
    let ended = run(dir.path(), &["migrate", "lint"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("would split the transaction"), "{}", ended.stderr);
}
