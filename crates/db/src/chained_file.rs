//! Files that only grow: one JSON object on each line, each with the SHA-256 of the line before it.
//!
//! What the database must not be able to take back lies in such a file. An entry counts when its line has
//! ended and is on disk: what a crash leaves of one is cut off. Refuses to write to a file that is not
//! whole. One process writes at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// What a line holds.
pub(crate) trait ChainedEntry: Serialize + DeserializeOwned + Send + 'static {
    /// Its number, from 1.
    fn sequence(&self) -> i64;
    /// SHA-256 of the line before, in hex; zeros for the first.
    fn previous(&self) -> &str;
}

/// What stands against reading or writing such a file.
#[derive(Debug)]
pub(crate) enum ChainFault {
    /// The system refused.
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// Another process writes, and does not end.
    Locked(PathBuf),
    /// A line, counted from 1, does not follow from the one before.
    Damaged { path: PathBuf, line: usize, what: &'static str },
    /// It lacks an entry that somebody knows of.
    Incomplete { path: PathBuf, sequence: i64 },
}

/// An entry's number and the SHA-256 of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) sequence: i64,
    pub(crate) hash: [u8; 32],
}

/// Where a file is. It need not be there yet.
#[derive(Debug, Clone)]
pub(crate) struct ChainedFile {
    dir: PathBuf,
    name: &'static str,
}

impl ChainedFile {
    pub(crate) fn new(dir: PathBuf, name: &'static str) -> Self {
        Self { dir, name }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// Reads it, and changes nothing. Without a file, there is no entry.
    pub(crate) fn read<E: ChainedEntry>(&self) -> Result<Chain<E>, ChainFault> {
        let path = self.path();
        match File::open(&path) {
            Ok(file) => read(&file, &path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Chain::empty(path)),
            Err(source) => Err(ChainFault::Io { doing: "read", path, source }),
        }
    }

    /// As [`read`](Self::read), beside other tasks: a disk may take its time.
    pub(crate) async fn read_beside<E: ChainedEntry>(&self) -> Result<Chain<E>, ChainFault> {
        let file = self.clone();
        on_a_thread(move || file.read()).await
    }

    /// Locks it against other processes, reads it, and cuts off what a crash left of an entry.
    pub(crate) async fn open<E: ChainedEntry>(&self) -> Result<OpenChain<E>, ChainFault> {
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(100);
        for _ in 0..TRIES {
            let file = self.clone();
            if let Some(open) = on_a_thread(move || file.try_open()).await? {
                return Ok(open);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ChainFault::Locked(self.path()))
    }

    /// None if another process has it.
    pub(crate) fn try_open<E: ChainedEntry>(&self) -> Result<Option<OpenChain<E>>, ChainFault> {
        let path = self.path();
        let fail = |doing| {
            let path = path.clone();
            move |source| ChainFault::Io { doing, path, source }
        };
        // Its parents must be there: on a typing error, or where a disk is not mounted, a file of its own
        // would begin.
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
        let chain = read(&file, &path)?;
        if chain.unended {
            // All of it is there and in its place, so it is no half of one: it was written, or an editor
            // took the line's end.
            let mut end = &file;
            end.write_all(b"\n").and_then(|()| file.sync_all()).map_err(fail("mend"))?;
        }
        if chain.torn_bytes > 0 {
            tracing::warn!(bytes = chain.torn_bytes, "cut off the rest of an unfinished entry");
            file.set_len(chain.whole_bytes).and_then(|()| file.sync_all()).map_err(fail("mend"))?;
        }
        Ok(Some(OpenChain { file, dir: self.dir.clone(), chain }))
    }
}

/// A file while this process has it. Closing it unlocks it.
#[derive(Debug)]
pub(crate) struct OpenChain<E> {
    file: File,
    dir: PathBuf,
    chain: Chain<E>,
}

impl<E: ChainedEntry> OpenChain<E> {
    pub(crate) fn chain(&self) -> &Chain<E> {
        &self.chain
    }

    /// Writes the entry that `entry` makes from its number and the hash before it, and returns when it is
    /// on disk.
    pub(crate) async fn append(
        mut self,
        entry: impl FnOnce(i64, String) -> E + Send + 'static,
    ) -> Result<Recorded, ChainFault> {
        on_a_thread(move || self.write(entry)).await
    }

    fn write(&mut self, entry: impl FnOnce(i64, String) -> E) -> Result<Recorded, ChainFault> {
        let sequence = i64::try_from(self.chain.hashes.len()).unwrap_or(i64::MAX) + 1;
        let previous = self.chain.hashes.last().copied().unwrap_or_default();
        let entry = entry(sequence, HEXLOWER.encode(&previous));
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
            // Whether the line is on disk is unknown. It must not be, since what it stands for will be
            // taken back.
            let _ = self.file.set_len(self.chain.whole_bytes).and_then(|()| self.file.sync_all());
            return Err(ChainFault::Io { doing: "write", path: self.chain.path.clone(), source });
        }
        Ok(Recorded { sequence, hash })
    }
}

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Chain<E> {
    pub(crate) entries: Vec<E>,
    hashes: Vec<[u8; 32]>,
    path: PathBuf,
    whole_bytes: u64,
    torn_bytes: u64,
    /// The last entry is whole, but its line has no end.
    unended: bool,
}

impl<E: ChainedEntry> Chain<E> {
    fn empty(path: PathBuf) -> Self {
        let (entries, hashes) = (Vec::new(), Vec::new());
        Self { entries, hashes, path, whole_bytes: 0, torn_bytes: 0, unended: false }
    }

