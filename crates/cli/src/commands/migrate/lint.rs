//! `tenantry migrate lint`: what the migration files should not do, without a database.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, stdout};

use serde_json::json;
use tenantry_db::migrate::Migrations;
use tenantry_db::migrate::lint::{self, Finding, Severity};
use tenantry_db::{Config, Error};

use crate::args::{Common, MigrateLint};
use crate::exit::Exit;
use crate::{config_file, output};

pub(super) fn run(common: &Common, args: &MigrateLint) -> anyhow::Result<Exit> {
    // Without a configuration, the built-in files.
    let config = Config::from_layers(config_file::layers(common)?)?;
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    let files = file_count(&migrations);
    let findings = lint::lint(&migrations);
    let count = Count::of(&findings);
    let document = json!({
        "files": files,
        "errors": count.errors,
        "warnings": count.warnings,
        "allowed": count.allowed,
        "findings": findings,
    });
    let colours = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    output::data(common.output, &document, |_| text(&findings, files, Paint { colours }))?;
    let refused = count.errors > 0 || (args.deny_warnings && count.warnings > 0);
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

fn file_count(migrations: &Migrations) -> usize {
    [&migrations.public, &migrations.tenant]
        .into_iter()
        .map(|set| {
            let downs = set.migrations().iter().filter(|m| m.down.is_some()).count();
            set.migrations().len() + downs + set.repeatables().len()
        })
        .sum()
}

/// How many findings stand, and how many a file has a reason for.
struct Count {
    errors: usize,
    warnings: usize,
    allowed: usize,
}

impl Count {
    fn of(findings: &[Finding]) -> Self {
        let standing = |severity| {
            findings.iter().filter(|f| f.allowed.is_none() && f.severity == severity).count()
        };
        Self {
            errors: standing(Severity::Error),
            warnings: standing(Severity::Warning),
            allowed: findings.iter().filter(|f| f.allowed.is_some()).count(),
        }
    }
}

struct Paint {
    colours: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The findings file by file, and a line that sums up.
fn text(findings: &[Finding], files: usize, paint: Paint) -> String {
    let mut text = String::new();
    let mut former: Option<&str> = None;
    for finding in findings {
        if former.is_some_and(|former| former != finding.file) {
            text.push('\n');
        }
        former = Some(&finding.file);
        // Writing into a String can't fail.
        let _ = write_finding(&mut text, finding, &paint);
    }
    if !findings.is_empty() {
        text.push('\n');
    }
    let Count { errors, warnings, allowed } = Count::of(findings);
    text + &format!(
        "{} checked: {}, {}, {allowed} allowed\n",
        plural(files, "file"),
        plural(errors, "error"),
        plural(warnings, "warning")
    )
}

fn write_finding(text: &mut String, finding: &Finding, paint: &Paint) -> std::fmt::Result {
    let Finding { rule, severity, file, line, message, .. } = finding;
    let (colour, severity) = match (severity, &finding.allowed) {
        (_, Some(_)) => ("2", "allowed".to_owned()),
        (Severity::Error, None) => ("1;31", severity.to_string()),
        (Severity::Warning, None) => ("1;33", severity.to_string()),
    };
    let kind = paint.with(colour, &format!("{severity}[{rule}]"));
    writeln!(text, "{file}:{line}: {kind}: {message}")?;
    match &finding.allowed {
        Some(reason) => writeln!(text, "  reason: {reason}"),
        None => {
            writeln!(text, "  why: {}", finding.why)?;
            writeln!(text, "  safe way: {}", finding.safe_way)
        }
    }
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(
        file: &str,
        rule: &'static str,
        severity: Severity,
        allowed: Option<&str>,
    ) -> Finding {
        Finding {
            rule,
            severity,
            file: file.to_owned(),
            line: 7,
            message: "what is wrong".to_owned(),
            why: "why it is",
            safe_way: "what to write",
            allowed: allowed.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn findings_are_told_file_by_file() {
        let findings = [
            finding("a.sql", "drop-table", Severity::Error, None),
            finding("a.sql", "update-all", Severity::Warning, None),
            finding("b.sql", "drop-table", Severity::Error, Some("unused since May")),
        ];
        insta::assert_snapshot!(text(&findings, 3, Paint { colours: false }), @r"
        a.sql:7: error[drop-table]: what is wrong
          why: why it is
          safe way: what to write
        a.sql:7: warning[update-all]: what is wrong
          why: why it is
          safe way: what to write

        b.sql:7: allowed[drop-table]: what is wrong
          reason: unused since May

        3 files checked: 1 error, 1 warning, 1 allowed
        ");
        let painted = text(&findings, 3, Paint { colours: true });
        assert!(painted.contains("\x1b[1;31merror[drop-table]\x1b[0m"), "{painted}");
        assert_eq!(
            text(&[], 1, Paint { colours: false }),
            "1 file checked: 0 errors, 0 warnings, 0 allowed\n"
        );
    }
}
