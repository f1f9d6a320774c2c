//! Writing the archive: a thread of its own compresses what comes through a bounded channel, so that memory
//! stays the same however much there is, and a slow reader slows the database down.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use tokio::sync::mpsc;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

/// A step of the archive.
#[derive(Debug)]
pub(super) enum Part {
    /// A file begins, and the one before ends.
    File(String),
    /// More of the file.
    Bytes(Vec<u8>),
    /// That was all. Without it, no directory is written, and nobody takes the archive for whole.
    End,
}

/// How many pieces wait at most, of [`PIECE_BYTES`] and one row each.
pub(super) const PIECES: usize = 4;
/// How much is handed on at once.
pub(super) const PIECE_BYTES: usize = 128 * 1024;

/// Writes until [`Part::End`]. Blocks: belongs on a thread for that.
pub(super) fn write<W: Write>(out: W, parts: mpsc::Receiver<Part>) -> io::Result<W> {
    let shut = Rc::new(Cell::new(false));
    let mut archive = ZipWriter::new_stream(Gate { out, shut: Rc::clone(&shut) });
    let filled = fill(&mut archive, parts);
    // Dropped, the archive writes its directory after all, and would pass for whole.
    shut.set(filled.is_err());
    filled?;
    let mut out = archive.finish().map_err(io::Error::from)?.into_inner().out;
    out.flush()?;
    Ok(out)
}

fn fill<W: Write>(
    archive: &mut ZipWriter<StreamWriter<Gate<W>>>,
    mut parts: mpsc::Receiver<Part>,
) -> io::Result<()> {
    // Sizes are not known when a file begins, so there is room for large ones.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .large_file(true)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o600);
    while let Some(part) = parts.blocking_recv() {
        match part {
            Part::File(name) => archive.start_file(name, options).map_err(io::Error::from)?,
            Part::Bytes(bytes) => archive.write_all(&bytes)?,
            Part::End => return Ok(()),
        }
    }
    Err(io::Error::new(io::ErrorKind::BrokenPipe, "what was to be written broke off"))
}

/// A way out that can be shut: what is written then goes nowhere.
struct Gate<W> {
    out: W,
    shut: Rc<Cell<bool>>,
}

impl<W: Write> Write for Gate<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shut.get() { Ok(bytes.len()) } else { self.out.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.shut.get() { Ok(()) } else { self.out.flush() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(end: bool) -> (bool, Vec<u8>) {
        let (send, parts) = mpsc::channel(PIECES);
        let kept = Kept::default();
        let out = kept.clone();
        let writing = std::thread::spawn(move || write(out, parts).is_ok());
        send.blocking_send(Part::File("a.csv".to_owned())).unwrap();
        send.blocking_send(Part::Bytes(b"a\n1\n".to_vec())).unwrap();
        if end {
            send.blocking_send(Part::End).unwrap();
        }
        drop(send);
        let whole = writing.join().unwrap();
        let bytes = kept.0.lock().unwrap().clone();
        (whole, bytes)
    }

    #[test]
    fn what_breaks_off_never_passes_for_whole() {
        let (whole, bytes) = written(true);
        assert!(whole && zip::ZipArchive::new(io::Cursor::new(bytes)).is_ok());
        let (whole, bytes) = written(false);
        assert!(!whole && !bytes.is_empty());
        assert!(zip::ZipArchive::new(io::Cursor::new(bytes)).is_err());
    }
}
