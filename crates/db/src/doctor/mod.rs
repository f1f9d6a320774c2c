//! `tenantry doctor`: looks at every server and says what is not as it should be, and what to do.
//!
//! It changes nothing, needs no superuser, and goes on after a finding, so that one run shows all.

mod audit;
mod database;
mod grants;
mod kept_schemas;
mod pooler;
mod purges;
mod ready_pool;
mod roles;
mod shells;
mod slots;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::Error;
use crate::migrate::Migrations;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Works, but not as intended.
    Warning,
    /// Does not work, or is not safe.
    Failed,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    /// A check that found what it should.
    pub fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, detail: detail.into(), hint: None }
    }

    /// One that found something to be mended.
    pub fn warning(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warning, detail: detail.into(), hint: Some(hint.into()) }
    }

    /// One that found something broken or unsafe.
    pub fn failed(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Failed, detail: detail.into(), hint: Some(hint.into()) }
    }

    fn error(name: &'static str, error: &Error) -> Self {
        let mut detail = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            detail = format!("{detail}: {source}");
            cause = source.source();
        }
        let hint = match error {
            Error::Unavailable { .. } => {
                Some("start it, or correct its address in the configuration".to_owned())
            }
            _ if detail.contains("not allowed") => {
                Some("PgBouncer's `stats_users` must hold the login `…_stats`".to_owned())
            }
            _ if detail.contains("no such database") => Some(
                "PgBouncer's `[databases]` has no entry of the name that the URL ends with"
                    .to_owned(),
            ),
            _ => error.hint(),
        };
        Self { name, outcome: Outcome::Failed, detail, hint }
    }
}

/// Checks everything that can be checked.
pub async fn examine(config: &Config, migrations: &Migrations) -> Vec<Check> {
    let remarks = config.remarks();
    let mut checks = vec![if remarks.is_empty() {
        Check::ok("configuration", "complete")
    } else {
        Check::warning(
            "configuration",
            remarks.join("; "),
            "set what is missing in `tenantry.toml`",
        )
    }];
    checks.extend(database::checks(config, migrations).await);
    checks.extend(pooler::checks(config).await);
    checks
}
