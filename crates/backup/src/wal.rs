//! Names and numbers of the write-ahead log: segments, positions, timelines.
//!
//! Owns their arithmetic. Refuses names that are not of their form.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A position in the log, as PostgreSQL writes it: `0/2000028`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl FromStr for Lsn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let part = |text: &str| u32::from_str_radix(text, 16).map_err(drop);
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A segment's name: timeline, and where in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline.
    pub timeline: u32,
    high: u32,
    low: u32,
}

impl FromStr for SegmentName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |c: u8| c.is_ascii_digit() || (b'A'..=b'F').contains(&c);
        if text.len() != 24 || !text.bytes().all(hex) {
            return Err(());
        }
        let part = |range| u32::from_str_radix(&text[range], 16).map_err(drop);
        Ok(Self { timeline: part(0..8)?, high: part(8..16)?, low: part(16..24)? })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.high, self.low)
    }
}

impl Serialize for SegmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How large the segments of a server are: fixed by its `initdb`, 16 MiB unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSize(u64);

impl Default for SegmentSize {
    fn default() -> Self {
        Self(16 * 1024 * 1024)
    }
}

impl SegmentSize {
    const POSSIBLE: std::ops::RangeInclusive<u32> = 20..=30;

    /// The size by which this position lies in this segment, if exactly one is.
    pub(crate) fn by_example(position: Lsn, segment: SegmentName) -> Option<Self> {
        let mut fitting = Self::POSSIBLE
            .map(|bits| Self(1 << bits))
            .filter(|size| size.segment(segment.timeline, size.number(position)) == segment);
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    /// The number of the segment that holds a position, counted from the log's beginning.
    pub(crate) fn number(self, position: Lsn) -> u64 {
        position.0 / self.0
    }

    /// The number of a segment. Names that this size does not have are nearest to what they say.
    pub(crate) fn number_of(self, name: SegmentName) -> u64 {
        u64::from(name.high) * self.in_one_file_number() + u64::from(name.low)
    }

    /// Where a segment begins.
    pub(crate) fn begin(self, name: SegmentName) -> Lsn {
        Lsn(self.number_of(name).saturating_mul(self.0))
    }

    /// The segment of a number.
    pub(crate) fn segment(self, timeline: u32, number: u64) -> SegmentName {
        let part = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (high, low) = (number / self.in_one_file_number(), number % self.in_one_file_number());
        SegmentName { timeline, high: part(high), low: part(low) }
    }

    fn in_one_file_number(self) -> u64 {
        (1 << 32) / self.0
    }
}

/// Where a timeline came from: the timelines before it, each with the position where it was left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct History(pub(crate) Vec<(u32, Lsn)>);

impl History {
    /// Reads a `.history` file: `1<TAB>0/5000000<TAB>before …`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'));
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        let entries: Vec<(u32, Lsn)> = lines.map(entry).collect::<Option<_>>()?;
        (!entries.is_empty()).then_some(Self(entries))
    }

    /// The timeline that it branched off from.
    pub(crate) fn parent(&self) -> Option<u32> {
        self.0.last().map(|(timeline, _)| *timeline)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn names_and_numbers_agree(bits in 20_u32..=30, position in 0_u64..1 << 62, timeline in 1_u32..99) {
            let size = SegmentSize(1 << bits);
            let number = size.number(Lsn(position));
            let segment = size.segment(timeline, number);
            prop_assert_eq!(size.number_of(segment), number);
            prop_assert_eq!(name(&segment.to_string()), segment);
            prop_assert_eq!(Lsn(position).to_string().parse(), Ok(Lsn(position)));
        }

        #[test]
        fn nothing_that_is_read_panics(text in ".{0,40}") {
            let _ = (text.parse::<SegmentName>(), text.parse::<Lsn>(), History::parse(&text));
        }
    }

    #[test]
    fn names_count_on_after_the_last_of_a_file_number() {
        let size = SegmentSize::default();
        let next = size.number_of(name("0000000100000000000000FF")) + 1;
        assert_eq!(size.segment(1, next), name("000000010000000100000000"));
        let size = SegmentSize(64 << 20);
        let next = size.number_of(name("00000001000000000000003F")) + 1;
        assert_eq!(size.segment(1, next), name("000000010000000100000000"));
    }

    #[test]
    fn the_size_is_known_from_one_backup() {
        let by = |lsn: &str, segment| SegmentSize::by_example(lsn.parse().unwrap(), name(segment));
        assert_eq!(by("0/2000028", "000000010000000000000002"), Some(SegmentSize::default()));
        assert_eq!(by("3/2000028", "000000010000000300000001"), Some(SegmentSize(32 << 20)));
        assert_eq!(by("0/28", "000000010000000000000000"), None, "every size fits");
        assert_eq!(by("0/2000028", "000000010000000000000003"), None, "none does");
    }

    #[test]
    fn a_history_is_read() {
        let text =
            "1\t0/5000000\tno recovery target specified\n\n2\t0/7000148\tbefore 2026-11-24\n";
        let history = History::parse(text).unwrap();
        assert_eq!(history.0, [(1, Lsn(0x500_0000)), (2, Lsn(0x700_0148))]);
        assert_eq!(history.parent(), Some(2));
        assert_eq!(History::parse("1 x"), None);
        assert_eq!(History::parse(""), None);
    }
}
