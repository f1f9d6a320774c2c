//! The checks themselves, each one comparison of facts.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tenantry_db::doctor::Outcome;
use tenantry_db::models::backups::{BackupCheck, ServerLog};

use super::{Disk, Facts};
use crate::backups::{Backup, BackupKind};
use crate::settings::signed;
use crate::wal::SegmentName;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// The server tries again after a minute at the latest; longer is no hiccup.
const ARCHIVING_FAILS_FOR: SignedDuration = SignedDuration::from_mins(10);
/// More segments than this waiting are a queue.
const WAITING: i64 = 8;
const REPOSITORY_ROOM: &str =
    "make room, or shorten `backup.retention`; see docs/runbooks/full-disk.md";
const WAL_ROOM: &str = "make room, but not in `pg_wal`; see docs/runbooks/full-disk.md";

impl Facts<'_> {
    pub(super) fn checks(&self) -> Vec<BackupCheck> {
        let mut checks = vec![self.age(), self.continuity(), self.archiver(), self.retention()];
        checks.extend(self.disks());
        checks.extend(self.verification());
        checks.extend(self.drill());
        checks
    }

    pub(super) fn disks(&self) -> impl Iterator<Item = BackupCheck> {
        let repository = self.space(
            "repository_space",
            "the repository's disk",
            self.repository_disk,
            REPOSITORY_ROOM,
        );
        let wal = self.space("wal_space", "the disk of the server's log", self.wal_disk, WAL_ROOM);
        repository.into_iter().chain(wal)
    }

    fn newest(&self) -> Option<&Backup> {
        self.repository.newest()
    }

    fn age(&self) -> BackupCheck {
        const NAME: &str = "backup_age";
        const HINT: &str = "`tenantry backup run` says what stands against a new one";
        let Some(newest) = self.newest() else {
            return failed(NAME, "there is no backup", "`tenantry backup run` makes one");
        };
        let age = self.now.duration_since(newest.stopped_at);
        let interval = self.settings.interval();
        let found = format!("the newest backup is {} old", shown(age));
        if newest.damaged {
            let found =
                format!("the newest backup, `{}`, has pages with wrong checksums", newest.label);
            return failed(
                NAME,
                found,
                "the server's disk is damaged: see docs/runbooks/lost-server.md",
            );
        }
        if age > interval * 2 + HOUR {
            failed(NAME, found, HINT)
        } else if age > interval + (interval / 4).max(HOUR) {
            warning(NAME, found, HINT)
        } else {
            ok(NAME, found)
        }
    }

    /// Whether everything since the newest backup can be recovered.
    pub(super) fn is_continuous(&self) -> bool {
        let (Some(newest), Some((arrived, _))) = (self.newest(), self.arrived) else {
            return false;
        };
        let windows = &self.recoverable.windows;
        windows.iter().any(|it| it.last_segment == arrived && it.backups.contains(&newest.label))
    }

    fn continuity(&self) -> BackupCheck {
        const NAME: &str = "continuity";
        let recoverable = self.recoverable;
        if self.newest().is_none() {
            return ok(NAME, "there is no backup to begin with");
        }
        let gaps: Vec<String> = recoverable
            .gaps
            .iter()
            .map(|gap| {
                format!(
                    "{} segments from `{}` on ({} to {})",
                    gap.segments, gap.first, gap.after, gap.before
                )
            })
            .collect();
        if !self.is_continuous() {
            let missing = if gaps.is_empty() { "its own log".to_owned() } else { gaps.join("; ") };
            return failed(
                NAME,
                format!(
                    "since the newest backup not every moment can be recovered: {missing} missing"
                ),
                "a new full backup begins a new window: `tenantry backup run --type full`",
            );
        }
        let broken = &recoverable.broken_backups;
        if gaps.is_empty() && broken.is_empty() {
            let from = recoverable.windows.first().map_or(self.now, |window| window.from);
            return ok(NAME, format!("every moment since {from}"));
        }
        let mut found = Vec::new();
        if !gaps.is_empty() {
            found.push(format!("missing: {}", gaps.join("; ")));
        }
        if !broken.is_empty() {
            found.push(format!("worthless without their log: {}", broken.join(", ")));
        }
        let hint = "what lies in between can't be recovered; it goes with the retention";
        warning(NAME, found.join("; "), hint)
    }

    fn archiver(&self) -> BackupCheck {
        const NAME: &str = "archiver";
        const HINT: &str =
            "the server's log has the lines of `archive_command`; it is tried again each minute";
        let server = match &self.server {
            Ok(server) => server,
            Err(error) => {
                return failed(NAME, format!("the server can't be asked: {error}"), "start it");
            }
        };
        if server.in_recovery {
            return warning(
                NAME,
                "the server is a replica, and archives nothing",
                "`database.direct_url` must lead to the primary",
            );
        }
        if !server.archives {
            let hint = "`tenantry backup check` prints the settings that the server needs";
            return failed(NAME, "the server does not archive its log", hint);
        }
        if let Some(lost) = self.believed_and_not_there(server) {
            return failed(
                NAME,
                format!(
                    "the server believes `{lost}` to be archived, and the repository does not have it"
                ),
                "is `archive_command` the one that `tenantry backup check` prints?",
            );
        }
        let is_failing = server.last_failed_at > server.last_archived_at;
        let since = server.last_archived_at.map(|at| self.now.duration_since(at));
        let waiting = format!("{} segments wait", server.waiting);
        match since {
            _ if !is_failing && server.waiting > WAITING => {
                let hint = "the repository is slower than the server writes: `backup.process_max`, its network, its disk";
                warning(NAME, format!("archiving is behind: {waiting}"), hint)
            }
            _ if !is_failing => ok(NAME, "every finished segment is in the repository"),
            Some(since) if since < ARCHIVING_FAILS_FOR && server.waiting <= WAITING => {
                warning(NAME, format!("archiving failed at the last try, {waiting}"), HINT)
            }
            Some(since) => {
                failed(NAME, format!("nothing was archived for {}: {waiting}", shown(since)), HINT)
            }
            None => failed(NAME, format!("nothing was ever archived: {waiting}"), HINT),
        }
    }

    /// The last segment that the server sees archived, if it is newer than the repository's newest.
    fn believed_and_not_there(&self, server: &ServerLog) -> Option<SegmentName> {
        let name = server.last_archived.as_deref()?;
        let believed: SegmentName = name.get(..24)?.parse().ok()?;
        // `….backup` and `….history` lie beside the segments.
        let is_segment = name.len() == 24;
        let is_there = self.arrived.is_some_and(|(newest, _)| newest >= believed);
        (is_segment && !is_there).then_some(believed)
    }

    fn retention(&self) -> BackupCheck {
        const NAME: &str = "retention";
        let kept = signed(Duration::from_secs(u64::from(self.settings.retention_days) * 86_400));
        let limit = self.now - kept - signed(self.settings.full_every) - HOUR * 24;
        let fulls = self.repository.backups.iter().filter(|it| it.kind == BackupKind::Full);
        // One is kept that is older, so that every moment of the retention can be had.
        let overdue = fulls.filter(|it| it.stopped_at < limit).count().saturating_sub(1);
        if overdue == 0 {
            return ok(NAME, format!("{} days", self.settings.retention_days));
        }
        warning(
            NAME,
            format!("{overdue} backups are older than `backup.retention` and still there"),
            "old ones are removed after each backup that succeeds: what stands against a new one?",
        )
    }

    fn space(&self, name: &str, what: &str, disk: Option<Disk>, hint: &str) -> Option<BackupCheck> {
        let disk = disk?;
        let (share, wanted) = (disk.free_share(), f64::from(self.settings.free_space_percent));
        let found = format!("{what} has {share:.0} % free, {} MiB", disk.free_bytes >> 20);
        Some(if share < wanted / 2.0 {
            failed(name, found, hint)
        } else if share < wanted {
            warning(name, found, hint)
        } else {
            ok(name, found)
        })
    }

    pub(super) fn verification(&self) -> Option<BackupCheck> {
        const NAME: &str = "verify";
        let every = signed(self.settings.verify_every?);
        Some(match &self.verified {
            None => ok(NAME, "not yet"),
            Some(verified) if !verified.ok => failed(
                NAME,
                format!("damaged at {}: {}", verified.at, verified.problems.join("; ")),
                "docs/runbooks/backup-repository.md; a new full backup is made, and this is looked at again after it",
            ),
            Some(verified) if self.now.duration_since(verified.at) > every * 2 + HOUR => {
                let age = shown(self.now.duration_since(verified.at));
                warning(
                    NAME,
                    format!("the last one was {age} ago"),
                    "`tenantry backup check --verify`",
                )
            }
            Some(verified) => ok(NAME, format!("every file as it was, at {}", verified.at)),
        })
    }

    /// Whether the newest backups were seen to restore.
    pub(super) fn drill(&self) -> Option<BackupCheck> {
        const NAME: &str = "drill";
        const HINT: &str = "`tenantry backup drill` holds one now, and says what it finds";
        let every = signed(self.settings.drill_every?);
        let limit = every * 2 + HOUR;
        let oldest = self.repository.backups.first().map(|it| it.stopped_at);
        Some(match &self.drilled {
            None if oldest.is_some_and(|at| self.now.duration_since(at) > limit) => {
                warning(NAME, "no backup was ever restored", HINT)
            }
            None => ok(NAME, "not yet"),
            Some(drilled) if !drilled.ok => {
                failed(NAME, format!("failed at {}: {}", drilled.at, drilled.problems()), HINT)
            }
            Some(drilled) if self.now.duration_since(drilled.at) > limit => {
                let age = shown(self.now.duration_since(drilled.at));
                warning(NAME, format!("the last one was {age} ago"), HINT)
            }
            Some(drilled) => {
                let backup = drilled.backup.as_deref().unwrap_or_default();
                ok(NAME, format!("`{backup}` was restored in {:.0} s", drilled.took_s))
            }
        })
    }

    /// For Prometheus, which sees them as `tenantry_backup_…`.
    pub(super) fn numbers(&self) -> BTreeMap<String, f64> {
        let mut numbers = BTreeMap::new();
        let mut put = |name: &str, value: Option<f64>| {
            numbers.extend(value.map(|value| (name.to_owned(), value)));
        };
        let at = |time: Timestamp| time.as_duration().as_secs_f64();
        let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
        let newest = self.recoverable.newest();
        put("repository_readable", Some(1.0));
        put("count", Some(count(self.repository.backups.len())));
        put("newest_timestamp_seconds", self.newest().map(|it| at(it.stopped_at)));
        put("window_begin_timestamp_seconds", newest.map(|it| at(it.from)));
        put("window_end_timestamp_seconds", newest.map(|it| at(it.to)));
        put("gaps", Some(count(self.recoverable.gaps.len())));
        put("newest_segment_timestamp_seconds", self.arrived.map(|(_, time)| at(time)));
        if let Ok(server) = &self.server {
            let bytes = |n: i64| f64::from(u32::try_from(n >> 10).unwrap_or(u32::MAX)) * 1024.0;
            put("segments_waiting", Some(count(usize::try_from(server.waiting).unwrap_or(0))));
            put("wal_bytes", Some(bytes(server.bytes)));
        }
        let free = |disk: Option<Disk>| disk.map(|disk| disk.free_share() / 100.0);
        put("repository_free_ratio", free(self.repository_disk));
        put("wal_free_ratio", free(self.wal_disk));
        if let Some(drilled) = &self.drilled {
            put("drill_timestamp_seconds", Some(at(drilled.at)));
            put("drill_ok", Some(f64::from(u8::from(drilled.ok))));
            put("drill_duration_seconds", Some(drilled.took_s));
            put("drill_restore_seconds", drilled.restore_s);
            put("drill_loss_window_seconds", drilled.loss_window_s);
        }
        put("verified_timestamp_seconds", self.verified.as_ref().map(|it| at(it.at)));
        numbers
    }
}

/// A span of time for people, rounded.
pub fn shown(duration: SignedDuration) -> String {
    let minutes = duration.as_mins();
    match minutes {
        ..2 => format!("{} s", duration.as_secs()),
        2..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1440),
    }
}

fn check(name: &str, outcome: Outcome, detail: String, hint: Option<String>) -> BackupCheck {
    BackupCheck { name: name.to_owned(), outcome, detail, hint }
}

fn ok(name: &str, detail: impl Into<String>) -> BackupCheck {
    check(name, Outcome::Ok, detail.into(), None)
}

fn warning(name: &str, detail: impl Into<String>, hint: &str) -> BackupCheck {
    check(name, Outcome::Warning, detail.into(), Some(hint.to_owned()))
}

fn failed(name: &str, detail: impl Into<String>, hint: &str) -> BackupCheck {
    check(name, Outcome::Failed, detail.into(), Some(hint.to_owned()))
}

#[cfg(test)]
pub(super) mod tests;
