//! Whether a recovery ended where the log ends.
//!
//! PostgreSQL takes a segment that it can't get for one that is not there, and garbage in a segment for the end of
//! what was written. It ends the recovery there and says that all is well. pgBackRest unpacks a damaged segment
//! without a word, if it can be unpacked at all. So the segments around the end are read once more here and compared
//! with the checksums that they were archived with.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha1::{Digest as _, Sha1};
use tenantry_stack::{Scratch, files};

use super::Told;
use crate::archive::Segment;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::moment::Start;
use crate::wal::SegmentName;
use crate::windows::segment_size;

const PRIVATE: u32 = 0o700;

impl Engine {
    /// Refuses the end that a recovery came to, if the log goes on.
    ///
    /// # Errors
    /// [`Error::BrokenLog`]; those of the repository.
    pub(super) async fn require_end_of_log(
        &self,
        scratch: &Scratch,
        start: &Start<'_>,
        told: &Told,
    ) -> Result<()> {
        let archive = self.archive(&start.window.archive_id).await?;
        let size = segment_size(&[start.backup]);
        let broken = |segment, fault: String| {
            Err(Error::BrokenLog { segment, fault, last: told.last_commit })
        };
        // Its last record begins in one segment; where that is whole, it is the next that it could not go on with.
        let ended_in = size.number(told.last_record.unwrap_or(start.backup.lsn.0));
        let named = |number| start.window.segment(&archive, size, number);
        for name in [ended_in, ended_in + 1].into_iter().filter_map(named) {
            let Some(segment) = archive.segments.get(&name) else { continue };
            if let Some(fault) = self.fault(scratch, name, segment).await? {
                return broken(name, fault);
            }
        }
        match named(ended_in + 1) {
            Some(next)
                if told.last_record.is_some()
                    && ended_in < size.number_of(start.window.last_segment) =>
            {
                let fault = "could not be had during the recovery, and can be had now: try again";
                broken(next, fault.to_owned())
            }
            _ => Ok(()),
        }
    }

    /// What is wrong with a segment, as a verb phrase.
    async fn fault(
        &self,
        scratch: &Scratch,
        name: SegmentName,
        segment: &Segment,
    ) -> Result<Option<String>> {
        let place = scratch.root().join("segments");
        files::ensure_directory(&place, PRIVATE, Some(self.owner()))?;
        let file = place.join(name.to_string());
        match self.fetch_segment(&scratch.data_dir(), name, &file).await {
            Ok(()) => {}
            Err(Error::Engine { message, .. } | Error::Repository { message }) => {
                return Ok(Some(format!("can't be read: {message}")));
            }
            Err(error) => return Err(error),
        }
        let checksum = checksum(file.clone()).await.map_err(Error::io("read", &file))?;
        files::remove_file(&file)?;
        let is_whole = checksum == *segment.checksum;
        Ok((!is_whole).then(|| "is damaged: it is not what was archived".to_owned()))
    }
}

/// In hex.
async fn checksum(file: PathBuf) -> io::Result<String> {
    let read = move || -> io::Result<String> {
        let mut hash = Sha1::new();
        let mut reader = BufReader::new(File::open(file)?);
        loop {
            let piece = reader.fill_buf()?;
            if piece.is_empty() {
                break;
            }
            hash.update(piece);
            let bytes = piece.len();
            reader.consume(bytes);
        }
        Ok(HEXLOWER.encode(&hash.finalize()))
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
