//! The erasure ledger: which tenants were erased, in a file outside the database.
//!
//! A restore to an earlier time brings back what was purged since; this file says what must go again
//! before anybody is served. One JSON object on each line, with ids and times only; each holds the
//! SHA-256 of the line before it. An entry counts when its line has ended and is on disk: what a crash
//! leaves of one is cut off. Refuses to write to a file that is not whole.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::error::Error;
use crate::ids::TenantId;
use crate::lifecycle::ErasureError;

/// The ledger of an installation.
#[derive(Debug, Clone)]
pub struct ErasureLedger {
    dir: PathBuf,
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

/// An entry's number and the SHA-256 of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) sequence: i64,
    pub(crate) hash: [u8; 32],
}

impl ErasureLedger {
    const FILE: &str = "erasures.jsonl";

    /// The ledger that the configuration names.
    ///
    /// # Errors
    /// [`Error::Config`] if `erasure.ledger_dir` is not set.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let dir = config.erasure.ledger_dir.clone();
        Ok(Self { dir: dir.ok_or_else(|| Error::unset("erasure.ledger_dir"))? })
    }

    /// All entries, oldest first. None if there is no file yet.
    ///
    /// # Errors
    /// [`ErasureError::LedgerDamaged`] where the chain is broken.
    pub fn entries(&self) -> Result<Vec<ErasureEntry>, Error> {
        let path = self.path();
        match File::open(&path) {
            Ok(file) => Ok(read(&file, &path)?.entries),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(ErasureError::Ledger { doing: "read", path, source }.into()),
        }
    }

    /// Looks whether it is whole and holds what the database knows of, and changes nothing.
    ///
    /// # Errors
    /// What a purge would stop at.
    pub(crate) async fn check(&self, known: Option<(i64, Vec<u8>)>) -> Result<(), Error> {
        let ledger = self.clone();
        on_a_thread(move || {
            let path = ledger.path();
            let content = match File::open(&path) {
                Ok(file) => read(&file, &path)?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Content::default(),
                Err(source) => return Err(ErasureError::Ledger { doing: "read", path, source }),
            };
            content.require(known, &path)
        })
        .await
    }

    fn path(&self) -> PathBuf {
        self.dir.join(Self::FILE)
    }

    /// Locks it against other processes, reads it, and cuts off what a crash left of an entry.
    pub(super) async fn open(&self) -> Result<OpenLedger, Error> {
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(100);
        for _ in 0..TRIES {
            let ledger = self.clone();
            if let Some(open) = on_a_thread(move || ledger.try_open()).await? {
                return Ok(open);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ErasureError::LedgerLocked(self.path()).into())
    }

    fn try_open(&self) -> Result<Option<OpenLedger>, ErasureError> {
        let path = self.path();
        let fail = |doing| {
            let path = path.clone();
            move |source| ErasureError::Ledger { doing, path, source }
        };
        // Its parents must be there: on a typing error, or where a disk is not mounted, a ledger of its
        // own would begin.
        match std::fs::DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(fail("make the directory of")(e));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(fail("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(fail("lock")(e)),
        }
        let content = read(&file, &path)?;
        if content.unended {
            // All of it is there and in its place, so it is no half of one: it was written, or an editor
            // took the line's end.
            let mut end = &file;
            end.write_all(b"\n").and_then(|()| file.sync_all()).map_err(fail("mend"))?;
        }
        if content.torn_bytes > 0 {
            tracing::warn!(bytes = content.torn_bytes, "cut off the rest of an unfinished entry");
            file.set_len(content.whole_bytes)
                .and_then(|()| file.sync_all())
                .map_err(fail("mend"))?;
        }
        Ok(Some(OpenLedger { file, path, dir: self.dir.clone(), content }))
    }
}

/// The ledger while this process has it. Closing it unlocks it.
#[derive(Debug)]
pub(super) struct OpenLedger {
    file: File,
    path: PathBuf,
    dir: PathBuf,
    content: Content,
}

impl OpenLedger {
    /// Refuses a ledger that lacks an entry which the database knows of: it is another file, or was cut.
    pub(super) fn require(&self, known: Option<(i64, Vec<u8>)>) -> Result<(), ErasureError> {
        self.content.require(known, &self.path)
    }

    /// Writes the tenant's entry, if there is none yet, and returns when it is on disk.
    pub(super) async fn record(mut self, tenant: TenantId) -> Result<Recorded, Error> {
        if let Some(recorded) = self.content.by_tenant.get(&tenant) {
            return Ok(*recorded);
        }
        on_a_thread(move || self.append(tenant)).await
    }

    fn append(&mut self, tenant: TenantId) -> Result<Recorded, ErasureError> {
        let sequence = i64::try_from(self.content.hashes.len()).unwrap_or(i64::MAX) + 1;
        let previous = self.content.hashes.last().copied().unwrap_or_default();
        let entry = ErasureEntry {
            sequence,
            recorded_at: Timestamp::now(),
            tenant_id: tenant,
            previous: HEXLOWER.encode(&previous),
        };
        let mut line = serde_json::to_vec(&entry).unwrap_or_default();
        let hash = Sha256::digest(&line).into();
        line.push(b'\n');
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| self.file.sync_all())
            // The file's name, too, the first time.
            .and_then(|()| File::open(&self.dir)?.sync_all());
        if let Err(source) = written {
            // Whether the line is on disk is unknown. It must not be, since the purge will be taken back.
            let _ = self.file.set_len(self.content.whole_bytes).and_then(|()| self.file.sync_all());
            return Err(ErasureError::Ledger { doing: "write", path: self.path.clone(), source });
        }
        Ok(Recorded { sequence, hash })
    }
}

