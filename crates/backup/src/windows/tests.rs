//! Windows of archives that are written down here, segment by segment.

use super::*;
use crate::archive::{Branch, Segment};
use crate::backups::BackupKind;
use crate::wal::{History, Lsn};

const SIZE: u64 = 16 << 20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentSize::default().segment(timeline, number)
}

fn put(archive: &mut Archive, timeline: u32, number: u64, second: i64) {
    let arrived = Segment { arrived: at(second), checksum: "".into() };
    archive.segments.insert(segment(timeline, number), arrived);
}

/// Segments `from..=to` of a timeline; segment n arrives at second 10 n.
fn arrived(archive: &mut Archive, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        put(archive, timeline, n, 10 * i64::try_from(n).unwrap());
    }
}

fn branch(archive: &mut Archive, timeline: u32, began: i64, left: &[(u32, u64)]) {
    let history = History(left.iter().map(|(t, lsn)| (*t, Lsn(*lsn))).collect());
    archive.timelines.insert(timeline, Branch { began_at: at(began), history });
}

/// A backup of the segments from `first` to `last`, complete when the last one arrives.
fn backup(timeline: u32, first: u64, last: u64) -> Backup {
    let stopped_at = at(10 * i64::try_from(last).unwrap());
    Backup {
        label: format!("B{timeline}-{first}"),
        kind: BackupKind::Full,
        started_at: stopped_at,
        stopped_at,
        size_bytes: 1,
        repository_bytes: 1,
        damaged: false,
        lsn: (Lsn(first * SIZE + 40), Lsn(last * SIZE + 80)),
        segments: (segment(timeline, first), segment(timeline, last)),
        archive_id: "15-1".to_owned(),
    }
}

fn find(backups: &[Backup], archive: Archive) -> Recoverable {
    Recoverable::find(backups, &[("15-1".to_owned(), archive)])
}

fn spans(found: &Recoverable) -> Vec<(i64, i64, u32)> {
    found.windows.iter().map(|w| (w.from.as_second(), w.to.as_second(), w.timeline)).collect()
}

#[test]
fn from_the_first_backup_to_the_newest_segment() {
    let mut archive = Archive::default();
    arrived(&mut archive, 1, 1..=20);
    let found = find(&[backup(1, 2, 3), backup(1, 10, 11)], archive);
    assert_eq!(spans(&found), [(30, 200, 1)]);
    assert_eq!(found.windows[0].backups, ["B1-2", "B1-10"]);
    assert!(found.gaps.is_empty() && found.broken_backups.is_empty());
    assert!(found.window_of(at(29)).is_none() && found.window_of(at(201)).is_none());
    assert!(found.window_of(at(30)).is_some() && found.window_of(at(200)).is_some());
}

#[test]
fn a_missing_segment_ends_a_window_and_the_next_backup_begins_another() {
    let mut archive = Archive::default();
    arrived(&mut archive, 1, (1..=20).filter(|n| *n != 8 && *n != 9));
    let found = find(&[backup(1, 2, 3), backup(1, 12, 13)], archive);
    assert_eq!(spans(&found), [(30, 70, 1), (130, 200, 1)]);
    assert_eq!(found.gaps.len(), 1);
    assert_eq!((found.gaps[0].first, found.gaps[0].segments), (segment(1, 8), 2));
    assert_eq!((found.gaps[0].after, found.gaps[0].before), (at(70), at(100)));
    for inside in [71, 85, 100, 129] {
        assert!(found.window_of(at(inside)).is_none(), "{inside} lies in no window");
    }
}

#[test]
fn a_backup_without_its_own_segments_is_worthless() {
    let mut archive = Archive::default();
    arrived(&mut archive, 1, (1..=20).filter(|n| *n != 3));
    let found = find(&[backup(1, 2, 4), backup(1, 10, 11)], archive);
    assert_eq!(found.broken_backups, ["B1-2"]);
    assert_eq!(spans(&found), [(110, 200, 1)]);
    let orphan = Recoverable::find(&[backup(1, 2, 4)], &[]);
    assert_eq!(orphan.broken_backups, ["B1-2"]);
}

#[test]
fn what_is_missing_before_the_oldest_backup_is_nobodys_loss() {
    let mut archive = Archive::default();
    arrived(&mut archive, 1, [1, 2, 9, 10, 11, 12]);
    let found = find(&[backup(1, 10, 11)], archive);
    assert!(found.gaps.is_empty(), "{:?}", found.gaps);
    assert_eq!(spans(&found), [(110, 120, 1)]);
}

#[test]
fn a_moment_belongs_to_the_timeline_that_was_live_then() {
    // Served on timeline 1 until second 200; then recovered to second 100 (in segment 10), at second 210.
    let mut archive = Archive::default();
    arrived(&mut archive, 1, 1..=20);
    branch(&mut archive, 2, 210, &[(1, 10 * SIZE + 99)]);
    for n in 10..=15_u64 {
        put(&mut archive, 2, n, 200 + i64::try_from(n).unwrap());
    }
    let found = find(&[backup(1, 2, 3)], archive);
    // Second 150 has its rows on timeline 1, although timeline 2 leads through it, too.
    assert_eq!(spans(&found), [(30, 200, 1), (210, 215, 2)]);
    assert_eq!(found.window_of(at(150)).unwrap().timeline, 1);
    assert_eq!(found.window_of(at(212)).unwrap().timeline, 2);
    assert!(found.window_of(at(205)).is_none(), "nobody was served then");
    assert_eq!(found.newest().unwrap().timeline, 2);
}

#[test]
fn a_backup_behind_the_point_where_a_timeline_was_left_is_no_beginning_for_the_next() {
    let mut archive = Archive::default();
    arrived(&mut archive, 1, 1..=20);
    branch(&mut archive, 2, 210, &[(1, 10 * SIZE + 99)]);
    for n in 10..=15_u64 {
        put(&mut archive, 2, n, 200 + i64::try_from(n).unwrap());
    }
    let found = find(&[backup(1, 12, 13)], archive);
    assert_eq!(spans(&found), [(130, 200, 1)]);
    assert!(found.broken_backups.is_empty());
}

#[test]
fn a_branch_of_a_branch_is_walked_through_all_of_them() {
    let mut archive = Archive::default();
    arrived(&mut archive, 1, 1..=20);
    branch(&mut archive, 2, 210, &[(1, 10 * SIZE + 99)]);
    branch(&mut archive, 3, 310, &[(1, 10 * SIZE + 99), (2, 12 * SIZE + 7)]);
    for (timeline, numbers, base) in [(2, 10..=14_u64, 200), (3, 12..=13, 300)] {
        for n in numbers {
            put(&mut archive, timeline, n, base + i64::try_from(n).unwrap());
        }
    }
    let found = find(&[backup(1, 2, 3)], archive.clone());
    assert_eq!(spans(&found), [(30, 200, 1), (210, 214, 2), (310, 313, 3)]);
    // A recovery to the third reads each segment on the timeline that it was written on for it.
    let window = found.windows.iter().find(|it| it.timeline == 3).unwrap();
    for (number, timeline) in [(9, 1), (10, 2), (11, 2), (12, 3), (13, 3)] {
        let read = window.segment(&archive, SegmentSize::default(), number);
        assert_eq!(read, Some(segment(timeline, number)));
    }
    // Without segment 11 of timeline 2 the third can't be reached from the first backup.
    archive.segments.remove(&segment(2, 11));
    let found = find(&[backup(1, 2, 3)], archive);
    assert_eq!(spans(&found), [(30, 200, 1), (210, 210, 2)]);
    assert_eq!(found.gaps.len(), 1);
}
