//! What can be wrong with migrations.

use super::SetKind;
use super::lint::Finding;
use crate::error::ErrorKind;

/// What is wrong with migrations, their files or their ledger.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Files that can't be used; all of them are listed. Nothing was touched.
    #[error("{}", list(.problems))]
    Files {
        /// One sentence for each problem.
        problems: Vec<String>,
    },
    /// Files that would do harm. Nothing was touched.
    #[error("the lint refuses the migration files:\n  - {}", lines(.findings))]
    Lint {
        /// The errors that no exception lifts.
        findings: Vec<Finding>,
    },
    /// A file was changed after it had been applied.
    #[error("`{file}` was changed after it had been applied to `{schema}`")]
    Changed {
        /// The file.
        file: String,
        /// A schema that has the former content.
        schema: String,
    },
    /// The ledger knows a version that no file has.
    #[error(
        "version {version} (`{name}`) is applied to `{schema}`, but the {set} set has no such file"
    )]
    FileMissing {
        /// Which set.
        set: SetKind,
        /// The version.
        version: i64,
        /// The name it had.
        name: String,
        /// A schema that has it.
        schema: String,
    },
    /// A new file has a lower version than one that was applied already.
    #[error("`{file}` comes before version {head}, which is applied to `{schema}` already")]
    OutOfOrder {
        /// The file.
        file: String,
        /// The newest applied version.
        head: i64,
        /// The schema.
        schema: String,
    },
    /// A statement of a file failed. Nothing of the file was applied.
    #[error("`{file}`{} failed in `{schema}` ({sqlstate})", at(.line))]
    Failed {
        /// The file.
        file: String,
        /// The line that the server pointed to, if it did.
        line: Option<usize>,
        /// The schema.
        schema: String,
        /// PostgreSQL's error code.
        sqlstate: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
}

impl MigrationError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Files { .. } => ErrorKind::Invalid,
            Self::Lint { .. }
            | Self::Changed { .. }
            | Self::FileMissing { .. }
            | Self::OutOfOrder { .. } => ErrorKind::Refused,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Files { .. } => {
                "files are named like `0003_add_labels.up.sql` and `0003_add_labels.down.sql`"
            }
            Self::Lint { .. } => {
                "`tenantry migrate lint` says why, and what to write instead; `-- tenantry: allow=<rule> reason=\"…\"` in the file lifts most rules"
            }
            Self::Changed { .. } => {
                "put the file back as it was, and write the change as a new migration"
            }
            Self::FileMissing { .. } => {
                "is this program, or `migrations.dir`, older than the database? Use the version that applied it"
            }
            Self::OutOfOrder { .. } => "give the file a version above all applied ones",
            Self::Failed { .. } => "nothing of this file was applied: mend it, then run again",
        };
        Some(hint.to_owned())
    }
}

fn at(line: &Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line},"))
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  - ")
}

fn list(problems: &[String]) -> String {
    format!("the migration files can't be used:\n  - {}", problems.join("\n  - "))
}