#[derive(Debug, Default)]
struct Content {
    entries: Vec<ErasureEntry>,
    hashes: Vec<[u8; 32]>,
    by_tenant: BTreeMap<TenantId, Recorded>,
    whole_bytes: u64,
    torn_bytes: u64,
    /// The last entry is whole, but its line has no end.
    unended: bool,
}

impl Content {
    fn require(&self, known: Option<(i64, Vec<u8>)>, path: &Path) -> Result<(), ErasureError> {
        let Some((sequence, hash)) = known else { return Ok(()) };
        let index = usize::try_from(sequence - 1).ok();
        let found = index.and_then(|index| self.hashes.get(index));
        if found.is_some_and(|found| found[..] == hash[..]) {
            return Ok(());
        }
        Err(ErasureError::LedgerIncomplete { path: path.to_owned(), sequence })
    }

    /// Takes the next line.
    fn push(&mut self, line: &[u8], path: &Path) -> Result<(), ErasureError> {
        let number = self.hashes.len() + 1;
        let damaged =
            |what| ErasureError::LedgerDamaged { path: path.to_owned(), line: number, what };
        let entry: ErasureEntry =
            serde_json::from_slice(line).map_err(|_| damaged("it is no entry"))?;
        let previous = self.hashes.last().copied().unwrap_or_default();
        if entry.previous != HEXLOWER.encode(&previous) {
            return Err(damaged(
                "it does not follow from the line before: one of the two was changed",
            ));
        }
        if usize::try_from(entry.sequence).ok() != Some(number) {
            return Err(damaged("its number is not the next one"));
        }
        let hash = Sha256::digest(line).into();
        self.by_tenant.insert(entry.tenant_id, Recorded { sequence: entry.sequence, hash });
        self.hashes.push(hash);
        self.entries.push(entry);
        Ok(())
    }
}

fn read(file: &File, path: &Path) -> Result<Content, ErasureError> {
    let fail = |source| ErasureError::Ledger { doing: "read", path: path.to_owned(), source };
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0)).map_err(fail)?;
    let mut content = Content::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(fail)? as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
            content.push(&line, path)?;
            content.whole_bytes += bytes;
        } else {
            content.unended = content.push(&line, path).is_ok();
            match content.unended {
                true => content.whole_bytes += bytes + 1,
                false => content.torn_bytes = bytes,
            }
            return Ok(content);
        }
    }
}

/// A disk may take its time.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ErasureError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (tempfile::TempDir, ErasureLedger) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ErasureLedger { dir: dir.path().join("erasure") };
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
        let whole = std::fs::read(ledger.path()).unwrap();
        record(&ledger, two).await;
        let both = std::fs::read(ledger.path()).unwrap();
        // Without its line's end alone, an entry is whole: it stays.
        std::fs::write(ledger.path(), &both[..both.len() - 1]).unwrap();
        assert_eq!(ledger.entries().unwrap().len(), 2);
        drop(ledger.open().await.unwrap());
        assert_eq!(std::fs::read(ledger.path()).unwrap(), both);
        for torn in whole.len() + 1..both.len() - 1 {
            std::fs::write(ledger.path(), &both[..torn]).unwrap();
            assert_eq!(ledger.entries().unwrap().len(), 1, "{torn}");
            drop(ledger.open().await.unwrap());
            assert_eq!(std::fs::read(ledger.path()).unwrap(), whole, "{torn}");
        }
        assert_eq!(record(&ledger, two).await.sequence, 2);
    }

    #[tokio::test]
    async fn a_changed_an_exchanged_and_a_lost_line_are_seen() {
        let (_dir, ledger) = ledger();
        for _ in 0..3 {
            record(&ledger, TenantId::random()).await;
        }
        let text = std::fs::read_to_string(ledger.path()).unwrap();
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
            std::fs::write(ledger.path(), changed.join("\n") + "\n").unwrap();
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
        assert!(ledger.try_open().unwrap().is_none());
        drop(open);
        assert!(ledger.try_open().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_directory_without_a_parent_is_refused() {
        let (dir, _) = ledger();
        let ledger = ErasureLedger { dir: dir.path().join("a/b") };
        assert!(matches!(
            ledger.open().await,
            Err(Error::Erasure(ErasureError::Ledger { doing: "make the directory of", .. }))
        ));
    }
}
