//! The backups at a glance, for `doctor` and `status`: what whoever makes them last stored in the database.
//!
//! Refuses to look at the repository itself: that takes longer, and only the database's host can.
//! `tenantry backup list` does.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tenantry_backup::Settings;
use tenantry_backup::health::{UNREADABLE, shown};
use tenantry_db::doctor::{Check, Outcome};
use tenantry_db::models::backups::{BackupCheck, StoredReport, find_report};
use tenantry_db::{Config, ReaderDb};

use super::damage_is_known;

/// The timers of `deploy/systemd/` look each quarter of an hour.
const STALE_AFTER: Duration = Duration::from_secs(45 * 60);

/// What is known of the backups.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(in crate::commands) struct Glance {
    /// Whether the installation has any, by its configuration.
    pub(in crate::commands) configured: bool,
    /// When the newest one was complete.
    newest_at: Option<Timestamp>,
    /// Every moment between these two can be recovered.
    recoverable_from: Option<Timestamp>,
    recoverable_to: Option<Timestamp>,
    /// When a backup was restored last, to try it, and whether it held.
    drilled_at: Option<Timestamp>,
    drill_held: Option<bool>,
    /// How long ago all of this was looked at.
    looked_ago_s: Option<u64>,
    /// Nobody has looked for longer than somebody should have.
    stale: bool,
    /// What is not as it should be.
    problems: Vec<BackupCheck>,
    /// Why nothing is known.
    unknown: Option<String>,
}

