//! The alert rules of `deploy/prometheus/`: each can be read, and asks for numbers that the service has.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;
use tenantry_testing::temp_dir;
use yaml_rust2::{Yaml, YamlLoader};

use crate::program::run;
use crate::up::{Up, free_ports};

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// The rules of all groups, each complete.
fn rules() -> Vec<Yaml> {
    let documents = YamlLoader::load_from_str(&file("deploy/prometheus/backup.rules.yml")).unwrap();
    let [document] = &*documents else { panic!("one document") };
    let groups = document["groups"].as_vec().unwrap();
    let rules: Vec<Yaml> =
        groups.iter().flat_map(|group| group["rules"].as_vec().unwrap().clone()).collect();
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "{name} stands twice");
        let keys = ["alert", "expr", "for", "labels", "annotations"];
        let known = |key: &Yaml| keys.contains(&key.as_str().unwrap());
        assert!(rule.as_hash().unwrap().keys().all(known), "{name}");
        let pause = rule["for"].as_str().unwrap();
        let (number, unit) = pause.split_at(pause.len() - 1);
        assert!(number.parse::<u32>().is_ok() && "smhd".contains(unit), "{name}: {pause}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{name}");
        let summary = rule["annotations"]["summary"].as_str().unwrap();
        assert_eq!(summary.matches("{{").count(), summary.matches("}}").count(), "{name}");
        balanced(rule["expr"].as_str().unwrap());
    }
    rules
}

/// Brackets and quotes fit.
fn balanced(expr: &str) {
    let mut open = Vec::new();
    for (n, piece) in expr.split('"').enumerate() {
        // What stands between quotes is text.
        for c in piece.chars().filter(|_| n % 2 == 0) {
            match c {
                '(' => open.push(')'),
                '{' => open.push('}'),
                '[' => open.push(']'),
                ')' | '}' | ']' => assert_eq!(open.pop(), Some(c), "{expr}"),
                _ => {}
            }
        }
    }
    assert!(open.is_empty() && expr.matches('"').count().is_multiple_of(2), "{expr}");
}

/// The words of a text that begin so.
fn words(text: &str, beginning: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with(beginning)).map(str::to_owned).collect()
}

fn metrics(port: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn each_alert_asks_for_numbers_that_the_service_has_and_each_number_is_explained() {
    let asked: BTreeSet<String> = rules()
        .iter()
        .flat_map(|rule| words(rule["expr"].as_str().unwrap(), "tenantry_"))
        .collect();
    assert!(asked.len() > 4, "{asked:?}");
    let dir = temp_dir().unwrap();
    let up = Up::start(dir.path(), free_ports(), &["--no-replica"]);
    // The service makes the first one by itself; whoever comes meanwhile is told so.
    let drilled = (0..120).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(500));
        run(dir.path(), &["backup", "drill"]).code == 0
    });
    assert!(drilled, "{}", run(dir.path(), &["backup", "drill"]).stderr);
    let checked = run(dir.path(), &["backup", "check", "--verify"]);
    assert!(checked.stdout.contains("verify"), "{}", checked.stderr);
    // It reads what was stored each half minute.
    let mut found = BTreeSet::new();
    for _ in 0..180 {
        found = words(&metrics(&up.ports[3]), "tenantry_backup_");
        if found.is_superset(&asked) && found.contains("tenantry_backup_verified_timestamp_seconds")
        {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(500));
    }
    let missing: Vec<&String> = asked.difference(&found).collect();
    assert!(missing.is_empty(), "the service has no {missing:?}: {found:?}");
    let explained = file("docs/concepts/backups.md");
    for number in &found {
        let short = number.replacen("tenantry_backup_", "…_", 1);
        let is = explained.contains(&format!("`{short}`")) || explained.contains(number);
        assert!(is, "docs/concepts/backups.md does not name `{number}`");
    }
    up.signal(Signal::INT);
    assert_eq!(up.wait().code, 0);
}
