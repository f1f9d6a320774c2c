//! What is due, for repositories that are written down here.

use tenantry_db::Config;
use tenantry_db::config::Layers;

use super::*;
use crate::wal::{Lsn, SegmentSize};

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
const NOW_S: i64 = 1000 * DAY_S;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn now() -> Timestamp {
    at(NOW_S)
}

fn settings(changes: &[(&str, &str)]) -> Settings {
    let layers = changes
        .iter()
        .fold(Layers::defaults(), |layers, (key, value)| layers.flag("test", key, *value));
    Settings::from_config(&Config::from_layers(layers).unwrap()).unwrap()
}

/// A backup of so many seconds ago.
fn backup(kind: BackupKind, ago_s: i64) -> Backup {
    let segment = SegmentSize::default().segment(1, 2);
    Backup {
        label: format!("{ago_s}"),
        kind,
        started_at: at(NOW_S - ago_s),
        stopped_at: at(NOW_S - ago_s + 60),
        size_bytes: 1,
        repository_bytes: 1,
        damaged: false,
        lsn: (Lsn(40), Lsn(80)),
        segments: (segment, segment),
        archive_id: "15-1".to_owned(),
    }
}

fn due_of(settings: &Settings, backups: &[Backup], is_continuous: bool) -> Option<Due> {
    due(now(), settings, backups, is_continuous, None)
}

#[test]
fn a_full_one_each_day_counted_from_the_last_one() {
    let daily = settings(&[]);
    assert_eq!(due_of(&daily, &[], false), Some(Due::First));
    let full = |ago_s| [backup(BackupKind::Full, ago_s)];
    assert_eq!(due_of(&daily, &full(DAY_S - 1), true), None);
    assert_eq!(due_of(&daily, &full(DAY_S), true), Some(Due::Full));
    // A difference by hand does not put it off, a full one by hand does.
    let diff = [backup(BackupKind::Full, DAY_S), backup(BackupKind::Diff, HOUR_S)];
    assert_eq!(due_of(&daily, &diff, true), Some(Due::Full));
    assert_eq!(due_of(&daily, &[backup(BackupKind::Diff, HOUR_S)], true), Some(Due::First));
}

#[test]
fn weekly_with_a_difference_each_day() {
    let weekly = settings(&[("backup.full_every", "7days"), ("backup.diff_every", "1day")]);
    let week =
        |full_s, diff_s| [backup(BackupKind::Full, full_s), backup(BackupKind::Diff, diff_s)];
    assert_eq!(due_of(&weekly, &week(3 * DAY_S, HOUR_S), true), None);
    assert_eq!(due_of(&weekly, &week(3 * DAY_S, DAY_S), true), Some(Due::Diff));
    assert_eq!(due_of(&weekly, &week(7 * DAY_S, HOUR_S), true), Some(Due::Full));
    assert_eq!(due_of(&weekly, &[backup(BackupKind::Full, DAY_S)], true), Some(Due::Diff));
    assert_eq!(Due::Diff.kind(), BackupKind::Diff);
}

#[test]
fn a_gap_is_healed_by_a_new_full_one_and_not_by_one_each_minute() {
    let daily = settings(&[]);
    let full = |ago_s| [backup(BackupKind::Full, ago_s)];
    assert_eq!(due_of(&daily, &full(2 * HOUR_S), false), Some(Due::Gap));
    assert_eq!(due_of(&daily, &full(60), false), None);
}

#[test]
fn damage_that_was_found_is_answered_once() {
    let daily = settings(&[]);
    let found = |ago_s| Verified { at: at(NOW_S - ago_s), ok: false, problems: vec![] };
    let backups = [backup(BackupKind::Full, 2 * HOUR_S)];
    let after = |verified| due(now(), &daily, &backups, true, Some(&verified));
    assert_eq!(after(found(HOUR_S)), Some(Due::Damage));
    assert_eq!(after(found(3 * HOUR_S)), None, "there is a newer one already");
    assert_eq!(after(Verified { ok: true, ..found(HOUR_S) }), None);
}

#[test]
fn a_backup_from_the_future_puts_nothing_off() {
    let daily = settings(&[]);
    let backups = [backup(BackupKind::Full, 2 * DAY_S), backup(BackupKind::Full, -5 * DAY_S)];
    assert_eq!(due_of(&daily, &backups, true), Some(Due::Full));
    assert_eq!(due_of(&daily, &backups[1..], true), Some(Due::First));
}

#[test]
fn the_repository_is_read_when_it_is_time_and_after_damage() {
    let weekly = settings(&[]);
    let never = settings(&[("backup.verify_every", "")]);
    let backups = [backup(BackupKind::Full, DAY_S)];
    let old = [backup(BackupKind::Full, 8 * DAY_S)];
    let verified = |ago_s, ok| Verified { at: at(NOW_S - ago_s), ok, problems: vec![] };
    let is_due = |settings: &Settings, backups: &[Backup], last: Option<Verified>| {
        look_is_due(now(), settings.verify_every, backups, last.map(|it| (it.at, it.ok)))
    };
    assert!(!is_due(&weekly, &[], None));
    assert!(!is_due(&weekly, &backups, None));
    assert!(is_due(&weekly, &old, None));
    assert!(!is_due(&never, &old, None));
    assert!(!is_due(&weekly, &old, Some(verified(DAY_S, true))));
    assert!(is_due(&weekly, &old, Some(verified(7 * DAY_S, true))));
    assert!(is_due(&weekly, &backups, Some(verified(2 * DAY_S, false))), "a backup since");
    assert!(!is_due(&weekly, &backups, Some(verified(HOUR_S, false))), "none since");
}
