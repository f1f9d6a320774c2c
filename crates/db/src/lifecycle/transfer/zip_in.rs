//! Reading an archive that anybody may have made: its structure is checked before anything of it is used,
//! and no more is unpacked than its manifest says.
//!
//! Nothing of it is ever written to a disk, so a name in it leads nowhere; a strange one is refused all the
//! same.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::TransferError;
use super::manifest::{ExportedTable, MANIFEST, Manifest};
use super::zip_out::{PIECE_BYTES, PIECES};
use crate::error::Error;
use crate::ids::excerpt;

/// An archive whose structure and manifest are in order. What its tables hold shows when they are read.
#[derive(Debug)]
pub struct Archive {
    zip: ZipArchive<BufReader<File>>,
    manifest: Manifest,
}

/// A table's file on its way out of the archive, which comes back at the end.
pub(super) struct Unpacking {
    pub(super) pieces: mpsc::Receiver<Vec<u8>>,
    pub(super) done: JoinHandle<(Archive, Result<(), TransferError>)>,
}

impl Archive {
    /// More than any manifest has: that of 2,000 tables has some.
    const MAX_MANIFEST_BYTES: u64 = 32 * 1024 * 1024;
    /// What a small archive may hold whatever its ratio.
    const SMALL_BYTES: u64 = 16 * 1024 * 1024;

    /// Opens an archive and checks its structure. `any_size` takes one that holds far more than its size
    /// allows for.
    ///
    /// # Errors
    /// [`TransferError::Input`], [`TransferError::Damaged`], [`TransferError::Newer`],
    /// [`TransferError::TooMuch`].
    pub async fn open(path: &Path, any_size: bool) -> Result<Self, Error> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&path, any_size));
        let opened = opened.await.map_err(|e| TransferError::damaged("archive", e.to_string()))?;
        Ok(opened?)
    }

    /// What it says that it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn open_blocking(path: &Path, any_size: bool) -> Result<Self, TransferError> {
        let input = |source| TransferError::Input { path: path.to_owned(), source };
        let file = File::open(path).map_err(input)?;
        let metadata = file.metadata().map_err(input)?;
        if !metadata.is_file() {
            return Err(input(io::Error::other("it is no file")));
        }
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|e| structure(&e))?;
        // Two of one name, a header that says otherwise than the directory, an entry that it does not list.
        zip.validate_header_consistency().map_err(|e| structure(&e))?;
        if zip.has_overlapping_entries().map_err(|e| structure(&e))? {
            return Err(TransferError::damaged("directory", "two entries share their bytes"));
        }
        let mut names = entry_names(&mut zip)?;
        if !names.remove(MANIFEST) {
            return Err(TransferError::damaged(MANIFEST, "it is missing: the archive was cut off"));
        }
        let manifest = Manifest::read(&manifest_text(&mut zip)?)?;
        for table in &manifest.tables {
            if !names.remove(&table.file) {
                return Err(TransferError::damaged(&table.file, "it is missing"));
            }
            let entry = zip.by_name(&table.file).map_err(|e| damaged(&table.file, &e))?;
            if entry.size() != table.bytes {
                let what = format!("it has {} bytes, not {}", entry.size(), table.bytes);
                return Err(TransferError::damaged(&table.file, what));
            }
        }
        if let Some(extra) = names.first() {
            return Err(TransferError::damaged(excerpt(extra), "the manifest does not know it"));
        }
        let (bytes, compressed) = (manifest.bytes(), metadata.len());
        let most = compressed.saturating_mul(TransferError::MAX_RATIO).max(Self::SMALL_BYTES);
        if bytes > most && !any_size {
            return Err(TransferError::TooMuch { compressed, bytes });
        }
        Ok(Self { zip, manifest })
    }

    /// Unpacks a table's file on a thread of its own, as fast as the pieces are taken.
    pub(super) fn unpack(mut self, table: &ExportedTable) -> Unpacking {
        let (send, pieces) = mpsc::channel(PIECES);
        let (file, bytes) = (table.file.clone(), table.bytes);
        let done = tokio::task::spawn_blocking(move || {
            let unpacked = self.unpack_blocking(&file, bytes, &send);
            (self, unpacked)
        });
        Unpacking { pieces, done }
    }

    fn unpack_blocking(
        &mut self,
        file: &str,
        bytes: u64,
        pieces: &mpsc::Sender<Vec<u8>>,
    ) -> Result<(), TransferError> {
        let entry = self.zip.by_name(file).map_err(|e| damaged(file, &e))?;
        // One more than there may be, and its checksum is met too.
        let mut entry = entry.take(bytes.saturating_add(1));
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = (&mut entry).take(PIECE_BYTES as u64).read_to_end(&mut piece);
            let read = read.map_err(|e| TransferError::damaged(file, e.to_string()))?;
            if read == 0 {
                return Ok(());
            }
            // Nobody wants the rest any more.
            if pieces.blocking_send(piece).is_err() {
                return Ok(());
            }
        }
    }
}

/// The names of all entries, each of which can be unpacked.
fn entry_names(zip: &mut ZipArchive<BufReader<File>>) -> Result<BTreeSet<String>, TransferError> {
    let mut names = BTreeSet::new();
    for at in 0..zip.len() {
        let entry = zip.by_index_raw(at).map_err(|e| structure(&e))?;
        let name = entry.name().map_err(|e| structure(&e))?.into_owned();
        let known = [CompressionMethod::Deflated, CompressionMethod::Stored];
        if entry.encrypted() || !known.contains(&entry.compression()) {
            return Err(TransferError::damaged(excerpt(&name), "it is packed in an unknown way"));
        }
        if !names.insert(name) {
            return Err(TransferError::damaged("directory", "two entries have one name"));
        }
    }
    Ok(names)
}

fn manifest_text(zip: &mut ZipArchive<BufReader<File>>) -> Result<Vec<u8>, TransferError> {
    let entry = zip.by_name(MANIFEST).map_err(|e| damaged(MANIFEST, &e))?;
    let mut text = Vec::new();
    let most = Archive::MAX_MANIFEST_BYTES;
    let read = entry.take(most + 1).read_to_end(&mut text);
    read.map_err(|e| TransferError::damaged(MANIFEST, e.to_string()))?;
    if text.len() as u64 > most {
        return Err(TransferError::damaged(MANIFEST, "it is larger than a manifest can be"));
    }
    Ok(text)
}

fn structure(error: &ZipError) -> TransferError {
    damaged("directory", error)
}

fn damaged(place: &str, error: &ZipError) -> TransferError {
    TransferError::damaged(place, excerpt(&error.to_string()))
}
