//! What can be wrong with migrations.

use serde::Serialize;

use super::SetKind;
use super::lint::Finding;
use crate::error::{ErrorKind, server_is_away};

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
    #[error("`{file}` was changed after it had been applied to {}", .schemas)]
    Changed {
        /// The file.
        file: String,
        /// Who has the former content.
        schemas: Schemas,
    },
    /// A file that runs outside a transaction was changed after some of its statements had run.
    #[error("`{file}` was changed after {done} of its statements had run in `{schema}`")]
    ChangedHalfway {
        /// The file.
        file: String,
        /// The schema.
        schema: String,
        /// How many statements had run.
        done: usize,
    },
    /// A file outside a transaction has run half way, and there is no way back from its middle.
    #[error(
        "version {version} has run half way in `{schema}`, and there is no way back from its middle"
    )]
    Halfway {
        /// The version.
        version: i64,
        /// The schema.
        schema: String,
    },
    /// A migration has no way back.
    #[error("`{file}` has no down file, so it can't be rolled back")]
    Irreversible {
        /// The up file.
        file: String,
    },
    /// More steps back than were ever made.
    #[error("{steps} steps can't be taken back: {applied} are applied")]
    TooFarBack {
        /// How many were asked for.
        steps: usize,
        /// How many there are.
        applied: usize,
    },
    /// A way back would drop what holds rows. Nothing was touched.
    #[error("rows would be lost:\n{}", list_losses(.losses))]
    DataLoss {
        /// What would be lost, and where.
        losses: Vec<Loss>,
    },
    /// Going back so far would drop the register of the tenants that exist.
    #[error("{tenants} tenants exist, and version {to} of the public set does not know them")]
    TenantsExist {
        /// How many.
        tenants: i64,
        /// The version asked for.
        to: i64,
    },
    /// The ledger knows a version that no file has.
    #[error(
        "version {version} (`{name}`) is applied to {schemas}, but the {set} set has no such file"
    )]
    FileMissing {
        /// Which set.
        set: SetKind,
        /// The version.
        version: i64,
        /// The name it had.
        name: String,
        /// Who has it.
        schemas: Schemas,
    },
    /// A new file has a lower version than one that was applied already.
    #[error("`{file}` comes before version {head}, which is applied to {schemas} already")]
    OutOfOrder {
        /// The file.
        file: String,
        /// The newest applied version.
        head: i64,
        /// Who has that version, and lacks this one.
        schemas: Schemas,
    },
    /// A statement of a file failed. Nothing of the file was applied; of one that runs outside a
    /// transaction, nothing from that statement on.
    #[error("`{file}`{} failed in `{schema}` ({sqlstate})", at(.line))]
    Failed {
        /// The file.
        file: String,
        /// The line that the server pointed to, if it did.
        line: Option<usize>,
        /// How the statement begins.
        statement: Option<String>,
        /// The schema.
        schema: String,
        /// PostgreSQL's error code.
        sqlstate: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
}

/// Some schemas, of which a few are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schemas {
    /// How many there are.
    pub count: i64,
    /// The first of them, as people know them: subdomains where there are any.
    pub named: Vec<String>,
}

impl Schemas {
    /// One schema.
    pub fn one(name: impl Into<String>) -> Self {
        Self { count: 1, named: vec![name.into()] }
    }
}

impl std::fmt::Display for Schemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.named.join("`, `"))?;
        match usize::try_from(self.count).unwrap_or_default().saturating_sub(self.named.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What a way back would lose in one schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The schema.
    pub schema: String,
    /// Its tenant's human name, if it has one.
    pub subdomain: Option<String>,
    /// The table.
    pub table: String,
    /// The column, if it is not the whole table.
    pub column: Option<String>,
    /// How many rows; absent where nobody counted.
    pub rows: Option<i64>,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = self.subdomain.as_deref().unwrap_or(&self.schema);
        write!(f, "{who}: `{}", self.table)?;
        if let Some(column) = &self.column {
            write!(f, ".{column}")?;
        }
        match self.rows {
            Some(1) => f.write_str("` holds 1 row"),
            Some(rows) => write!(f, "` holds {rows} rows"),
            None => f.write_str("` holds rows"),
        }
    }
}

fn list_losses(losses: &[Loss]) -> String {
    const LISTED: usize = 20;
    let mut lines: Vec<String> =
        losses.iter().take(LISTED).map(|loss| format!("  - {loss}")).collect();
    if losses.len() > LISTED {
        lines.push(format!("  - and {} more", losses.len() - LISTED));
    }
    lines.join("\n")
}

impl MigrationError {
    /// Rows were added between the look at the fleet and the way back of a tenant.
    pub(super) fn rows_came(schema: String, subdomain: Option<String>) -> Self {
        let (table, column) = ("a table that would be dropped".to_owned(), None);
        Self::DataLoss { losses: vec![Loss { schema, subdomain, table, column, rows: None }] }
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Files { .. } => ErrorKind::Invalid,
            Self::Lint { .. }
            | Self::Changed { .. }
            | Self::ChangedHalfway { .. }
            | Self::FileMissing { .. }
            | Self::OutOfOrder { .. }
            | Self::Halfway { .. }
            | Self::Irreversible { .. }
            | Self::DataLoss { .. }
            | Self::TooFarBack { .. }
            | Self::TenantsExist { .. } => ErrorKind::Refused,
            Self::Failed { source, .. } if server_is_away(source) => ErrorKind::Unavailable,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Files { problems }
                if problems.iter().any(|p| p.contains("is not named like")) =>
            {
                "files are named like `0003_add_labels.up.sql` and `0003_add_labels.down.sql`"
            }
            Self::Files { .. } => {
                "mend them; `tenantry migrate lint` looks at them without a database"
            }
            Self::Lint { .. } => {
                "`tenantry migrate lint` says why, and what to write instead; `-- tenantry: allow=<rule> reason=\"…\"` in the file lifts most rules"
            }
            Self::Changed { .. } => {
                "put the file back as it was, and write the change as a new migration; if the schemas are \
                 right as they are, `tenantry migrate run --repair` records the file as it is now"
            }
            Self::ChangedHalfway { .. } => {
                "put the file back as it was, run again, and write the change as a new migration"
            }
            Self::Halfway { .. } => {
                "mend what it failed at, and `tenantry migrate run` goes on there; or undo its statements by hand, \
                 and delete the schema's row in `public.migration_progress`"
            }
            Self::Irreversible { .. } => {
                "write a new migration that undoes it, or add the down file"
            }
            Self::DataLoss { .. } => {
                "take a backup, or export what is needed, then give `--accept-data-loss`"
            }
            Self::TooFarBack { .. } => "`tenantry migrate status` shows what is applied",
            Self::TenantsExist { .. } => "purge the tenants first",
            Self::FileMissing { .. } => {
                "is this program, or `migrations.dir`, older than the database? Use the version that applied it"
            }
            Self::OutOfOrder { .. } => "give the file a version above all applied ones",
            Self::Failed { .. } => {
                "nothing of this file was applied, or, outside a transaction, nothing from this statement \
                 on: mend it, then run again"
            }
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