impl Glance {
    /// Asks the database, if there are backups.
    pub(in crate::commands) async fn take(config: &Config) -> Self {
        let settings = match Settings::from_config(config) {
            Ok(settings) => settings,
            Err(error) => {
                let unknown = Some(format!("{:#}", anyhow::Error::from(error)));
                return Self { configured: true, unknown, ..Self::default() };
            }
        };
        if !settings.enabled {
            return Self::default();
        }
        let found = async { find_report(&ReaderDb::new(config)?).await }.await;
        let known = match found {
            Ok(Some(report)) => Self::of(report, settings.check_every),
            Ok(None) => Self {
                unknown: Some("nobody has looked at them yet".to_owned()),
                ..Self::default()
            },
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                Self {
                    unknown: Some(format!("the report can't be read: {error}")),
                    ..Self::default()
                }
            }
        };
        Self { configured: true, ..known }
    }

    fn of(StoredReport { age, report }: StoredReport, check_every: Duration) -> Self {
        let number = |name: &str| report.numbers.get(name).copied();
        #[expect(clippy::cast_possible_truncation, reason = "seconds of this age")]
        let at = |name| Timestamp::from_second(number(name)? as i64).ok();
        let mut problems = report.checks.clone();
        problems.retain(|check| check.outcome != Outcome::Ok);
        Self {
            configured: true,
            newest_at: at("newest_timestamp_seconds"),
            recoverable_from: at("window_begin_timestamp_seconds"),
            recoverable_to: at("window_end_timestamp_seconds"),
            drilled_at: at("drill_timestamp_seconds"),
            drill_held: number("drill_ok").map(|held| held > 0.5),
            looked_ago_s: Some(age.as_secs()),
            stale: age > STALE_AFTER.max(check_every * 3),
            problems,
            unknown: None,
        }
    }

    /// In a line.
    fn says(&self, now: Timestamp) -> String {
        if !self.configured {
            return "not configured: nothing here is backed up by this program".to_owned();
        }
        if let Some(unknown) = &self.unknown {
            return unknown.clone();
        }
        // A clock that is behind has not seen it yet.
        let ago = |at: Timestamp| shown(now.duration_since(at).max(SignedDuration::ZERO));
        let mut said = vec![match self.newest_at {
            Some(at) => format!("the newest is {} old", ago(at)),
            None if self.is_unreadable() => "the repository can't be read".to_owned(),
            None => "there is no backup yet".to_owned(),
        }];
        if let Some((from, to)) = self.recoverable_from.zip(self.recoverable_to) {
            let but =
                if damage_is_known(&self.problems) { " unless its files are damaged" } else { "" };
            said.push(format!("every moment from {from:.0} to {to:.0} can be recovered{but}"));
        }
        said.push(match (self.drilled_at, self.drill_held) {
            (Some(at), Some(true)) => format!("a drill held {} ago", ago(at)),
            (Some(at), _) => format!("a drill FAILED {} ago", ago(at)),
            (None, _) => "no drill was held yet".to_owned(),
        });
        said.join("; ")
    }

    fn is_unreadable(&self) -> bool {
        self.problems.iter().any(|check| check.name == UNREADABLE)
    }

    /// Nothing is wrong but that the first one is still to be made.
    fn is_new(&self) -> bool {
        let is_alarm =
            |check: &BackupCheck| check.outcome == Outcome::Failed && check.name != "backup_age";
        self.newest_at.is_none() && !self.problems.iter().any(is_alarm)
    }

    /// As one of `doctor`'s checks.
    pub(in crate::commands) fn check(&self, now: Timestamp) -> Check {
        const NAME: &str = "backups";
        let says = self.says(now);
        if !self.configured {
            let hint = "`tenantry up` makes them unless it is given `--no-backup`; elsewhere set \
                        `backup.enabled`, docs/concepts/backups.md";
            return Check::warning(NAME, says, hint);
        }
        if self.unknown.is_some() {
            let hint = "a service with `backup.local`, or the timers of deploy/systemd/, look on the database's host; \
                        so does `tenantry backup check` there";
            return Check::warning(NAME, says, hint);
        }
        if self.stale {
            let ago = shown(SignedDuration::from_secs(
                self.looked_ago_s.and_then(|s| i64::try_from(s).ok()).unwrap_or(i64::MAX),
            ));
            let hint = "does the service with `backup.local`, or the timer of deploy/systemd/, run on the database's host?";
            return Check::failed(NAME, format!("nobody has looked for {ago}; then, {says}"), hint);
        }
        if self.is_new() {
            let hint = "whoever makes them makes the first one at once; `tenantry backup run` says what stands against it";
            return Check::warning(NAME, says, hint);
        }
        // Of several alike the first one counts.
        let Some(worst) = self.problems.iter().rev().max_by_key(|check| check.outcome) else {
            return Check::ok(NAME, says);
        };
        let found: Vec<String> = self.problems.iter().map(named).collect();
        let detail = format!("{}; {says}", found.join("; "));
        let hint = worst.hint.clone();
        let hint = hint.unwrap_or_else(|| "`tenantry backup list` shows all of it".to_owned());
        match worst.outcome {
            Outcome::Failed => Check::failed(NAME, detail, hint),
            Outcome::Warning | Outcome::Ok => Check::warning(NAME, detail, hint),
        }
    }

    /// For `status`, in lines.
    pub(in crate::commands) fn text(&self, now: Timestamp) -> String {
        let mut text = format!("backups: {}\n", self.says(now));
        if self.stale {
            text += "  nobody has looked lately: `tenantry doctor`\n";
        }
        for problem in &self.problems {
            let sign = if problem.outcome == Outcome::Failed { "FAILED" } else { "warning" };
            text += &format!("  {sign}: {}\n", named(problem));
        }
        text
    }
}

fn named(check: &BackupCheck) -> String {
    format!("{}: {}", check.name, super::first_line(&check.detail))
}

