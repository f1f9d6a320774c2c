//! What `CONTRIBUTING.md` asks and a machine can check.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

const MAX_LINES: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The project's own files with one of these endings.
fn files(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let root = root();
    let skipped = |name: &str| matches!(name, "target" | ".git" | ".tenantry" | "node_modules");
    let mut found = Vec::new();
    for entry in
        WalkDir::new(&root).into_iter().filter_entry(|e| !skipped(&e.file_name().to_string_lossy()))
    {
        let entry = entry.unwrap();
        let ending = entry.path().extension().unwrap_or_default().to_string_lossy().into_owned();
        if entry.file_type().is_file() && endings.contains(&ending.as_str()) {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            found.push((entry.path().strip_prefix(&root).unwrap().to_owned(), text));
        }
    }
    assert!(!found.is_empty());
    found
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn each_source_file_says_what_it_owns_and_stays_readable() {
    const BANNED: &[&str] = &[
        "manager", "helper", "helpers", "util", "utils", "common", "core", "data", "info", "misc",
    ];
    let mut problems = Vec::new();
    for (path, text) in files(&["rs"]) {
        let (shown, lines) = (path.display(), text.lines().count());
        if !text.starts_with("//! ") {
            problems.push(format!("{shown} does not begin with what it owns (`//! …`)"));
        }
        if lines > MAX_LINES {
            problems.push(format!(
                "{shown} has {lines} lines, more than {MAX_LINES}: which two jobs does it do?"
            ));
        }
        let stem = path.file_stem().unwrap().to_string_lossy();
        if BANNED.contains(&stem.as_ref()) {
            problems.push(format!("{shown}: a name that says nothing"));
        }
    }
    none(&problems);
}

#[test]
fn sql_names_its_columns() {
    let mut problems = Vec::new();
    // What the lint is tried with may say anything.
    let tried = |path: &Path| path.to_string_lossy().contains("migrate/lint/tests/");
    for (path, text) in files(&["rs", "sql"]).into_iter().filter(|(path, _)| !tried(path)) {
        for (number, line) in text.lines().enumerate() {
            let squeezed = line.to_lowercase();
            // Spelled in two pieces, so that this file does not find itself.
            for star in [["select", " *"].concat(), ["returning", " *"].concat()] {
                if squeezed.contains(&star) {
                    problems.push(format!("{}:{}: `{star}`", path.display(), number + 1));
                }
            }
        }
    }
    none(&problems);
}

#[test]
fn nothing_is_left_for_later_in_the_source() {
    let mut problems = Vec::new();
    for (path, text) in files(&["rs", "sql", "toml", "md"]) {
        for (number, line) in text.lines().enumerate() {
            for mark in [["TO", "DO"].concat(), ["FIX", "ME"].concat()] {
                if line.contains(&mark) {
                    problems.push(format!("{}:{}: {mark}", path.display(), number + 1));
                }
            }
        }
    }
    none(&problems);
}

/// The crates of this workspace that a crate's manifest names outside its dev-dependencies.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.into_iter().flat_map(|t| t.keys().cloned()).collect()
}

#[test]
fn arrows_between_crates_never_run_upward() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("tenantry-stack", &[] as &[&str]),
        ("tenantry-db", &[]),
        ("tenantry-api", &["tenantry-db"]),
        ("tenantry-backup", &["tenantry-db", "tenantry-stack"]),
        ("tenantry", &["tenantry-api", "tenantry-backup", "tenantry-db", "tenantry-stack"]),
        ("tenantry-testing", &["tenantry-db", "tenantry-stack"]),
        (
            "tenantry-bench",
            &[
                "tenantry-api",
                "tenantry-backup",
                "tenantry-db",
                "tenantry-stack",
                "tenantry-testing",
            ],
        ),
        ("tenantry-fuzz", &["tenantry-api", "tenantry-db"]),
    ]);
    let may_use_anyhow = ["tenantry", "tenantry-testing", "tenantry-bench"];
    let mut problems = Vec::new();
    for (path, text) in files(&["toml"]) {
        let manifest: toml::Table = text.parse().unwrap();
        let Some(name) =
            manifest.get("package").and_then(|p| p.get("name")).and_then(toml::Value::as_str)
        else {
            continue;
        };
        let Some(allowed) = allowed.get(name) else {
            problems.push(format!("{}: which floor is `{name}` on?", path.display()));
            continue;
        };
        for dependency in dependencies(&manifest) {
            let ours = dependency.starts_with("tenantry");
            if ours && !allowed.contains(&dependency.as_str()) {
                problems.push(format!("`{name}` must not know `{dependency}`"));
            }
            if dependency == "anyhow" && !may_use_anyhow.contains(&name) {
                problems.push(format!("`{name}` must have an error type of its own, not anyhow"));
            }
            if name == "tenantry-db"
                && matches!(dependency.as_str(), "axum" | "clap" | "http" | "hyper")
            {
                problems.push(format!("`{name}` must not know `{dependency}`"));
            }
        }
    }
    none(&problems);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for (path, text) in files(&["md"]) {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !root().join(path.parent().unwrap()).join(target).exists() {
                problems.push(format!("{}: nothing at `{target}`", path.display()));
            }
        }
    }
    none(&problems);
}

#[test]
fn every_decision_is_in_the_index() {
    let index = std::fs::read_to_string(root().join("docs/adr/README.md")).unwrap();
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(root().join("docs/adr")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name.starts_with("00") && !index.contains(&format!("({name})")) {
            problems.push(format!("docs/adr/README.md does not list {name}"));
        }
    }
    none(&problems);
}

#[test]
fn scripts_hold_no_path_of_one_machine() {
    let mut problems = Vec::new();
    for script in ["script/bootstrap", "script/server", "script/test", ".ci/run"] {
        let text = std::fs::read_to_string(root().join(script)).unwrap();
        for place in ["/home/", "/root/", "/work/", "/Users/"] {
            if text.contains(place) {
                problems.push(format!("{script} holds `{place}`"));
            }
        }
    }
    none(&problems);
}
