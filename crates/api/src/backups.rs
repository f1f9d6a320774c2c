//! How the backups are, as the service sees it: from the report that whoever runs on the database's host
//! stores, and from how old that is.
//!
//! A service with bad backups serves as before, so nothing here makes it unready. It warns, at
//! `/health/ready` and in its numbers.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tenantry_db::models::backups::{StoredReport, find_report};
use tenantry_db::{Installation, doctor::Outcome};

use crate::metrics::Metrics;
use crate::problem::FieldError;

/// How often the report is read.
const READ_EVERY: Duration = Duration::from_secs(30);
/// The timers of `deploy/systemd/` look each quarter of an hour.
const STALE_AFTER: Duration = Duration::from_secs(45 * 60);
/// Numbers that a report may have; more are not taken over.
const MAX_NUMBERS: usize = 64;

/// What is known of the backups, if there are any.
#[derive(Debug)]
pub(crate) struct Backups {
    stale_after: Option<Duration>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// With the moment when it was read.
    report: Option<(Instant, StoredReport)>,
    since: Instant,
    numbers: BTreeSet<String>,
}

impl Backups {
    /// `check_every` is None where the installation has no backups.
    pub(crate) fn new(check_every: Option<Duration>) -> Self {
        let seen = Seen { report: None, since: Instant::now(), numbers: BTreeSet::new() };
        let stale_after = check_every.map(|every| STALE_AFTER.max(every * 3));
        Self { stale_after, seen: Mutex::new(seen) }
    }

    /// Reads the report again and again, without end.
    pub(crate) async fn follow(&self, installation: &Installation, metrics: &Metrics) {
        if self.stale_after.is_none() {
            return std::future::pending().await;
        }
        loop {
            match find_report(installation.reader()).await {
                Ok(report) => self.seen().report = report.map(|report| (Instant::now(), report)),
                // That the database is away is said elsewhere.
                Err(error) => tracing::debug!(%error, "can't read the report on the backups"),
            }
            self.count(metrics);
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    /// What is not as it should be, by the check's name.
    pub(crate) fn warnings(&self) -> Vec<FieldError> {
        let Some(stale_after) = self.stale_after else { return Vec::new() };
        let seen = self.seen();
        let stale =
            |message: String| vec![FieldError { field: "backup_report".to_owned(), message }];
        let Some((read_at, stored)) = &seen.report else {
            // Somebody who started just now has not looked yet.
            let is_late = seen.since.elapsed() > stale_after;
            return if is_late {
                stale("nobody looks after the backups".to_owned())
            } else {
                Vec::new()
            };
        };
        let age = stored.age + read_at.elapsed();
        if age > stale_after {
            let minutes = age.as_secs() / 60;
            return stale(format!("nobody has looked at the backups for {minutes} minutes"));
        }
        let bad = stored.report.checks.iter().filter(|check| check.outcome != Outcome::Ok);
        let warning = |check: &tenantry_db::models::backups::BackupCheck| FieldError {
            field: check.name.clone(),
            message: format!("{}: see `tenantry backup list`", word(check.outcome)),
        };
        bad.map(warning).collect()
    }

    fn count(&self, metrics: &Metrics) {
        let mut seen = self.seen();
        let mut gone = std::mem::take(&mut seen.numbers);
        let mut current = BTreeSet::new();
        if let Some((read_at, stored)) = &seen.report {
            let age = stored.age + read_at.elapsed();
            metrics.backup_number("report_age_seconds", age.as_secs_f64());
            let plain = |name: &String| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let numbers = stored.report.numbers.iter().filter(|(name, _)| plain(name));
            for (name, number) in numbers.take(MAX_NUMBERS) {
                metrics.backup_number(name, *number);
                gone.remove(name);
                current.insert(name.clone());
            }
            for check in stored.report.checks.iter().take(MAX_NUMBERS) {
                metrics.backup_check(&check.name, check.outcome);
            }
        }
        // A number that nobody knows any more is not what it was.
        gone.iter().for_each(|name| metrics.backup_number(name, f64::NAN));
        seen.numbers = current;
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "well",
        Outcome::Warning => "not as it should be",
        Outcome::Failed => "an alarm",
    }
}

#[cfg(test)]
mod tests {
    use tenantry_db::models::backups::{BackupCheck, BackupReport};

    use super::*;

    fn with_report(age: Duration, outcome: Outcome) -> Backups {
        let backups = Backups::new(Some(Duration::from_secs(300)));
        let check = BackupCheck {
            name: "archiver".to_owned(),
            outcome,
            detail: "a name, a path".to_owned(),
            hint: None,
        };
        let report = BackupReport { checks: vec![check], ..BackupReport::default() };
        backups.seen().report = Some((Instant::now(), StoredReport { age, report }));
        backups
    }

    fn fields(backups: &Backups) -> Vec<String> {
        backups.warnings().into_iter().map(|warning| warning.field).collect()
    }

    #[test]
    fn bad_checks_are_warned_of_and_details_are_not_told() {
        let minute = Duration::from_secs(60);
        assert!(fields(&with_report(minute, Outcome::Ok)).is_empty());
        let backups = with_report(minute, Outcome::Failed);
        assert_eq!(fields(&backups), ["archiver"]);
        assert!(!backups.warnings()[0].message.contains("path"), "anybody may ask");
    }

    #[test]
    fn an_old_report_is_a_warning_whatever_it_says() {
        let backups = with_report(STALE_AFTER * 2, Outcome::Ok);
        assert_eq!(fields(&backups), ["backup_report"]);
        let backups = Backups::new(Some(Duration::from_secs(300)));
        assert!(fields(&backups).is_empty(), "it may come yet");
        assert!(fields(&Backups::new(None)).is_empty());
    }
}
