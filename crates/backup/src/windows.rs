//! Which moments can be recovered: from backups and the log in the repository, segment by segment.
//!
//! pgBackRest says which segment is the first and which the last. A segment that is missing between, it
//! notices when a recovery needs it. So we walk ourselves: from each backup along its timeline, and on to
//! the timelines that branched off behind it, until a segment is missing.
//!
//! A moment belongs to one timeline: the one that the server was on then. After a recovery to an earlier
//! time, the moments between that time and the recovery lie on the timeline that was left; the newer one
//! has other rows for them, or none. A timeline begins when its history file reached the repository.
//!
//! Ends are upper bounds: a segment's last commit is not later than the segment's arrival. A recovery to a
//! moment behind the last commit fails and says so, it does not yield wrong rows.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::archive::Archive;
use crate::backups::Backup;
use crate::wal::{SegmentName, SegmentSize};

/// A span of moments, each of which can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The first moment: a backup was complete.
    pub from: Timestamp,
    /// The last one: no commit in the repository is later.
    pub to: Timestamp,
    /// The timeline that the server was on.
    pub timeline: u32,
    /// Which archive, as in `15-1`.
    pub archive_id: String,
    /// The newest segment that the window rests on.
    pub last_segment: SegmentName,
    /// The backups in it that a recovery can begin with, oldest first.
    pub backups: Vec<String>,
}

/// Segments that are missing, with others behind them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The timeline.
    pub timeline: u32,
    /// Which archive.
    pub archive_id: String,
    /// The first one that is missing.
    pub first: SegmentName,
    /// How many.
    pub segments: u64,
    /// When the one before arrived.
    pub after: Timestamp,
    /// When the one behind arrived.
    pub before: Timestamp,
}

/// What can be recovered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recoverable {
    /// By time.
    pub windows: Vec<Window>,
    /// By time.
    pub gaps: Vec<Gap>,
    /// Backups that lack a segment without which they are not consistent: worthless.
    pub broken_backups: Vec<String>,
}

impl Recoverable {
    /// What the backups and the archives, each with its id, allow.
    pub fn find(backups: &[Backup], archives: &[(String, Archive)]) -> Self {
        let mut all = Self::default();
        for (id, archive) in archives {
            let backups: Vec<&Backup> = backups.iter().filter(|it| it.archive_id == *id).collect();
            Walk { id, archive, size: segment_size(&backups), backups }.collect(&mut all);
        }
        // One whose archive is gone altogether.
        let orphans =
            backups.iter().filter(|it| !archives.iter().any(|(id, _)| *id == it.archive_id));
        all.broken_backups.extend(orphans.map(|it| it.label.clone()));
        all.windows.sort_by_key(|window| (window.from, window.timeline));
        all.gaps.sort_by_key(|gap| (gap.after, gap.timeline));
        all.broken_backups.sort();
        all.broken_backups.dedup();
        all
    }

    /// The window that a moment lies in. Times of arrival are known to the second, so a moment within the last
    /// one may lie in it; if it does not, the recovery says so.
    pub fn window_of(&self, moment: Timestamp) -> Option<&Window> {
        let began = || self.windows.iter().filter(|window| window.from <= moment);
        let second = SignedDuration::from_secs(1);
        let exactly = began().find(|window| moment <= window.to);
        exactly.or_else(|| began().find(|window| moment < window.to + second))
    }

    /// The gap at which a window ends, if there is a log behind it.
    pub(crate) fn gap_behind(&self, window: &Window) -> Option<&Gap> {
        let of_archive = self.gaps.iter().filter(|gap| gap.archive_id == window.archive_id);
        of_archive.filter(|gap| gap.first > window.last_segment).min_by_key(|gap| gap.first)
    }

    /// Of the windows, what lies behind a moment.
    pub(crate) fn since(mut self, moment: Timestamp) -> Self {
        self.windows.retain(|window| window.to >= moment);
        for window in &mut self.windows {
            window.from = window.from.max(moment);
        }
        self
    }

    /// The window that reaches furthest.
    pub fn newest(&self) -> Option<&Window> {
        self.windows.iter().max_by_key(|window| (window.to, window.timeline))
    }
}

impl Window {
    /// The segment of a number that a recovery along this window reads.
    pub(crate) fn segment(
        &self,
        archive: &Archive,
        size: SegmentSize,
        number: u64,
    ) -> Option<SegmentName> {
        let walk = Walk { id: &self.archive_id, archive, size, backups: Vec::new() };
        let path = walk.path(self.timeline);
        let stretch = path.iter().find(|stretch| number < stretch.until)?;
        Some(size.segment(stretch.timeline, number))
    }
}

pub(crate) fn segment_size(backups: &[&Backup]) -> SegmentSize {
    let by_example = |backup: &&Backup| SegmentSize::by_example(backup.lsn.0, backup.segments.0);
    backups.iter().find_map(by_example).unwrap_or_default()
}

/// One archive.
struct Walk<'a> {
    id: &'a str,
    archive: &'a Archive,
    size: SegmentSize,
    backups: Vec<&'a Backup>,
}

