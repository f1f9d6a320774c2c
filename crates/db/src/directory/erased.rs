//! The gate that stays shut while the erasure ledger names tenants whom this database has.
//!
//! That is so after a restore, until the ledger was applied again; then nobody is served, since nobody
//! knows what else is missing. Looked at before the first lookup, and again whenever the connection that
//! hears of changes was lost: no server is restored without that. A ledger that can't be read shuts nobody
//! out: purges stop at it, and `doctor` says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::config::Config;
use crate::direct::ReaderDb;
use crate::error::Error;
use crate::lifecycle::{ErasureError, ErasureLedger, require_erased_stay_erased};

/// How long a refusal is repeated without looking again.
const REFUSED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct ErasureGate {
    /// None where this process was told of none: then it knows of nobody.
    ledger: Option<ErasureLedger>,
    /// Goes up when it has to be looked at again.
    shut: AtomicU64,
    /// For which of these it was looked at, and nobody was found.
    open: AtomicU64,
    refused: Mutex<Option<(Instant, Arc<Error>)>>,
}

impl ErasureGate {
    pub(super) fn new(config: &Config) -> Self {
        let ledger = ErasureLedger::new(config).ok();
        Self { ledger, shut: AtomicU64::new(1), open: AtomicU64::new(0), refused: Mutex::default() }
    }

    /// It has to be looked at again.
    pub(super) fn shut(&self) {
        self.shut.fetch_add(1, Ordering::AcqRel);
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) == self.shut.load(Ordering::Acquire)
    }

    /// # Errors
    /// [`ErasureError::ErasedBefore`]; others if the database can't be asked.
    pub(super) async fn pass(&self, reader: &ReaderDb) -> Result<(), Error> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        if self.is_open() {
            return Ok(());
        }
        // Whoever waits here gets the answer of the one who looks.
        let mut refused = self.refused.lock().await;
        if self.is_open() {
            return Ok(());
        }
        if let Some((_, error)) = refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSED_FOR) {
            return Err(Error::Shared(Arc::clone(error)));
        }
        // Before the look: what shuts it during that counts.
        let look = self.shut.load(Ordering::Acquire);
        match require_erased_stay_erased(reader, ledger).await {
            Ok(()) => {}
            Err(Error::Erasure(error)) if !matches!(error, ErasureError::ErasedBefore(_)) => {
                tracing::warn!(%error, "can't see whether somebody is back who was erased");
            }
            Err(error) => {
                if matches!(error, Error::Erasure(_)) {
                    tracing::error!(%error, "nobody is served");
                }
                let error = Arc::new(error);
                *refused = Some((Instant::now(), Arc::clone(&error)));
                return Err(Error::Shared(error));
            }
        }
        *refused = None;
        self.open.store(look, Ordering::Release);
        Ok(())
    }
}
