//! Each check turns and turns back with what it compares.

use tenantry_db::Config;
use tenantry_db::config::Layers;

use super::*;
use crate::backups::Repository;
use crate::drill::Drilled;
use crate::settings::Settings;
use crate::verify::Verified;
use crate::wal::{Lsn, SegmentSize};
use crate::windows::{Gap, Recoverable, Window};

const DAY_S: i64 = 86_400;
const NOW_S: i64 = 1000 * DAY_S;

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW_S - seconds).unwrap()
}

fn segment(number: u64) -> SegmentName {
    SegmentSize::default().segment(1, number)
}

pub(in crate::health) fn backup(age_s: i64) -> Backup {
    Backup {
        label: format!("F{age_s}"),
        kind: BackupKind::Full,
        started_at: ago(age_s + 60),
        stopped_at: ago(age_s),
        size_bytes: 1,
        repository_bytes: 1,
        damaged: false,
        lsn: (Lsn(40), Lsn(80)),
        segments: (segment(2), segment(3)),
        archive_id: "15-1".to_owned(),
    }
}

struct World {
    settings: Settings,
    repository: Repository,
    recoverable: Recoverable,
    server: ServerLog,
    arrived: u64,
    disk: Disk,
    verified: Option<Verified>,
    drilled: Option<Drilled>,
}

impl World {
    /// All is well.
    fn new() -> Self {
        let window = Window {
            from: ago(DAY_S),
            to: ago(30),
            timeline: 1,
            archive_id: "15-1".to_owned(),
            last_segment: segment(20),
            backups: vec![format!("F{}", DAY_S / 2)],
        };
        Self {
            settings: Settings::from_config(&Config::from_layers(Layers::defaults()).unwrap())
                .unwrap(),
            repository: Repository {
                backups: vec![backup(DAY_S / 2)],
                archive_ids: vec!["15-1".to_owned()],
                is_busy: false,
            },
            recoverable: Recoverable { windows: vec![window], ..Recoverable::default() },
            server: ServerLog {
                in_recovery: false,
                archives: true,
                last_archived: Some(segment(20).to_string()),
                last_archived_at: Some(ago(30)),
                last_failed: None,
                last_failed_at: None,
                waiting: 0,
                current: Some(segment(21).to_string()),
                bytes: 64 << 20,
            },
            arrived: 20,
            disk: Disk { free_bytes: 50, total_bytes: 100 },
            verified: Some(Verified { at: ago(DAY_S), ok: true, problems: vec![] }),
            drilled: None,
        }
    }

    fn check(&self, name: &str) -> BackupCheck {
        let facts = Facts {
            now: ago(0),
            settings: &self.settings,
            repository: &self.repository,
            recoverable: &self.recoverable,
            arrived: Some((segment(self.arrived), ago(30))),
            server: Ok(self.server.clone()),
            repository_disk: Some(self.disk),
            wal_disk: Some(self.disk),
            verified: self.verified.clone(),
            drilled: self.drilled.clone(),
        };
        facts.numbers();
        facts.checks().into_iter().find(|it| it.name == name).unwrap()
    }

    fn outcome(&self, name: &str) -> Outcome {
        let found = self.check(name);
        assert_eq!(found.hint.is_some(), found.outcome != Outcome::Ok, "{found:?}");
        found.outcome
    }
}

#[test]
fn all_is_well_where_all_is_well() {
    let world = World::new();
    for name in [
        "backup_age",
        "continuity",
        "archiver",
        "retention",
        "repository_space",
        "wal_space",
        "verify",
    ] {
        assert_eq!(world.outcome(name), Outcome::Ok, "{name}: {:?}", world.check(name));
    }
}

#[test]
fn an_old_newest_backup_is_warned_of_and_then_an_alarm() {
    let mut world = World::new();
    for (hours, outcome) in [(24, Outcome::Ok), (31, Outcome::Warning), (50, Outcome::Failed)] {
        world.repository.backups = vec![backup(hours * 3600)];
        assert_eq!(world.outcome("backup_age"), outcome, "{hours} h");
    }
    world.repository.backups = vec![Backup { damaged: true, ..backup(60) }];
    assert_eq!(world.outcome("backup_age"), Outcome::Failed);
    world.repository.backups.clear();
    assert_eq!(world.outcome("backup_age"), Outcome::Failed);
}

