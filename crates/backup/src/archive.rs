//! The log in the repository, as `repo-ls --output=json` lists it.
//!
//! Owns which file is which segment. pgBackRest itself tells the first and the last one only, and nothing of
//! what is missing between.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::wal::{History, SegmentName};

/// The log of one server in the repository.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    /// By name.
    pub(crate) segments: BTreeMap<SegmentName, Segment>,
    /// When each timeline began, and where it came from. Filled in two steps: the listing has no contents.
    pub(crate) timelines: BTreeMap<u32, Branch>,
}

/// A segment in the repository.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) arrived: Timestamp,
    /// SHA-1 of what the server wrote, in hex. pgBackRest puts it into the file's name, and does not look at it again
    /// when the file is read.
    pub(crate) checksum: Box<str>,
}

/// The beginning of a timeline.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) began_at: Timestamp,
    pub(crate) history: History,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    time: i64,
}

impl Archive {
    /// Reads the listing of one archive (`archive/<stanza>/15-1`).
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let odd = |reason: String| Error::Unintelligible { command: "repo-ls", reason };
        let entries: BTreeMap<String, Entry> =
            serde_json::from_str(text).map_err(|e| odd(e.to_string()))?;
        let mut archive = Self::default();
        for (path, entry) in entries.into_iter().filter(|(_, entry)| entry.kind == "file") {
            let name = path.rsplit('/').next().unwrap_or_default();
            let Ok(time) = Timestamp::from_second(entry.time) else { continue };
            if let Some(timeline) = history_timeline(name) {
                let history = History::default();
                archive.timelines.insert(timeline, Branch { began_at: time, history });
            } else if let Some((segment, checksum)) = segment(name).filter(|_| entry.size > 0) {
                archive.segments.insert(segment, Segment { arrived: time, checksum });
            }
        }
        Ok(archive)
    }

    /// The newest segment of the newest timeline.
    pub fn newest(&self) -> Option<(SegmentName, Timestamp)> {
        self.segments.last_key_value().map(|(name, it)| (*name, it.arrived))
    }
}

/// `000000010000000000000001-<sha1>.zst`, or without the ending. Not `.partial`, `.backup`.
fn segment(name: &str) -> Option<(SegmentName, Box<str>)> {
    const SHA1_CHARS: usize = 40;
    let (segment, rest) = name.split_once('-')?;
    let checksum = rest.split('.').next()?;
    let is_checksum =
        checksum.len() == SHA1_CHARS && checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_checksum { Some((segment.parse().ok()?, checksum.into())) } else { None }
}

fn history_timeline(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".history").filter(|it| it.len() == 8)?;
    u32::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_told_from_what_lies_beside_them() {
        let sha = "ebbe965b07ed3eaf356988a6f4deb3a37cfa901c";
        let file = |name: String, size: u64| {
            format!(r#""0000000100000000/{name}":{{"type":"file","size":{size},"time":100}}"#)
        };
        let listing = [
            r#"".":{"type":"path"}"#.to_owned(),
            file(format!("000000010000000000000001-{sha}.zst"), 9),
            file(format!("000000010000000000000002-{sha}"), 9),
            file(format!("000000010000000000000003-{sha}.zst"), 0),
            file(format!("000000010000000000000004.partial-{sha}.zst"), 9),
            file("000000010000000000000002.00000028.backup".to_owned(), 9),
            r#""00000002.history":{"type":"file","size":41,"time":200}"#.to_owned(),
            r#""archive.info":{"type":"file","size":41,"time":200}"#.to_owned(),
        ];
        let archive = Archive::parse(&format!("{{{}}}", listing.join(","))).unwrap();
        let names: Vec<String> = archive.segments.keys().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["000000010000000000000001", "000000010000000000000002"],
            "an empty file is no segment"
        );
        let second = "000000010000000000000002".parse().unwrap();
        assert_eq!(&*archive.segments[&second].checksum, sha);
        assert_eq!(archive.timelines[&2].began_at.as_second(), 200);
        assert!(Archive::parse("[]").is_err());
    }
}
