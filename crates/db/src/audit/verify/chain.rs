//! Going along the chain, link by link, in constant memory.
//!
//! Each link is recomputed from the hash that stands before it, not from what should stand there: one
//! entry that was changed is then one broken link, whatever follows.

use data_encoding::HEXLOWER;
use tokio_postgres::Row;

use super::super::anchor::AnchoredHead;
use super::super::link::{GENESIS, Hash, LogEntry, Micros, Place, seal};
use super::finding::{Finding, FindingKind, Findings, Head};

/// A seal with the entry that it is for, as the database has them.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) position: i64,
    pub(super) entry_id: i64,
    pub(super) hash: Vec<u8>,
    pub(super) sealed_at: Micros,
    /// None if the entry is gone.
    pub(super) entry: Option<LogEntry>,
}

impl Link {
    pub(super) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let there: Option<i64> = row.try_get("id")?;
        Ok(Self {
            position: row.try_get("position")?,
            entry_id: row.try_get("entry_id")?,
            hash: row.try_get("hash")?,
            sealed_at: row.try_get("sealed_at")?,
            entry: there.map(|_| LogEntry::from_row(row)).transpose()?,
        })
    }
}

/// A link whose hash is not that of its entry.
struct Broken {
    /// Where among the findings it stands.
    finding: usize,
    link: Link,
    previous: Hash,
}

/// The way along the chain.
pub(super) struct Walk {
    /// The last place that was looked at.
    position: i64,
    /// The hash that stood there; none where that is not known.
    previous: Option<Hash>,
    head: Option<Head>,
    heads: Vec<AnchoredHead>,
    /// How many of the heads are behind.
    passed: usize,
    broken: Vec<Broken>,
    findings: Findings,
}