#[test]
fn a_gap_since_the_newest_backup_is_an_alarm_and_an_older_one_a_warning() {
    let mut world = World::new();
    let gap = Gap {
        timeline: 1,
        archive_id: "15-1".to_owned(),
        first: segment(8),
        segments: 2,
        after: ago(3000),
        before: ago(2000),
    };
    world.recoverable.gaps = vec![gap];
    assert_eq!(world.outcome("continuity"), Outcome::Warning);
    assert!(world.check("continuity").detail.contains("000000010000000000000008"));
    world.recoverable.windows[0].last_segment = segment(7);
    assert_eq!(world.outcome("continuity"), Outcome::Failed);
    let mut world = World::new();
    world.recoverable.broken_backups = vec!["F1".to_owned()];
    assert_eq!(world.outcome("continuity"), Outcome::Warning);
    world.recoverable.windows.clear();
    assert_eq!(world.outcome("continuity"), Outcome::Failed);
}

#[test]
fn the_archiver_is_believed_only_as_far_as_the_repository_goes() {
    let mut world = World::new();
    world.arrived = 19;
    assert_eq!(world.outcome("archiver"), Outcome::Failed);
    assert!(world.check("archiver").detail.contains("believes"));
    // Its newest file is no segment: nothing to compare.
    world.server.last_archived = Some("00000002.history".to_owned());
    assert_eq!(world.outcome("archiver"), Outcome::Ok);
}

#[test]
fn an_archiver_that_fails_is_an_alarm_once_it_is_no_hiccup_and_clears_by_itself() {
    let mut world = World::new();
    world.server.last_failed_at = Some(ago(10));
    world.server.waiting = 1;
    assert_eq!(world.outcome("archiver"), Outcome::Warning);
    world.server.last_archived_at = Some(ago(700));
    assert_eq!(world.outcome("archiver"), Outcome::Failed);
    world.server.last_archived_at = None;
    assert_eq!(world.outcome("archiver"), Outcome::Failed);
    world.server.last_archived_at = Some(ago(1));
    assert_eq!(world.outcome("archiver"), Outcome::Ok, "the last try succeeded");
    world.server.waiting = 9;
    assert_eq!(world.outcome("archiver"), Outcome::Warning);
    world.server.archives = false;
    assert_eq!(world.outcome("archiver"), Outcome::Failed);
    world.server.in_recovery = true;
    assert_eq!(world.outcome("archiver"), Outcome::Warning);
}

#[test]
fn retention_is_overdue_when_more_than_the_one_that_is_needed_is_older() {
    let mut world = World::new();
    let of_days = |days: &[i64]| days.iter().map(|day| backup(day * DAY_S)).collect();
    world.repository.backups = of_days(&[17, 16, 1]);
    assert_eq!(world.outcome("retention"), Outcome::Ok);
    world.repository.backups = of_days(&[20, 19, 18, 1]);
    assert_eq!(world.outcome("retention"), Outcome::Warning);
}

#[test]
fn room_and_damage() {
    let mut world = World::new();
    for (free_bytes, outcome) in [(20, Outcome::Ok), (14, Outcome::Warning), (7, Outcome::Failed)] {
        world.disk.free_bytes = free_bytes;
        assert_eq!(world.outcome("wal_space"), outcome);
        assert_eq!(world.outcome("repository_space"), outcome);
    }
    let verified =
        |age_days: i64, ok| Verified { at: ago(age_days * DAY_S), ok, problems: vec!["x".into()] };
    for (last, outcome) in [
        (None, Outcome::Ok),
        (Some(verified(1, false)), Outcome::Failed),
        (Some(verified(10, true)), Outcome::Ok),
        (Some(verified(16, true)), Outcome::Warning),
    ] {
        world.verified = last;
        assert_eq!(world.outcome("verify"), outcome);
    }
}

#[test]
fn a_drill_that_failed_is_an_alarm_until_one_succeeds() {
    let mut facts = World::new();
    assert_eq!(facts.outcome("drill"), Outcome::Ok, "not yet");
    let drilled = |ok, seconds| {
        let found = crate::drill::DrillCheck { name: "restore".into(), ok, detail: "x".into() };
        Some(Drilled {
            at: ago(seconds),
            ok,
            backup: Some("a".into()),
            to: None,
            restore_s: None,
            took_s: 1.0,
            loss_window_s: None,
            checks: vec![found],
        })
    };
    facts.drilled = drilled(false, 60);
    assert_eq!(facts.outcome("drill"), Outcome::Failed);
    assert!(facts.check("drill").detail.contains("restore: x"));
    facts.drilled = drilled(true, 60);
    assert_eq!(facts.outcome("drill"), Outcome::Ok);
    facts.drilled = drilled(true, 3 * DAY_S);
    assert_eq!(facts.outcome("drill"), Outcome::Warning);
    facts.drilled = None;
    facts.repository.backups[0].stopped_at = ago(3 * DAY_S);
    assert_eq!(facts.outcome("drill"), Outcome::Warning, "never one");
}
