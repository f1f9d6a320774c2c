//! The moment that is restored to: read from people, looked up in the windows, written for PostgreSQL.
//!
//! Owns the rule that a moment has an offset. PostgreSQL takes a time without one for its own zone's, pgBackRest
//! for the machine's, and both restore another state without a word. Refuses what lies in no window.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use crate::backups::Backup;
use crate::error::Error;
use crate::windows::{Recoverable, Window};

/// What is restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The newest state that there is.
    Now,
    /// Everything that was committed until then, and nothing later.
    At(Timestamp),
}

impl FromStr for When {
    type Err = Error;

    /// RFC 3339 with an offset, or `now`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let odd = |reason| Error::InvalidTime { text: text.to_owned(), reason };
        if text == "now" {
            return Ok(Self::Now);
        }
        // In brackets a zone's name may stand, which may contradict the offset.
        if text.contains('[') {
            return Err(odd("it has more than RFC 3339 allows"));
        }
        match text.parse::<Timestamp>() {
            Ok(moment) => Ok(Self::At(moment)),
            Err(_) if text.parse::<DateTime>().is_ok() => Err(odd("it has no offset from UTC")),
            Err(_) => Err(odd("it is no time as in RFC 3339")),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::At(moment) => write!(f, "{moment}"),
        }
    }
}

/// As PostgreSQL wants it: microseconds, never more than was asked for, and always with its offset.
pub(crate) fn for_postgres(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}

/// Where a recovery begins, and along which timeline it goes.
#[derive(Debug, Clone)]
pub(crate) struct Start<'a> {
    pub(crate) backup: &'a Backup,
    pub(crate) window: &'a Window,
    /// Others that reach the moment on this timeline, the newest last.
    pub(crate) older: Vec<&'a Backup>,
    /// Those that were tried, and are damaged.
    pub(crate) damaged: Vec<String>,
}

/// Finds it.
///
/// # Errors
/// [`Error::NotRecoverable`] with the windows.
pub(crate) fn locate<'a>(
    when: When,
    now: Timestamp,
    backups: &'a [Backup],
    recoverable: &'a Recoverable,
) -> Result<Start<'a>, Error> {
    let refuse = |reason: String| refusal(when, reason, recoverable);
    let window = match when {
        When::Now => recoverable.newest().ok_or_else(|| refuse("there is no backup".to_owned()))?,
        When::At(moment) if moment > now => return Err(refuse("it lies in the future".to_owned())),
        When::At(moment) => {
            recoverable.window_of(moment).ok_or_else(|| refuse(why_not(moment, recoverable)))?
        }
    };
    let of_window = || backups.iter().filter(|it| window.backups.contains(&it.label));
    let backup = match when {
        When::Now => of_window().max_by_key(|it| it.stopped_at),
        When::At(moment) => {
            // A backup's end is known to the second, and it is consistent within that one.
            let newest_by = |limit: Timestamp| {
                of_window().filter(|it| it.stopped_at <= limit).max_by_key(|it| it.stopped_at)
            };
            newest_by(moment - SignedDuration::from_secs(1)).or_else(|| newest_by(moment))
        }
    };
    let backup = backup.ok_or_else(|| refuse("no backup is older".to_owned()))?;
    let mut older: Vec<_> = of_window().filter(|it| it.stopped_at < backup.stopped_at).collect();
    older.sort_by_key(|it| it.stopped_at);
    Ok(Start { backup, window, older, damaged: Vec::new() })
}

/// The moment can't be had for this reason; what can be had is told with it.
pub(crate) fn refusal(when: When, reason: String, recoverable: &Recoverable) -> Error {
    let windows = recoverable.windows.iter().map(in_words).collect();
    Error::NotRecoverable { moment: when.to_string(), reason, windows }
}

fn why_not(moment: Timestamp, recoverable: &Recoverable) -> String {
    let windows = &recoverable.windows;
    let (Some(first), Some(last)) =
        (windows.iter().map(|it| it.from).min(), windows.iter().map(|it| it.to).max())
    else {
        return "there is no backup".to_owned();
    };
    if moment < first {
        return "it lies before the first backup".to_owned();
    }
    // Behind a gap nothing goes on until the next backup.
    let gap = recoverable.gaps.iter().rev().find(|gap| gap.after <= moment);
    match gap {
        Some(gap) => format!(
            "it lies in or behind a gap: {} segments from `{}` on are missing",
            gap.segments, gap.first
        ),
        None if moment > last => "the repository holds nothing that is so new".to_owned(),
        None => "it lies between the windows, where no log goes on from a backup".to_owned(),
    }
}