impl Walk {
    /// `heads` are those that must be met, whatever their order.
    pub(super) fn new(mut heads: Vec<AnchoredHead>) -> Self {
        // Position 0 is a log without any seal, of which there is nothing to be met.
        heads.retain(|head| head.position > 0);
        heads.sort_by_key(|head| head.position);
        Self {
            position: 0,
            previous: Some(GENESIS),
            head: None,
            heads,
            passed: 0,
            broken: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// Takes the next seal.
    pub(super) fn step(&mut self, link: Link) {
        if link.position <= self.position {
            let message = format!("position {} stands in the chain twice", link.position);
            self.add(Finding::new(FindingKind::SealInserted, message).at(link.position));
            return;
        }
        if link.position > self.position + 1 {
            self.missing(self.position + 1, link.position - 1);
        }
        self.position = link.position;
        let hash = Hash::try_from(link.hash.as_slice()).ok();
        let before = std::mem::replace(&mut self.previous, hash);
        self.head = Some(Head {
            position: link.position,
            hash: HEXLOWER.encode(&link.hash),
            sealed_at: link.sealed_at.moment(),
        });
        self.meet(&link);
        let Some(entry) = &link.entry else {
            let (id, position) = (link.entry_id, link.position);
            let message = format!("entry {id}, sealed at position {position}, was deleted");
            let finding = Finding::new(FindingKind::EntryDeleted, message);
            return self.add(finding.at(position).entry(id));
        };
        // Behind a gap it can't be known what the hash should be.
        let Some(previous) = before else { return };
        let place = Place { previous, position: link.position, sealed_at: link.sealed_at };
        if hash != Some(seal(place, entry)) {
            let (id, position) = (link.entry_id, link.position);
            let message = format!(
                "entry {id}, at position {position}, is not as it was sealed: the entry was changed, or its seal"
            );
            let finding = self.findings.shown.len();
            self.add(Finding::new(FindingKind::EntryChanged, message).at(position).entry(id));
            if finding < Findings::MAX {
                self.broken.push(Broken { finding, link, previous });
            }
        }
    }

    /// The chain is at its end.
    pub(super) fn end(mut self) -> (Option<Head>, Findings) {
        self.name_exchanges();
        if let (Some(first), Some(last)) = (self.heads.get(self.passed), self.heads.last()) {
            let message = format!(
                "the log ends at position {}, but position {} was anchored at {} (line {})",
                self.position, last.position, last.recorded_at, last.sequence
            );
            let position = first.position.max(self.position + 1);
            self.findings.add(Finding::new(FindingKind::LogTruncated, message).at(position));
        }
        (self.head, self.findings)
    }

    fn add(&mut self, finding: Finding) {
        self.findings.add(finding);
    }

    fn missing(&mut self, from: i64, to: i64) {
        let message = match to - from {
            0 => format!("the seal at position {from} is missing"),
            _ => format!("the seals at positions {from} to {to} are missing"),
        };
        self.add(Finding::new(FindingKind::SealsMissing, message).at(from));
        self.previous = None;
        while self.heads.get(self.passed).is_some_and(|head| head.position <= to) {
            self.passed += 1;
        }
    }

    /// Compares a seal with the heads that were anchored there.
    fn meet(&mut self, link: &Link) {
        let hash = HEXLOWER.encode(&link.hash);
        while let Some(head) = self.heads.get(self.passed) {
            if head.position > link.position {
                return;
            }
            self.passed += 1;
            if head.hash != hash {
                let message = format!(
                    "the seal at position {} is not the one that was anchored at {} (line {}): \
                     the log was sealed anew",
                    link.position, head.recorded_at, head.sequence
                );
                let finding = Finding::new(FindingKind::LogRewritten, message);
                self.findings.add(finding.at(link.position));
            }
        }
    }

    /// Of broken links, those that come right when two things are put back in each other's place.
    fn name_exchanges(&mut self) {
        for (n, one) in self.broken.iter().enumerate() {
            let other =
                self.broken[n + 1..].iter().find_map(|other| Some((other, exchanged(one, other)?)));
            let Some((other, what)) = other else { continue };
            let (a, b) = (&one.link, &other.link);
            let message = format!(
                "{what} at positions {} (entry {}) and {} (entry {}) were exchanged",
                a.position, a.entry_id, b.position, b.entry_id
            );
            for broken in [one, other] {
                let finding = &mut self.findings.shown[broken.finding];
                finding.kind = FindingKind::EntriesExchanged;
                finding.message.clone_from(&message);
            }
        }
    }
}

/// Whether the first of two links comes right with the second one's entry or seal.
fn exchanged(one: &Broken, other: &Broken) -> Option<&'static str> {
    let (mine, theirs) = (one.link.entry.as_ref()?, other.link.entry.as_ref()?);
    let place = Place {
        previous: one.previous,
        position: one.link.position,
        sealed_at: one.link.sealed_at,
    };
    let sealed = |place: Place, entry: &LogEntry, hash: &[u8]| seal(place, entry)[..] == *hash;
    if sealed(place, &LogEntry { id: mine.id, ..theirs.clone() }, &one.link.hash) {
        return Some("the contents of the entries");
    }
    if sealed(place, theirs, &one.link.hash) {
        return Some("the entries");
    }
    let theirs_here = Place { sealed_at: other.link.sealed_at, ..place };
    sealed(theirs_here, theirs, &other.link.hash).then_some("the seals")
}

#[cfg(test)]
mod tests {
    use super::super::super::link::tests::entry;
    use super::*;

    const ENTRIES: i64 = 6;

    fn chain() -> Vec<Link> {
        let mut previous = GENESIS;
        (1..=ENTRIES)
            .map(|position| {
                let entry =
                    LogEntry { actor: Some(format!("a{position}")), ..entry(position + 10) };
                let sealed_at = Micros(position);
                previous = seal(Place { previous, position, sealed_at }, &entry);
                let hash = previous.to_vec();
                Link { position, entry_id: entry.id, hash, sealed_at, entry: Some(entry) }
            })
            .collect()
    }

    fn head_at(position: i64, hash: &[u8]) -> AnchoredHead {
        AnchoredHead {
            sequence: 1,
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            position,
            hash: HEXLOWER.encode(hash),
            restored: false,
            previous: String::new(),
        }
    }

    fn walked(chain: Vec<Link>, heads: Vec<AnchoredHead>) -> String {
        let mut walk = Walk::new(heads);
        chain.into_iter().for_each(|link| walk.step(link));
        let (_, findings) = walk.end();
        findings.shown.iter().map(|f| format!("{f}\n")).collect()
    }

    fn spoiled(spoil: impl FnOnce(&mut Vec<Link>)) -> String {
        let whole = chain();
        let heads = vec![head_at(4, &whole[3].hash), head_at(6, &whole[5].hash)];
        let mut spoiled_chain = whole;
        spoil(&mut spoiled_chain);
        walked(spoiled_chain, heads)
    }