    /// The entry at an index, by its number and hash.
    pub(crate) fn recorded(&self, index: usize) -> Option<Recorded> {
        let sequence = i64::try_from(index).ok()? + 1;
        Some(Recorded { sequence, hash: *self.hashes.get(index)? })
    }

    /// The newest entry, by its number and hash.
    pub(crate) fn newest(&self) -> Option<Recorded> {
        self.recorded(self.hashes.len().checked_sub(1)?)
    }

    /// Whether it holds this entry.
    pub(crate) fn holds(&self, sequence: i64, hash: &[u8]) -> bool {
        let index = usize::try_from(sequence - 1).ok();
        let found = index.and_then(|index| self.hashes.get(index));
        found.is_some_and(|found| found[..] == *hash)
    }

    /// Refuses a file that lacks an entry which the database knows of: it is another file, or was cut.
    pub(crate) fn require(&self, known: Option<(i64, Vec<u8>)>) -> Result<(), ChainFault> {
        match known {
            Some((sequence, hash)) if !self.holds(sequence, &hash) => {
                Err(ChainFault::Incomplete { path: self.path.clone(), sequence })
            }
            _ => Ok(()),
        }
    }

    /// Takes the next line.
    fn push(&mut self, line: &[u8]) -> Result<(), ChainFault> {
        let number = self.hashes.len() + 1;
        let damaged = |what| ChainFault::Damaged { path: self.path.clone(), line: number, what };
        let entry: E = serde_json::from_slice(line).map_err(|_| damaged("it is no entry"))?;
        let previous = self.hashes.last().copied().unwrap_or_default();
        if entry.previous() != HEXLOWER.encode(&previous) {
            return Err(damaged(
                "it does not follow from the line before: one of the two was changed",
            ));
        }
        if usize::try_from(entry.sequence()).ok() != Some(number) {
            return Err(damaged("its number is not the next one"));
        }
        self.hashes.push(Sha256::digest(line).into());
        self.entries.push(entry);
        Ok(())
    }
}

fn read<E: ChainedEntry>(file: &File, path: &Path) -> Result<Chain<E>, ChainFault> {
    let fail = |source| ChainFault::Io { doing: "read", path: path.to_owned(), source };
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0)).map_err(fail)?;
    let mut chain = Chain::empty(path.to_owned());
    let mut line = Vec::new();
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(fail)? as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
            chain.push(&line)?;
            chain.whole_bytes += bytes;
        } else {
            chain.unended = chain.push(&line).is_ok();
            match chain.unended {
                true => chain.whole_bytes += bytes + 1,
                false => chain.torn_bytes = bytes,
            }
            return Ok(chain);
        }
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChainFault> + Send + 'static,
) -> Result<T, ChainFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
