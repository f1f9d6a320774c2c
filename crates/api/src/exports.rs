//! Exports under way: how many there may be, and how one becomes the body of an answer.
//!
//! What breaks off breaks the connection with it, so that no client takes half an archive for a whole one.
//! A client that takes it slowly makes the database wait; one that goes away ends the export.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tenantry_db::TenantId;
use tenantry_db::lifecycle::Export;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::problem::{Code, Problem};

/// How many exports go on, and of whom.
#[derive(Debug)]
pub(crate) struct Exports {
    places: Arc<Semaphore>,
    tenants: Arc<Mutex<HashSet<TenantId>>>,
}

/// One export's place. Free again when it is dropped.
pub(crate) struct Place {
    tenant: TenantId,
    tenants: Arc<Mutex<HashSet<TenantId>>>,
    _permit: OwnedSemaphorePermit,
}

impl Exports {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once)), tenants: Arc::default() }
    }

    /// A place, if there is one. A tenant has one at a time: with more, one that reads slowly could keep
    /// all others from theirs.
    pub(crate) fn begin(&self, tenant: TenantId) -> Result<Place, Problem> {
        let busy = |detail| Problem::new(Code::ExportBusy, detail);
        let permit = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| busy("as many exports are under way as may be"))?;
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if !tenants.insert(tenant) {
            return Err(busy("an export of this tenant is under way"));
        }
        Ok(Place { tenant, tenants: Arc::clone(&self.tenants), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tenant);
    }
}

enum Piece {
    Bytes(Bytes),
    /// The archive is whole. An end without it is none.
    End,
}

/// The archive as it is written.
pub(crate) fn body(export: Export, place: Place) -> Body {
    /// So many pieces wait for the client, of so many bytes.
    const PIECES: usize = 4;
    const PIECE_BYTES: usize = 64 * 1024;
    let (send, pieces) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let tenant = export.tenant().id;
        let out = BufWriter::with_capacity(PIECE_BYTES, Pieces(send.clone()));
        let written = tokio::select! {
            written = export.write(out, |_| {}) => written,
            () = send.closed() => {
                tracing::info!(tenant.id = %tenant, "export broken off: the client went away");
                return;
            }
        };
        match written {
            Ok(_) => {
                // Whoever has read to the end may ask for the next one.
                drop(place);
                // The client takes the end, or is gone.
                let _ = send.send(Piece::End).await;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(tenant.id = %tenant, %error, cause, "export broken off");
            }
        }
    });
    Body::from_stream(stream::unfold(Some(pieces), async |pieces| {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(pieces))),
            Some(Piece::End) => None,
            None => Some((Err(io::Error::other("the export broke off")), None)),
        }
    }))
}

/// Writes into the channel, from a thread that may block.
struct Pieces(mpsc::Sender<Piece>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Piece::Bytes(Bytes::copy_from_slice(bytes));
        self.0.blocking_send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
