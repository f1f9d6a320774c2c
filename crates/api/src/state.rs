//! What every handler can reach.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::join3;
use tenantry_db::{Error, Installation};

use crate::auth::Verifier;
use crate::backups::Backups;
use crate::config::{HttpSettings, Settings};
use crate::exports::Exports;
use crate::metrics::Metrics;
use crate::routes::health::Readiness;
use crate::routes::numbers::Erasures;

/// The service's state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiState {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    installation: Installation,
    verifier: Verifier,
    http: HttpSettings,
    metrics: Metrics,
    readiness: Readiness,
    backups: Backups,
    erasures: Erasures,
    exports: Exports,
}

impl ApiState {
    /// Puts the state together. Nothing connects before its first use.
    ///
    /// # Errors
    /// [`Error::Config`] if no source of keys for tokens is set.
    pub fn new(installation: Installation, settings: Settings) -> Result<Self, Error> {
        let exports = Exports::new(installation.config().export.at_once);
        let inner = Inner {
            installation,
            verifier: Verifier::new(&settings.auth)?,
            http: settings.http,
            metrics: Metrics::new(),
            readiness: Readiness::default(),
            backups: Backups::new(settings.backups_checked_every),
            erasures: Erasures::default(),
            exports,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the service does by itself beside answering, without end: it fetches the keys for tokens
    /// (until then, none can be checked), keeps its numbers in order, and reads how the backups are.
    pub fn upkeep(&self) -> impl Future<Output = ()> + use<> {
        let (keys, metrics) = (self.verifier().upkeep(), self.metrics().upkeep());
        let state = self.clone();
        async move {
            let backups = state.backups().follow(state.installation(), state.metrics());
            join3(keys, metrics, backups).await;
        }
    }

    pub(crate) fn installation(&self) -> &Installation {
        &self.inner.installation
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.inner.verifier
    }

    pub(crate) fn http(&self) -> &HttpSettings {
        &self.inner.http
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn backups(&self) -> &Backups {
        &self.inner.backups
    }

    pub(crate) fn erasures(&self) -> &Erasures {
        &self.inner.erasures
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.inner.exports
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.inner.readiness
    }
}