/// A stretch of a timeline's past: up to (and without) segment `until` on `timeline`.
struct Stretch {
    timeline: u32,
    until: u64,
}

impl Walk<'_> {
    fn collect(&self, all: &mut Recoverable) {
        for timeline in self.timelines() {
            let path = self.path(timeline);
            all.windows.extend(self.windows_on(timeline, &path));
            all.gaps.extend(self.gaps_on(timeline));
        }
        for backup in &self.backups {
            let own = self.path(backup.segments.0.timeline);
            if self.run(backup, &own).is_none() {
                all.broken_backups.push(backup.label.clone());
            }
        }
    }

    /// Those with segments or a history.
    fn timelines(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.archive.segments.keys().map(|it| it.timeline).collect();
        all.extend(self.archive.timelines.keys());
        all.extend(self.backups.iter().map(|it| it.segments.0.timeline));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The timelines that lead to this one, which is the last.
    fn path(&self, timeline: u32) -> Vec<Stretch> {
        let history = self.archive.timelines.get(&timeline).map(|branch| &branch.history.0);
        let before = history.into_iter().flatten().map(|(timeline, left_at)| Stretch {
            timeline: *timeline,
            until: self.size.number(*left_at),
        });
        before.chain([Stretch { timeline, until: u64::MAX }]).collect()
    }

    /// When the server was on this timeline.
    fn lifetime(&self, timeline: u32) -> (Timestamp, Timestamp) {
        let timelines = &self.archive.timelines;
        let began = timelines.get(&timeline).map_or(Timestamp::MIN, |branch| branch.began_at);
        let children = timelines.values().filter(|it| it.history.parent() == Some(timeline));
        let ended = children.map(|branch| branch.began_at).min();
        (began, ended.unwrap_or(Timestamp::MAX))
    }

    /// How far the log goes on without a gap from the backup's beginning along a path: the last segment and
    /// when it arrived. None if the path does not lead through the backup, or it lacks a segment of its own.
    fn run(&self, backup: &Backup, path: &[Stretch]) -> Option<(SegmentName, Timestamp)> {
        let (first, needed) = (backup.segments.0, self.size.number_of(backup.segments.1));
        let start = path.iter().position(|stretch| stretch.timeline == first.timeline)?;
        let mut number = self.size.number_of(first);
        let mut last = None;
        'path: for stretch in &path[start..] {
            while number < stretch.until {
                let name = self.size.segment(stretch.timeline, number);
                let Some(segment) = self.archive.segments.get(&name) else { break 'path };
                last = Some((name, segment.arrived));
                number += 1;
            }
        }
        // The timeline was left before the backup was complete.
        let is_left_early = path[start].until < needed;
        last.filter(|(name, _)| self.size.number_of(*name) >= needed && !is_left_early)
    }

    fn windows_on(&self, timeline: u32, path: &[Stretch]) -> Vec<Window> {
        let (began, ended) = self.lifetime(timeline);
        // Runs that end alike are one window: the later backup lies in the run of the earlier one.
        let mut by_end: BTreeMap<SegmentName, Window> = BTreeMap::new();
        for backup in &self.backups {
            let Some((last_segment, arrived)) = self.run(backup, path) else { continue };
            let (from, to) =
                (backup.stopped_at.max(began), arrived.max(backup.stopped_at).min(ended));
            if from > to {
                continue;
            }
            let window = by_end.entry(last_segment).or_insert_with(|| Window {
                from,
                to,
                timeline,
                archive_id: self.id.to_owned(),
                last_segment,
                backups: Vec::new(),
            });
            (window.from, window.to) = (window.from.min(from), window.to.max(to));
            window.backups.push(backup.label.clone());
        }
        by_end.into_values().collect()
    }

    /// Missing segments between others of the timeline. Before the oldest backup nothing is needed.
    fn gaps_on(&self, timeline: u32) -> Vec<Gap> {
        let of_timeline = |backup: &&&Backup| backup.segments.0.timeline == timeline;
        let oldest =
            self.backups.iter().filter(of_timeline).map(|it| self.size.number_of(it.segments.0));
        let oldest = oldest.min().unwrap_or(0);
        let range = self.size.segment(timeline, 0)..=self.size.segment(timeline, u64::MAX >> 8);
        let present: Vec<(u64, Timestamp)> = self
            .archive
            .segments
            .range(range)
            .map(|(name, segment)| (self.size.number_of(*name), segment.arrived))
            .filter(|(number, _)| *number >= oldest.saturating_sub(1))
            .collect();
        let pairs = present.windows(2).filter(|pair| pair[1].0 > pair[0].0 + 1);
        let gap = |pair: &[(u64, Timestamp)]| Gap {
            timeline,
            archive_id: self.id.to_owned(),
            first: self.size.segment(timeline, pair[0].0 + 1),
            segments: pair[1].0 - pair[0].0 - 1,
            after: pair[0].1,
            before: pair[1].1,
        };
        pairs.map(gap).collect()
    }
}

#[cfg(test)]
mod tests;
