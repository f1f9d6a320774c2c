//! What `verify` says, read from its text: its exit code is 0 on corruption, too.
//!
//! It compares each file in the repository with its checksum. Of a segment that is missing it says nothing:
//! that is [`crate::windows`]' business.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a verification ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When it ended.
    pub at: Timestamp,
    /// Whether every file is what it was.
    pub ok: bool,
    /// What is wrong, in pgBackRest's words.
    pub problems: Vec<String>,
}

impl Verified {
    /// Reads the text that `verify --output=text` writes.
    pub(crate) fn parse(text: &str, at: Timestamp) -> Result<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
        let status = lines.iter().find_map(|line| line.strip_prefix("status: "));
        let status = status.ok_or_else(|| Error::Unintelligible {
            command: "verify",
            reason: "there is no line `status: …`".to_owned(),
        })?;
        let mut problems = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let is_bad = line.contains("status: invalid")
                || line.contains("status: manifest")
                || line.contains("status: in-progress") && status != "ok";
            let counts = |line: &str| {
                ["missing: ", "invalid: ", "other: "]
                    .iter()
                    .any(|word| line.split(word).skip(1).any(|rest| !rest.starts_with("0")))
            };
            if is_bad || (index > 0 && !line.contains("status:") && counts(line)) {
                problems.push((*line).to_owned());
            }
        }
        let ok = status == "ok" && problems.is_empty();
        if !ok && problems.is_empty() {
            let others =
                lines.iter().filter(|it| !it.starts_with("stanza:") && !it.starts_with("status:"));
            problems.extend(others.map(|line| (*line).to_owned()));
            if problems.is_empty() {
                problems.push(format!("status: {status}"));
            }
        }
        Ok(Self { at, ok, problems })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Verified {
        Verified::parse(text, Timestamp::UNIX_EPOCH).unwrap()
    }

    const GOOD: &str = "stanza: tenantry\nstatus: ok
  archiveId: 15-1, total WAL checked: 3, total valid WAL: 3
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261124-142052F, status: valid, total files checked: 964, total valid files: 964
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0\n";

    #[test]
    fn a_good_repository_is_good() {
        assert_eq!(parse(GOOD), Verified { at: Timestamp::UNIX_EPOCH, ok: true, problems: vec![] });
        assert!(parse("stanza: tenantry\nstatus: ok\n").ok);
    }

    #[test]
    fn each_kind_of_damage_is_seen_and_named() {
        let bad = parse(
            "stanza: tenantry\nstatus: error
  backup: 20261124-142126F, status: invalid, total files checked: 964, total valid files: 963
    checksum invalid: 1\n",
        );
        assert!(!bad.ok);
        assert_eq!(bad.problems.len(), 2);
        let gone = parse("stanza: tenantry\nstatus: error\n  No usable backup.info file\n");
        assert_eq!(
            (gone.ok, &*gone.problems),
            (false, &["No usable backup.info file".to_owned()][..])
        );
        // Counts are believed more than the word above them.
        let lying = GOOD.replace("missing: 0", "missing: 10");
        assert!(!parse(&lying).ok);
        assert!(!parse("stanza: t\nstatus: error\n").ok);
        assert!(Verified::parse("", Timestamp::UNIX_EPOCH).is_err());
    }
}
