//! Exceptions: which findings a file's own `allow=` lifts, and which exceptions are none.

use super::catalogue::{self, FIXED_RULE, UNKNOWN_RULE, UNUSED_ALLOW};
use super::file::File;
use super::finding::Report;

/// Marks what the file's exceptions lift.
pub(super) fn apply(file: &File<'_>, report: &mut Report) {
    for allow in &file.script.options.allow {
        let (line, name) = (allow.line, allow.rule.as_str());
        let Some(rule) = catalogue::find(name) else {
            let nearest = nearest(name);
            report.line(file, UNKNOWN_RULE, line, format!("there is no rule `{name}`{nearest}"));
            continue;
        };
        if !rule.liftable {
            report.line(file, FIXED_RULE, line, format!("`{name}` can't be lifted"));
            continue;
        }
        let mut lifted = false;
        for finding in &mut report.findings {
            if finding.rule == rule.name && finding.file == file.script.file {
                lifted = true;
                finding.allowed.get_or_insert_with(|| allow.reason.clone());
            }
        }
        if !lifted {
            report.line(file, UNUSED_ALLOW, line, format!("`{name}` finds nothing in this file"));
        }
    }
}

fn nearest(name: &str) -> String {
    let near = catalogue::all().map(|rule| (strsim::levenshtein(name, rule.name), rule.name));
    near.filter(|(distance, _)| *distance <= 3)
        .min()
        .map_or_else(String::new, |(_, rule)| format!(", but `{rule}`"))
}
