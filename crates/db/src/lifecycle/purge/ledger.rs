//! The erasure ledger: which tenants were erased, in a file outside the database.
//!
//! A restore to an earlier time brings back what was purged since; this file says what must go again
//! before anybody is served. A chained file (`chained_file`), with ids and times only.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;

use crate::chained_file::{Chain, ChainedEntry, ChainedFile, OpenChain};
use crate::config::Config;
use crate::error::Error;
use crate::ids::TenantId;
use crate::lifecycle::ErasureError;
use crate::models::purges;

pub(super) use crate::chained_file::Recorded;

/// The ledger of an installation.
#[derive(Debug, Clone)]
pub struct ErasureLedger {
    file: ChainedFile,
    anchors: bool,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureEntry {
    /// Its number, from 1.
    pub sequence: i64,
    /// When it was written, by the clock of whoever did.
    pub recorded_at: Timestamp,
    /// Who was erased.
    pub tenant_id: TenantId,
    /// SHA-256 of the line before, in hex; zeros for the first.
    pub previous: String,
}

impl ChainedEntry for ErasureEntry {
    fn sequence(&self) -> i64 {
        self.sequence
    }

    fn previous(&self) -> &str {
        &self.previous
    }
}

impl ErasureLedger {
    const FILE: &str = "erasures.jsonl";

    /// The ledger that the configuration names.
    ///
    /// # Errors
    /// [`Error::Config`] if `erasure.ledger_dir` is not set.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let dir = config.erasure.ledger_dir.clone();
        let dir = dir.ok_or_else(|| Error::unset("erasure.ledger_dir"))?;
        Ok(Self { file: ChainedFile::new(dir, Self::FILE), anchors: true })
    }

    /// The same, for work on a copy of the database: the heads of its audit log are not written beside the ledger,
    /// where they would contradict those of the installation.
    #[must_use]
    pub fn of_copy(self) -> Self {
        Self { anchors: false, ..self }
    }

    /// Whether the audit log is anchored beside it.
    pub(crate) fn anchors(&self) -> bool {
        self.anchors
    }

    /// All entries, oldest first. None if there is no file yet.
    ///
    /// # Errors
    /// [`ErasureError::LedgerDamaged`] where the chain is broken.
    pub fn entries(&self) -> Result<Vec<ErasureEntry>, Error> {
        let chain: Chain<ErasureEntry> = self.file.read().map_err(ErasureError::from)?;
        Ok(chain.entries)
    }

    /// An entry by its number, with the SHA-256 of its line.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub(super) fn find(&self, sequence: i64) -> Result<Option<(ErasureEntry, Recorded)>, Error> {
        let chain: Chain<ErasureEntry> = self.file.read().map_err(ErasureError::from)?;
        let Ok(index) = usize::try_from(sequence.saturating_sub(1)) else { return Ok(None) };
        Ok(chain.entries.get(index).cloned().zip(chain.recorded(index)))
    }

    /// Looks whether it is whole and holds what this database knows of, and changes nothing.
    ///
    /// # Errors
    /// What a purge would stop at.
    pub(crate) async fn check(&self, db: &impl GenericClient) -> Result<(), Error> {
        let known = purges::newest_in_ledger(db).await?;
        let chain: Chain<ErasureEntry> =
            self.file.read_beside().await.map_err(ErasureError::from)?;
        Ok(chain.require(known).map_err(ErasureError::from)?)
    }

    /// Its directory, where the audit log's heads lie as well.
    pub(crate) fn dir(&self) -> &Path {
        self.file.dir()
    }

    /// Locks it against other processes, reads it, and cuts off what a crash left of an entry.
    pub(super) async fn open(&self) -> Result<OpenLedger, Error> {
        Ok(OpenLedger(self.file.open().await.map_err(ErasureError::from)?))
    }
}

/// The ledger while this process has it. Closing it unlocks it.
#[derive(Debug)]
pub(super) struct OpenLedger(OpenChain<ErasureEntry>);

impl OpenLedger {
    /// Refuses a ledger that lacks an entry which the database knows of: it is another file, or was cut.
    pub(super) fn require(&self, known: Option<(i64, Vec<u8>)>) -> Result<(), ErasureError> {
        Ok(self.0.chain().require(known)?)
    }

