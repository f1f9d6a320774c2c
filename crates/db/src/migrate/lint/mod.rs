//! The lint: what a migration file should not do, seen before it runs. Pure: text in, findings out.
//!
//! One file runs for thousands of tenants, as the owner of all their schemas. So the rules ask more
//! than whether PostgreSQL would take it: that a file stays inside the schema (`rights`, `names`),
//! leaves nothing behind on the session (`session`), keeps running services alive (`locks`,
//! `destructive`) and makes tables of the shape that the rest relies on (`shape`).
//!
//! A finding is an error where harm is certain; `migrate run` refuses those. A file may break most
//! rules with `-- tenantry: allow=<rule> reason="…"`; the finding is kept, with its reason.

mod allow;
mod catalogue;
mod destructive;
mod file;
mod finding;
mod locks;
mod names;
mod rights;
mod session;
mod shape;
mod source;
mod tables;
#[cfg(test)]
mod tests;
mod tree;
mod words;

pub use finding::{Finding, Severity};

use super::{MigrationError, Migrations};
use file::{Direction, File};
use finding::Report;
use tables::{Made, Tables};

/// The parser descends by recursion. What is not touched costs nothing.
const STACK_BYTES: usize = 256 << 20;

/// Looks at all files of both sets.
///
/// In the order of sets (public first), files and lines.
pub fn lint(migrations: &Migrations) -> Vec<Finding> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("lint".to_owned()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, || lint_sets(migrations)) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No thread to be had: then with the stack that there is.
            Err(_) => lint_sets(migrations),
        }
    })
}

/// Refuses files in which an error stands.
///
/// # Errors
/// [`MigrationError::Lint`] with these findings.
pub fn refuse_errors(findings: &[Finding]) -> Result<(), MigrationError> {
    let errors: Vec<_> = findings.iter().filter(|f| f.stands_as_error()).cloned().collect();
    if errors.is_empty() { Ok(()) } else { Err(MigrationError::Lint { findings: errors }) }
}

/// The names of all rules, as `allow=` takes them.
pub fn rule_names() -> impl Iterator<Item = &'static str> {
    catalogue::all().map(|rule| rule.name)
}

fn lint_sets(migrations: &Migrations) -> Vec<Finding> {
    let public = File::of_set(&migrations.public);
    let tenant = File::of_set(&migrations.tenant);
    let (public_tables, tenant_tables) = (Tables::of(&public), Tables::of(&tenant));
    let mut report = Report::default();
    for (files, own) in [(&public, &public_tables), (&tenant, &tenant_tables)] {
        lint_set(files, own, &public_tables, &tenant_tables, &mut report);
    }
    names::shadowed(&public, &public_tables, &tenant_tables, &mut report);
    for files in [&public, &tenant] {
        for file in files {
            allow::apply(file, &mut report);
        }
    }
    let order: Vec<&str> = public.iter().chain(&tenant).map(|f| f.script.file.as_str()).collect();
    let place = |finding: &Finding| order.iter().position(|file| *file == finding.file);
    report.findings.sort_by_cached_key(|f| (place(f), f.line, f.rule, f.message.clone()));
    report.findings
}

fn lint_set(
    files: &[File<'_>],
    own: &Tables,
    public: &Tables,
    tenant: &Tables,
    report: &mut Report,
) {
    let mut before = Tables::default();
    let (mut made, nothing) = (Made::default(), Made::default());
    for (index, file) in files.iter().enumerate() {
        for (at, message) in &file.tree.syntax_errors {
            report.at(file, catalogue::SYNTAX_ERROR, *at, message.as_str());
        }
        session::check(file, report);
        rights::check(file, report);
        names::check(file, public, tenant, report);
        locks::check(file, &before, report);
        shape::check_file(file, public, own, report);
        // A down file stands behind its up file.
        let taken_back = if file.direction == Direction::Down { &made } else { &nothing };
        destructive::check(file, &before, taken_back, report);
        if file.direction == Direction::Up {
            missing_down(file, files.get(index + 1), report);
            made = Made::by(file, &before);
        }
        if file.direction != Direction::Down {
            before.apply_file(index, file);
        }
    }
    shape::check_tables(files, own, report);
}

fn missing_down(file: &File<'_>, next: Option<&File<'_>>, report: &mut Report) {
    let down = next.is_some_and(|next| next.direction == Direction::Down);
    if !down && !file.script.options.irreversible {
        report.line(file, catalogue::MISSING_DOWN, 1, "there is no down file beside it");
    }
}
