//! What the lint says, and how it is collected.

use std::fmt;

use serde::Serialize;

use super::catalogue::Rule;
use super::file::File;

/// How much harm a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does harm: `migrate run` refuses.
    Error,
    /// It may do harm, depending on what the lint can't know.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Something that a migration file should not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's name, as `allow=` takes it.
    pub rule: &'static str,
    /// How much harm it means.
    pub severity: Severity,
    /// The file, as people find it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong here.
    pub message: String,
    /// Why that is harmful.
    pub why: &'static str,
    /// What to write instead.
    pub safe_way: &'static str,
    /// The reason that the file gives for an exception, if it has one.
    pub allowed: Option<String>,
}

impl Finding {
    /// Whether it is an error that no exception lifts.
    pub fn stands_as_error(&self) -> bool {
        self.severity == Severity::Error && self.allowed.is_none()
    }
}

/// `file`, line and rule, and what is wrong: one line, as errors are listed.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, severity, rule, message, .. } = self;
        write!(f, "`{file}`, line {line}: {severity}[{rule}]: {message}")
    }
}

/// The findings so far.
#[derive(Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// A finding of the rule's own severity, at a place in the file.
    pub(super) fn at(
        &mut self,
        file: &File<'_>,
        rule: &Rule,
        at: usize,
        message: impl Into<String>,
    ) {
        self.push(file, rule, rule.severity, file.source.line(at), message.into());
    }

    /// As [`Report::at`], where harm is possible and not certain.
    pub(super) fn warn(
        &mut self,
        file: &File<'_>,
        rule: &Rule,
        at: usize,
        message: impl Into<String>,
    ) {
        self.push(file, rule, Severity::Warning, file.source.line(at), message.into());
    }

    /// A finding about a line, or about a whole file.
    pub(super) fn line(
        &mut self,
        file: &File<'_>,
        rule: &Rule,
        line: usize,
        message: impl Into<String>,
    ) {
        self.push(file, rule, rule.severity, line, message.into());
    }

    /// One statement is told of a thing once a line.
    fn push(
        &mut self,
        file: &File<'_>,
        rule: &Rule,
        severity: Severity,
        line: usize,
        message: String,
    ) {
        let file = &file.script.file;
        let same = |f: &&Finding| f.rule == rule.name && f.line == line && f.file == *file;
        if self
            .findings
            .iter()
            .rev()
            .take_while(|f| f.file == *file)
            .any(|f| same(&f) && f.message == message)
        {
            return;
        }
        self.findings.push(Finding {
            rule: rule.name,
            severity,
            file: file.clone(),
            line,
            message,
            why: rule.why,
            safe_way: rule.safe_way,
            allowed: None,
        });
    }
}
