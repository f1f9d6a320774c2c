//! What the repository still holds, for those who must say until when it holds somebody's data.
//!
//! Owns how a repository is known again. Refuses to take an empty directory, as where nothing is mounted, or one
//! that was begun anew for the repository that was there before: that one may still be somewhere.

use jiff::{SignedDuration, Timestamp};
use tenantry_db::models::holding::{FormerRepository, Holding};

use crate::archive::Archive;
use crate::backups::{Backup, Repository};
use crate::settings::{Place, Settings, signed};
use crate::wal::{Lsn, SegmentName};
use crate::windows::segment_size;

/// As many as somebody moves to.
const FORMER_MAX: usize = 100;

/// What it holds; none if there is no backup in it.
pub(super) fn of(
    settings: &Settings,
    repository: &Repository,
    archives: &[(String, Archive)],
    now: Timestamp,
) -> Option<Holding> {
    let newest = repository.newest()?;
    let size = segment_size(&repository.backups.iter().collect::<Vec<_>>());
    let begin = |segment: &SegmentName| size.begin(*segment);
    let segments = || archives.iter().flat_map(|(_, archive)| &archive.segments);
    let positions = repository.backups.iter().map(|it| begin(&it.segments.0).min(it.lsn.0));
    let oldest_position = positions.chain(segments().map(|(name, _)| begin(name))).min()?;
    let times = repository.backups.iter().map(|it| it.started_at);
    let oldest_at = times.chain(segments().map(|(_, segment)| segment.arrived)).min()?;
    Some(Holding {
        repository: name(settings),
        covers_from: oldest_at.min(now),
        former: Vec::new(),
        newest_backup: newest.label.clone(),
        oldest_position: Lsn::to_string(&oldest_position),
        oldest_at,
        expires_after_s: expires_after(settings).as_secs(),
        seen_at: now,
    })
}

/// The first full backup behind it is made, gets as old as the retention, and then one more succeeds.
fn expires_after(settings: &Settings) -> SignedDuration {
    let retention = SignedDuration::from_hours(24 * i64::from(settings.retention_days));
    retention.saturating_add(signed(settings.full_every)).saturating_add(settings.interval())
}

fn name(settings: &Settings) -> String {
    let stanza = &settings.stanza;
    match &settings.place {
        Place::Directory(path) => format!("{} ({stanza})", path.display()),
        Place::S3 { bucket, endpoint, prefix, .. } => {
            format!("s3://{bucket}{prefix} at {endpoint} ({stanza})")
        }
    }
}

/// With what was known before. What can't be seen now is what it was when it was seen last.
pub(super) fn after(
    found: Option<Holding>,
    backups: &[Backup],
    before: Option<Holding>,
) -> Option<Holding> {
    let (Some(mut found), Some(before)) = (found.clone(), before.clone()) else {
        return found.or(before);
    };
    found.former.clone_from(&before.former);
    let is_known = backups.iter().any(|backup| backup.label == before.newest_backup);
    if found.repository == before.repository && is_known {
        found.covers_from = before.covers_from;
        return Some(found);
    }
    found.covers_from = before.seen_at;
    found.former.push(FormerRepository { repository: before.repository, until: before.seen_at });
    // The youngest say all that the others do, of whoever was there already.
    let surplus = found.former.len().saturating_sub(FORMER_MAX);
    found.former.drain(..surplus);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::super::checks::tests::backup;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn holding(repository: &str, newest: &Backup, covers_from: i64, seen_at: i64) -> Holding {
        Holding {
            repository: repository.to_owned(),
            covers_from: at(covers_from),
            former: Vec::new(),
            newest_backup: newest.label.clone(),
            oldest_position: "0/1".to_owned(),
            oldest_at: at(covers_from),
            expires_after_s: 1,
            seen_at: at(seen_at),
        }
    }

    #[test]
    fn a_repository_is_known_again_by_its_place_and_its_newest_backup() {
        let (old, new) = (backup(500), backup(10));
        let before = holding("/a", &old, 100, 200);
        let seen = |repository: &str, backups: &[Backup]| {
            let found = holding(repository, &new, 150, 300);
            after(Some(found), backups, Some(before.clone())).unwrap()
        };
        let both = [old, new.clone()];
        let same = seen("/a", &both);
        assert_eq!((same.covers_from, same.former.len()), (at(100), 0));
        assert_eq!(same.newest_backup, new.label);
        // Elsewhere; and in the same place, where another one is now.
        for moved in [seen("/b", &both), seen("/a", std::slice::from_ref(&new))] {
            assert_eq!(moved.covers_from, at(200));
            let former = FormerRepository { repository: "/a".to_owned(), until: at(200) };
            assert_eq!(moved.former, [former]);
            // And it stays so.
            let later = after(Some(holding("/b", &new, 150, 400)), &both, Some(moved)).unwrap();
            assert!(!later.former.is_empty());
        }
        assert_eq!(after(None, &[], Some(before.clone())), Some(before), "it can't be seen now");
    }

    #[test]
    fn nothing_stays_longer_than_a_full_interval_the_retention_and_one_more_backup() {
        let config = tenantry_db::config::Layers::defaults()
            .flag("test", "backup.full_every", "7days")
            .flag("test", "backup.diff_every", "1day");
        let config = tenantry_db::Config::from_layers(config).unwrap();
        let settings = Settings::from_config(&config).unwrap();
        assert_eq!(expires_after(&settings), SignedDuration::from_hours(24 * (14 + 7 + 1)));
    }
}
