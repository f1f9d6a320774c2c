//! Whether the backups are as they should be.
//!
//! Each check compares what is there with what should be there, now; none remembers an event. So an alert
//! clears by itself once the thing is mended, and nobody has to confirm it.

mod checks;
mod disk;
mod holding;

use jiff::Timestamp;
use serde::Serialize;
use tenantry_db::AdminDb;
use tenantry_db::doctor::Outcome;
use tenantry_db::models::backups::{self, BackupCheck, BackupReport, ServerLog};
use tenantry_db::models::holding::Holding;

pub(crate) use self::disk::Disk;
use crate::backups::{Backup, Repository};
use crate::drill::Drilled;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::verify::Verified;
use crate::wal::SegmentName;
use crate::windows::Recoverable;

pub use checks::shown;

/// The check that there is only if the repository can't be read at all: what else is said of backups is not known
/// then.
pub const UNREADABLE: &str = "repository";

/// Everything that is known of the backups.
#[derive(Debug, Clone, Serialize)]
pub struct Examination {
    /// The backups, oldest first.
    pub backups: Vec<Backup>,
    /// Which moments can be recovered, and what is missing.
    #[serde(flatten)]
    pub recoverable: Recoverable,
    /// Whether all is well.
    #[serde(flatten)]
    pub report: BackupReport,
    /// Whether the log goes on without a gap from the newest backup on. Without a backup, it does not.
    #[serde(skip)]
    pub is_continuous: bool,
}

impl Examination {
    /// The worst that was found.
    pub fn worst(&self) -> Outcome {
        let outcomes = self.report.checks.iter().map(|check| check.outcome);
        outcomes.max().unwrap_or(Outcome::Ok)
    }

    /// Adds what was known before of where backups went.
    pub(crate) fn remember(&mut self, before: Option<Holding>) {
        let found = self.report.holding.take();
        self.report.holding = holding::after(found, &self.backups, before);
    }
}

/// What the checks compare.
struct Facts<'a> {
    now: Timestamp,
    settings: &'a Settings,
    repository: &'a Repository,
    recoverable: &'a Recoverable,
    /// The newest segment in the repository.
    arrived: Option<(SegmentName, Timestamp)>,
    server: std::result::Result<ServerLog, String>,
    repository_disk: Option<Disk>,
    wal_disk: Option<Disk>,
    verified: Option<Verified>,
    drilled: Option<Drilled>,
}

impl Engine {
    /// Looks at the repository, the server's log and the disks. Changes nothing.
    ///
    /// # Errors
    /// What keeps it from looking at all, as [`Error::MissingProgram`]. Whatever is wrong with the backups
    /// is in the answer.
    pub async fn examine(&self, admin: &AdminDb) -> Result<Examination> {
        // First the server: what it believes to be archived must be found in the repository afterwards.
        let server = backups::server_log(admin).await.map_err(|error| causes(&error));
        let (repository, unreadable) = match self.repository().await {
            Ok(repository) => (repository, None),
            Err(Error::NoStanza) => (Repository::empty(), None),
            Err(error @ (Error::Repository { .. } | Error::Engine { .. })) => {
                (Repository::empty(), Some(error))
            }
            Err(error) => return Err(error),
        };
        let archives = self.archives(&repository).await?;
        let recoverable = Recoverable::find(&repository.backups, &archives);
        let facts = Facts {
            now: Timestamp::now(),
            settings: self.settings(),
            repository: &repository,
            recoverable: &recoverable,
            arrived: archives.last().and_then(|(_, archive)| archive.newest()),
            server,
            repository_disk: self.repository_dir().and_then(|dir| Disk::of(&dir)),
            wal_disk: Disk::of(&self.settings().server.data_dir.join("pg_wal")),
            verified: self.last_verified(),
            drilled: self.last_drilled(),
        };
        let report = match &unreadable {
            Some(error) => facts.without_repository(error),
            None => BackupReport {
                checks: facts.checks(),
                numbers: facts.numbers(),
                holding: holding::of(facts.settings, &repository, &archives, facts.now),
            },
        };
        let is_continuous = facts.is_continuous();
        Ok(Examination { backups: repository.backups, recoverable, report, is_continuous })
    }
}

impl Facts<'_> {
    /// Where the repository can't be read, for this reason: that, and what is known without it. What earlier looks
    /// found wrong is no better for it.
    fn without_repository(&self, error: &Error) -> BackupReport {
        let unreadable = BackupCheck {
            name: UNREADABLE.to_owned(),
            outcome: Outcome::Failed,
            detail: error.to_string(),
            hint: error.hint(),
        };
        let mut checks = vec![unreadable];
        checks.extend(self.disks());
        checks.extend(self.verification());
        checks.extend(self.drill());
        let mut numbers = self.numbers();
        // Nobody knows: none is not nought.
        numbers.retain(|name, _| name != "count" && name != "gaps");
        numbers.insert("repository_readable".to_owned(), 0.0);
        BackupReport { checks, numbers, holding: None }
    }
}

/// The error and what is behind it.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
