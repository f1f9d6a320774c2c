//! Every rule once where it speaks and where it nearly does.

mod change;
mod files;
mod robust;
mod shape;
mod wall;

use super::{Finding, lint};
use crate::migrate::source::assemble;
use crate::migrate::{Migrations, SetKind};

type Files<'a> = &'a [(&'a str, &'a str)];

fn owned(files: Files<'_>) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// The findings in two sets of files.
fn lint_files(public: Files<'_>, tenant: Files<'_>) -> Vec<Finding> {
    // Also what would be refused when the files are read.
    let mut problems = Vec::new();
    let public = assemble(SetKind::Public, "", owned(public), &mut problems);
    let tenant = assemble(SetKind::Tenant, "", owned(tenant), &mut problems);
    lint(&Migrations { public, tenant })
}

/// As a finding is told in these tables: `rule` for an error, `rule?` for a warning.
fn told(findings: &[Finding], file: &str) -> Vec<String> {
    let of_file = findings.iter().filter(|f| f.file.ends_with(file) && f.allowed.is_none());
    let told = of_file.map(|f| {
        let mark = if f.severity == super::Severity::Error { "" } else { "?" };
        format!("{}{mark}", f.rule)
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told.dedup();
    told
}

/// A table to change, and one of the public set.
const TABLES: &str = "CREATE TABLE notes (\
    id uuid PRIMARY KEY, tenant_id uuid NOT NULL DEFAULT this_tenant() CHECK (tenant_id = this_tenant()), \
    title varchar(100) NOT NULL, body text, author uuid, day date);\
    CREATE INDEX notes_author_idx ON notes (author);";
const PUBLIC: &str =
    "CREATE TABLE tenants (id uuid PRIMARY KEY); CREATE TABLE countries (code text PRIMARY KEY);";

/// What is found in a file that comes after one with [`TABLES`] or [`PUBLIC`], in the set.
fn in_set(set: SetKind, text: &str) -> Vec<String> {
    const DOWN: (&str, &str) = ("0003_it.down.sql", "SELECT 1");
    let base = [("0001_base.up.sql", PUBLIC), ("0001_base.down.sql", "SELECT 1")];
    let tables = [("0002_base.up.sql", TABLES), ("0002_base.down.sql", "SELECT 1")];
    let file = ("0003_it.up.sql", text);
    let findings = match set {
        SetKind::Public => lint_files(&[&base[..], &[file, DOWN]].concat(), &tables),
        SetKind::Tenant => lint_files(&base, &[&tables[..], &[file, DOWN]].concat()),
    };
    assert_eq!(told(&findings, "base.up.sql"), [""; 0], "{text}");
    told(&findings, "0003_it.up.sql")
}

/// Checks a table of `(text, rules)` in the tenant set.
fn check_tenant(cases: &[(&str, &[&str])]) {
    check(SetKind::Tenant, cases);
}

/// Checks a table of `(text, rules)` in a set.
fn check(set: SetKind, cases: &[(&str, &[&str])]) {
    let wrong: Vec<_> = cases
        .iter()
        .map(|(text, expected)| (text, expected, in_set(set, text)))
        .filter(|(_, expected, found)| *found != **expected)
        .collect();
    assert!(wrong.is_empty(), "text, expected, found: {wrong:#?}");
}