    #[test]
    fn a_whole_chain_has_no_finding() {
        assert_eq!(spoiled(|_| {}), "");
        assert_eq!(walked(Vec::new(), vec![head_at(0, &GENESIS)]), "");
    }

    #[test]
    fn each_change_is_named_where_it_is() {
        let edited = spoiled(|chain| chain[2].entry.as_mut().unwrap().actor = None);
        insta::assert_snapshot!(edited, @"entry 13, at position 3, is not as it was sealed: the entry was changed, or its seal");
        let deleted = spoiled(|chain| chain[2].entry = None);
        insta::assert_snapshot!(deleted, @"entry 13, sealed at position 3, was deleted");
        let unsealed = spoiled(|chain| drop(chain.drain(1..4)));
        insta::assert_snapshot!(unsealed, @"the seals at positions 2 to 4 are missing");
        let cut = spoiled(|chain| chain.truncate(2));
        insta::assert_snapshot!(cut, @"the log ends at position 2, but position 6 was anchored at 1970-01-01T00:00:00Z (line 1)");
        let inserted = spoiled(|chain| chain.insert(2, chain[1].clone()));
        insta::assert_snapshot!(inserted, @"position 2 stands in the chain twice");
        let short_hash = spoiled(|chain| chain[2].hash = vec![1]);
        insta::assert_snapshot!(short_hash, @"entry 13, at position 3, is not as it was sealed: the entry was changed, or its seal");
    }

    #[test]
    fn a_chain_that_was_sealed_anew_is_whole_but_not_the_one_that_was_anchored() {
        let whole = chain();
        let heads = vec![head_at(4, &whole[3].hash)];
        let mut previous = GENESIS;
        let mut forged = whole;
        forged[1].entry.as_mut().unwrap().actor = Some("somebody else".to_owned());
        for link in &mut forged {
            let (position, sealed_at) = (link.position, link.sealed_at);
            previous = seal(Place { previous, position, sealed_at }, link.entry.as_ref().unwrap());
            link.hash = previous.to_vec();
        }
        assert_eq!(walked(forged.clone(), Vec::new()), "");
        insta::assert_snapshot!(walked(forged, heads), @"the seal at position 4 is not the one that was anchored at 1970-01-01T00:00:00Z (line 1): the log was sealed anew");
    }

    #[test]
    fn whatever_was_exchanged_is_named_with_both() {
        let contents = spoiled(|chain| {
            let (one, other) = (chain[1].entry.take().unwrap(), chain[4].entry.take().unwrap());
            chain[1].entry = Some(LogEntry { id: one.id, ..other.clone() });
            chain[4].entry = Some(LogEntry { id: other.id, ..one });
        });
        insta::assert_snapshot!(contents, @"
        the contents of the entries at positions 2 (entry 12) and 5 (entry 15) were exchanged
        the contents of the entries at positions 2 (entry 12) and 5 (entry 15) were exchanged
        ");
        let entries = spoiled(|chain| {
            let (one, other) = (chain[1].clone(), chain[4].clone());
            (chain[1].entry, chain[1].entry_id) = (other.entry, other.entry_id);
            (chain[4].entry, chain[4].entry_id) = (one.entry, one.entry_id);
        });
        insta::assert_snapshot!(entries, @"
        the entries at positions 2 (entry 15) and 5 (entry 12) were exchanged
        the entries at positions 2 (entry 15) and 5 (entry 12) were exchanged
        ");
        let seals = spoiled(|chain| {
            chain.swap(1, 2);
            (chain[1].position, chain[2].position) = (2, 3);
        });
        insta::assert_snapshot!(seals, @"
        the seals at positions 2 (entry 13) and 3 (entry 12) were exchanged
        the seals at positions 2 (entry 13) and 3 (entry 12) were exchanged
        entry 14, at position 4, is not as it was sealed: the entry was changed, or its seal
        ");
    }

    #[test]
    fn many_broken_links_are_counted_and_the_first_ones_shown() {
        let mut walk = Walk::new(Vec::new());
        for position in 1..=10_000 {
            let link = Link {
                position,
                entry_id: position,
                hash: vec![0; 32],
                sealed_at: Micros(0),
                entry: Some(entry(position)),
            };
            walk.step(link);
        }
        let (_, findings) = walk.end();
        assert_eq!((findings.count, findings.shown.len()), (10_000, Findings::MAX));
    }
}
