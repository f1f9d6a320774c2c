//! Keys that their issuer replaces now and then: fetched, kept, refreshed.
//!
//! One task ([`RotatingKeys::upkeep`]) does all the fetching, one fetch after the other, and no two
//! begin within `auth.jwks_min_refetch_interval`. Requests only ask it: a flood of tokens with
//! invented names of keys costs no more fetches than one such token. What can't be fetched, or holds
//! no usable key, changes nothing: the keys at hand stay.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::algorithm::Algorithm;
use super::key::Key;
use super::key_set::{KeySet, Miss};
use super::origin::{Origin, Unread};

/// When keys are fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intervals {
    /// How often without being asked.
    pub(crate) refresh: Duration,
    /// The least time between the beginnings of two fetches, whoever asks.
    pub(crate) min_refetch: Duration,
    /// How long one may take.
    pub(crate) timeout: Duration,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct RotatingKeys {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    origin: Origin,
    allowed: Vec<Algorithm>,
    intervals: Intervals,
    known: watch::Sender<Known>,
    wanted: Notify,
    only_one: Mutex<()>,
}

/// What is known, and when more may be.
#[derive(Debug, Clone)]
struct Known {
    /// None before the first fetch that brought a usable key.
    keys: Option<Arc<KeySet>>,
    /// Fetches that came to an end, well or not.
    finished: u64,
    under_way: bool,
    /// Before this, no fetch begins.
    next_allowed: Instant,
}

/// Why there is no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// None of the keys fits.
    Miss(Miss),
    /// There are no keys yet.
    NoneYet,
}

/// Why a document changes nothing.
#[derive(Debug, thiserror::Error)]
enum Unchanged {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("it is not a JWKS")]
    NoKeySet,
    #[error("it holds no usable key")]
    NoUsableKey,
}

impl RotatingKeys {
    /// A request waits for a fetch a little longer than the fetch may take.
    const MARGIN: Duration = Duration::from_secs(1);

    /// With the keys that are there already, if any.
    pub(super) fn new(
        origin: Origin,
        allowed: Vec<Algorithm>,
        intervals: Intervals,
        first: Option<KeySet>,
    ) -> Self {
        let known = Known {
            keys: first.map(Arc::new),
            finished: 0,
            under_way: false,
            next_allowed: Instant::now(),
        };
        let (known, wanted, only_one) = (watch::Sender::new(known), Notify::new(), Mutex::new(()));
        let inner = Inner { origin, allowed, intervals, known, wanted, only_one };
        Self { inner: Arc::new(inner) }
    }

    /// The key for a token, after a fetch if its name is unknown and a fetch may begin or is under
    /// way. Dropping the future does no harm.
    pub(super) async fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<Key, NoKey> {
        let mut known = self.inner.known.subscribe();
        let before = known.borrow_and_update().clone();
        let miss = match before.find(algorithm, kid) {
            Err(miss @ (NoKey::NoneYet | NoKey::Miss(Miss::Unknown))) => miss,
            found => return found,
        };
        if !before.under_way {
            if Instant::now() < before.next_allowed {
                return Err(miss);
            }
            self.inner.wanted.notify_one();
        }
        let newer = known.wait_for(|known| known.finished > before.finished);
        match timeout(self.inner.intervals.timeout + Self::MARGIN, newer).await {
            Ok(Ok(known)) => known.find(algorithm, kid),
            Ok(Err(_)) | Err(_) => Err(miss),
        }
    }

    /// Whether any key is known.
    pub(super) fn any(&self) -> bool {
        self.inner.known.borrow().keys.is_some()
    }

    /// Fetches now, then whenever it is time, without end. Run twice, the second one waits.
    pub(super) fn upkeep(&self) -> impl Future<Output = ()> + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let _only = inner.only_one.lock().await;
            let mut last = Vec::new();
            loop {
                let began = Instant::now();
                let well = inner.fetch(began, &mut last).await;
                inner.pause(began, well).await;
            }
        }
    }
}

impl Known {
    fn find(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<Key, NoKey> {
        let keys = self.keys.as_ref().ok_or(NoKey::NoneYet)?;
        keys.find(algorithm, kid).cloned().map_err(NoKey::Miss)
    }
}

impl Inner {
    /// One fetch. `last` is the document that the keys at hand come from.
    async fn fetch(&self, began: Instant, last: &mut Vec<u8>) -> bool {
        self.known.send_modify(|known| {
            known.under_way = true;
            known.next_allowed = began + self.intervals.min_refetch;
        });
        let fetched = self.newer(last).await;
        if let Err(error) = &fetched {
            let cause = error.source().map(innermost).unwrap_or_default();
            let kept = self.known.borrow().keys.as_ref().map_or(0, |keys| keys.len());
            let jwks = &self.origin;
            tracing::warn!(%jwks, %error, cause, kept, "can't get the keys for tokens");
        }
        let well = fetched.is_ok();
        self.known.send_modify(|known| {
            if let Ok(Some(keys)) = fetched {
                known.keys = Some(Arc::new(keys));
            }
            known.under_way = false;
            known.finished += 1;
        });
        well
    }

    /// The keys of the document, if it is another one than the last.
    async fn newer(&self, last: &mut Vec<u8>) -> Result<Option<KeySet>, Unchanged> {
        let document = self.origin.read().await?;
        if document == *last {
            return Ok(None);
        }
        let (keys, passed_over) =
            KeySet::parse(&document, &self.allowed).ok_or(Unchanged::NoKeySet)?;
        for key in passed_over {
            tracing::warn!(jwks = %self.origin, kid = ?key.kid, why = %key.why, "key passed over");
        }
        if keys.is_empty() {
            return Err(Unchanged::NoUsableKey);
        }
        *last = document;
        tracing::info!(jwks = %self.origin, keys = keys.len(), "keys for tokens taken");
        Ok(Some(keys))
    }

    /// Until the next fetch is due, or is wanted and may begin.
    async fn pause(&self, began: Instant, well: bool) {
        let interval = if well { self.intervals.refresh } else { self.intervals.min_refetch };
        let due = sleep_until(began + jittered(interval));
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return,
                () = self.wanted.notified() => {
                    if Instant::now() >= began + self.intervals.min_refetch {
                        return;
                    }
                }
            }
        }
    }
}

/// Up to a tenth longer, so that instances that started together do not ask together for ever.
fn jittered(interval: Duration) -> Duration {
    let tenths = getrandom::u32().unwrap_or_default() % 1000;
    interval + interval * tenths / 10_000
}

/// What lies at the bottom: «connection refused» instead of «error sending request».
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(deeper) = innermost.source() {
        innermost = deeper;
    }
    innermost.to_string()
}