    /// Writes the tenant's entry, if there is none yet, and returns when it is on disk.
    pub(super) async fn record(self, tenant: TenantId) -> Result<Recorded, Error> {
        let chain = self.0.chain();
        let former = chain.entries.iter().rposition(|entry| entry.tenant_id == tenant);
        if let Some(recorded) = former.and_then(|index| chain.recorded(index)) {
            return Ok(recorded);
        }
        let entry = move |sequence, previous| ErasureEntry {
            sequence,
            recorded_at: Timestamp::now(),
            tenant_id: tenant,
            previous,
        };
        Ok(self.0.append(entry).await.map_err(ErasureError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn ledger() -> (tempfile::TempDir, ErasureLedger) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ErasureLedger {
            file: ChainedFile::new(dir.path().join("erasure"), ErasureLedger::FILE),
            anchors: true,
        };
        (dir, ledger)
    }

    async fn record(ledger: &ErasureLedger, tenant: TenantId) -> Recorded {
        ledger.open().await.unwrap().record(tenant).await.unwrap()
    }

    #[tokio::test]
    async fn entries_form_a_chain_and_each_tenant_has_one() {
        let (_dir, ledger) = ledger();
        assert_eq!(ledger.entries().unwrap(), []);
        let (one, two) = (TenantId::random(), TenantId::random());
        let first = record(&ledger, one).await;
        let second = record(&ledger, two).await;
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert_eq!(record(&ledger, one).await, first, "it is there already");
        let entries = ledger.entries().unwrap();
        assert_eq!(entries.iter().map(|e| e.tenant_id).collect::<Vec<_>>(), [one, two]);
        assert_eq!(entries[1].previous, HEXLOWER.encode(&first.hash));
        let open = ledger.open().await.unwrap();
        assert!(open.require(Some((2, second.hash.to_vec()))).is_ok());
        assert!(open.require(Some((2, first.hash.to_vec()))).is_err());
        assert!(open.require(Some((3, second.hash.to_vec()))).is_err());
    }

    #[tokio::test]
    async fn what_a_crash_left_of_an_entry_is_cut_off_wherever_it_was() {
        let (_dir, ledger) = ledger();
        let (one, two) = (TenantId::random(), TenantId::random());
        record(&ledger, one).await;
        let whole = std::fs::read(ledger.file.path()).unwrap();
        record(&ledger, two).await;
        let both = std::fs::read(ledger.file.path()).unwrap();
        // Without its line's end alone, an entry is whole: it stays.
        std::fs::write(ledger.file.path(), &both[..both.len() - 1]).unwrap();
        assert_eq!(ledger.entries().unwrap().len(), 2);
        drop(ledger.open().await.unwrap());
        assert_eq!(std::fs::read(ledger.file.path()).unwrap(), both);
        for torn in whole.len() + 1..both.len() - 1 {
            std::fs::write(ledger.file.path(), &both[..torn]).unwrap();
            assert_eq!(ledger.entries().unwrap().len(), 1, "{torn}");
            drop(ledger.open().await.unwrap());
            assert_eq!(std::fs::read(ledger.file.path()).unwrap(), whole, "{torn}");
        }
        assert_eq!(record(&ledger, two).await.sequence, 2);
    }

    #[tokio::test]
    async fn a_changed_an_exchanged_and_a_lost_line_are_seen() {
        let (_dir, ledger) = ledger();
        for _ in 0..3 {
            record(&ledger, TenantId::random()).await;
        }
        let text = std::fs::read_to_string(ledger.file.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let other = TenantId::random().to_string();
        let first: ErasureEntry = serde_json::from_str(lines[0]).unwrap();
        let renamed = lines[0].replace(&first.tenant_id.to_string(), &other);
        for (changed, line) in [
            (vec![renamed.as_str(), lines[1], lines[2]], 2),
            (vec![lines[0], lines[2], lines[1]], 2),
            (vec![lines[1], lines[2]], 1),
            (vec![lines[0], "{}", lines[2]], 2),
        ] {
            std::fs::write(ledger.file.path(), changed.join("\n") + "\n").unwrap();
            let Err(Error::Erasure(ErasureError::LedgerDamaged { line: found, .. })) =
                ledger.open().await
            else {
                panic!("{changed:?} was taken")
            };
            assert_eq!(found, line);
        }
    }

    #[tokio::test]
    async fn one_writer_at_a_time() {
        let (_dir, ledger) = ledger();
        let open = ledger.open().await.unwrap();
        assert!(ledger.file.try_open::<ErasureEntry>().unwrap().is_none());
        drop(open);
        assert!(ledger.file.try_open::<ErasureEntry>().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_directory_without_a_parent_is_refused() {
        let (dir, _) = ledger();
        let ledger = ErasureLedger {
            file: ChainedFile::new(dir.path().join("a/b"), ErasureLedger::FILE),
            anchors: true,
        };
        assert!(matches!(
            ledger.open().await,
            Err(Error::Erasure(ErasureError::Ledger { doing: "make the directory of", .. }))
        ));
    }
}