fn in_words(window: &Window) -> String {
    format!("{} and {} (timeline {})", window.from, window.to, window.timeline)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backups::BackupKind;
    use crate::wal::Lsn;
    use crate::windows::Gap;

    fn when(text: &str) -> When {
        text.parse().unwrap()
    }

    fn refused(text: &str) -> String {
        text.parse::<When>().unwrap_err().to_string()
    }

    #[test]
    fn one_moment_in_two_zones_is_one_moment() {
        assert_eq!(when("2026-11-24T12:32:00Z"), when("2026-11-24T14:32:00+02:00"));
        assert_eq!(when("2026-11-24 12:32:00.5+00"), when("2026-11-24t12:32:00.500z"));
        let When::At(moment) = when("2026-11-24T14:32:00.1234567+02:00") else { panic!() };
        assert_eq!(for_postgres(moment), "2026-11-24 12:32:00.123456+00");
        assert_eq!(when("now"), When::Now);
    }

    #[test]
    fn what_may_mean_several_moments_is_refused() {
        for text in ["2026-11-24T14:32:00", "2026-11-24 14:32", "2026-11-24"] {
            assert!(refused(text).contains("no offset"), "{text}");
        }
        assert!(refused("2026-11-24T14:32:00+01:00[Europe/Berlin]").contains("RFC 3339"));
        for text in
            ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-24T25:00:00Z", "1795530054", "NOW"]
        {
            assert!(refused(text).contains("no time"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_comes_back_from_what_postgresql_is_told(micro in 0_i64..4_000_000_000_000_000) {
            let moment = Timestamp::from_microsecond(micro).unwrap();
            prop_assert_eq!(for_postgres(moment).parse::<Timestamp>().unwrap(), moment);
            prop_assert_eq!(when(&moment.to_string()), When::At(moment));
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backup(label: &str, stopped: i64) -> Backup {
        let segment = "000000010000000000000002".parse().unwrap();
        Backup {
            label: label.to_owned(),
            kind: BackupKind::Full,
            started_at: at(stopped - 5),
            stopped_at: at(stopped),
            size_bytes: 1,
            repository_bytes: 1,
            damaged: false,
            lsn: (Lsn(1), Lsn(2)),
            segments: (segment, segment),
            archive_id: "15-1".to_owned(),
        }
    }

    fn window(from: i64, to: i64, timeline: u32, backups: &[&str]) -> Window {
        Window {
            from: at(from),
            to: at(to),
            timeline,
            archive_id: "15-1".to_owned(),
            last_segment: "000000010000000000000009".parse().unwrap(),
            backups: backups.iter().map(|it| (*it).to_owned()).collect(),
        }
    }

    #[test]
    fn the_newest_backup_before_the_moment_is_taken_on_the_timeline_of_the_moment() {
        let backups = [backup("a", 100), backup("b", 200), backup("c", 300)];
        let recoverable = Recoverable {
            windows: vec![window(100, 250, 1, &["a", "b"]), window(250, 400, 2, &["a", "b", "c"])],
            gaps: vec![],
            broken_backups: vec![],
        };
        let found = |when| {
            locate(when, at(500), &backups, &recoverable)
                .map(|start| (start.backup.label.clone(), start.window.timeline))
        };
        assert_eq!(found(When::At(at(150))).unwrap(), ("a".to_owned(), 1));
        assert_eq!(found(When::At(at(230))).unwrap(), ("b".to_owned(), 1));
        assert_eq!(found(When::At(at(280))).unwrap(), ("b".to_owned(), 2));
        assert_eq!(found(When::At(at(200))).unwrap().0, "a", "b's last second is not over");
        assert_eq!(found(When::At(at(100))).unwrap().0, "a", "and there is no older one here");
        assert_eq!(found(When::Now).unwrap(), ("c".to_owned(), 2));
        let start = locate(When::Now, at(500), &backups, &recoverable).unwrap();
        let older: Vec<&str> = start.older.iter().map(|it| it.label.as_str()).collect();
        assert_eq!(older, ["a", "b"], "the newest last");
        let start = locate(When::At(at(150)), at(500), &backups, &recoverable).unwrap();
        assert!(start.older.is_empty());
        for (moment, reason) in
            [(501, "in the future"), (450, "nothing that is so new"), (99, "before the first")]
        {
            let error = found(When::At(at(moment))).unwrap_err();
            assert_eq!(error.kind(), tenantry_db::ErrorKind::Refused);
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains("(timeline 2)"), "{text}");
        }
    }

    #[test]
    fn a_gap_is_named() {
        let backups = [backup("a", 100), backup("b", 300)];
        let gap = Gap {
            timeline: 1,
            archive_id: "15-1".to_owned(),
            first: "000000010000000000000005".parse().unwrap(),
            segments: 2,
            after: at(150),
            before: at(290),
        };
        let windows = vec![window(100, 150, 1, &["a"]), window(300, 400, 1, &["b"])];
        let recoverable = Recoverable { windows, gaps: vec![gap], broken_backups: vec![] };
        let error = locate(When::At(at(200)), at(500), &backups, &recoverable).unwrap_err();
        assert!(
            error.to_string().contains("2 segments from `000000010000000000000005`"),
            "{error}"
        );
        let nothing = Recoverable::default();
        let error = locate(When::Now, at(500), &[], &nothing).unwrap_err();
        assert!(error.to_string().contains("there is no window"), "{error}");
    }
}