#[cfg(test)]
mod tests {
    use tenantry_db::models::backups::BackupReport;

    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW_S).unwrap()
    }

    /// Looked at so many minutes ago, with a finding of this outcome.
    fn glance(minutes: u64, outcome: Outcome) -> Glance {
        let found = BackupCheck {
            name: "archiver".to_owned(),
            outcome,
            detail: "nothing was archived for 3 h".to_owned(),
            hint: Some("look there".to_owned()),
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds of this age")]
        let ago = |hours: i64| (NOW_S - hours * 3600) as f64;
        let numbers = [
            ("newest_timestamp_seconds", ago(3)),
            ("window_begin_timestamp_seconds", ago(240)),
            ("window_end_timestamp_seconds", ago(0)),
            ("drill_timestamp_seconds", ago(10)),
            ("drill_ok", 1.0),
        ];
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number)).into();
        let report = BackupReport { checks: vec![found], numbers, holding: None };
        let age = Duration::from_secs(minutes * 60);
        Glance::of(StoredReport { age, report }, Duration::from_secs(300))
    }

    #[test]
    fn what_there_is_is_said_in_a_line() {
        let check = glance(1, Outcome::Ok).check(now());
        assert_eq!(
            (check.outcome, check.detail.as_str()),
            (
                Outcome::Ok,
                "the newest is 3 h old; every moment from 2027-01-05T08:00:00Z to 2027-01-15T08:00:00Z can be \
                 recovered; a drill held 10 h ago"
            )
        );
    }

    #[test]
    fn an_alarm_is_one_of_doctor_and_so_is_that_nobody_looks() {
        let check = glance(1, Outcome::Failed).check(now());
        assert_eq!((check.outcome, check.hint.as_deref()), (Outcome::Failed, Some("look there")));
        assert!(check.detail.starts_with("archiver: nothing was archived for 3 h; "), "{check:?}");
        assert!(glance(1, Outcome::Failed).text(now()).contains("\n  FAILED: archiver: "));
        assert_eq!(glance(1, Outcome::Warning).check(now()).outcome, Outcome::Warning);
        let check = glance(60, Outcome::Ok).check(now());
        assert_eq!(check.outcome, Outcome::Failed);
        assert!(check.detail.starts_with("nobody has looked for 60 min"), "{check:?}");
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_an_alarm_and_not_an_empty_one() {
        let check = |name: &str, detail: &str, hint: &str| BackupCheck {
            name: name.to_owned(),
            outcome: Outcome::Failed,
            detail: detail.to_owned(),
            hint: Some(hint.to_owned()),
        };
        let mut found = glance(1, Outcome::Ok);
        found.newest_at = None;
        (found.recoverable_from, found.recoverable_to) = (None, None);
        found.problems = vec![
            check(
                "repository",
                "the repository can't be used: x\n[FormatError] on retry",
                "mend it",
            ),
            check("verify", "damaged", "look at the disk"),
        ];
        let said = found.check(now());
        assert_eq!((said.outcome, said.hint.as_deref()), (Outcome::Failed, Some("mend it")));
        assert_eq!(
            said.detail,
            "repository: the repository can't be used: x; verify: damaged; the repository can't be read; a drill \
             held 10 h ago"
        );
        let status = found.text(now());
        assert!(status.starts_with("backups: the repository can't be read; "), "{status}");
        assert!(!status.contains("on retry"), "{status}");
        // An alarm is one, too, before the first backup; that there is none yet, is not.
        found.problems = vec![check("backup_age", "there is no backup", "make one")];
        assert_eq!(found.check(now()).outcome, Outcome::Warning);
        found.problems.push(check("verify", "damaged", "look"));
        assert_eq!(found.check(now()).outcome, Outcome::Failed);
    }

    #[test]
    fn a_failed_drill_and_none_and_no_backups_are_said() {
        let mut found = glance(1, Outcome::Ok);
        found.drill_held = Some(false);
        assert!(found.text(now()).contains("a drill FAILED 10 h ago"));
        found.drilled_at = None;
        assert!(found.text(now()).contains("no drill was held yet"));
        found.newest_at = None;
        assert_eq!(found.check(now()).outcome, Outcome::Warning);
        let none = Glance::default();
        assert_eq!(none.check(now()).outcome, Outcome::Warning);
        assert!(none.text(now()).starts_with("backups: not configured"));
    }
}
