//! The backups that the service makes beside serving, where it runs on the database's host.

use tenantry_backup::{Engine, Settings};
use tenantry_db::{Config, Installation};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The scheduler, running.
pub(crate) struct Backups {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Backups {
    /// Starts it where `backup.local` says so.
    pub(crate) async fn start_if_local(
        config: &Config,
        installation: &Installation,
    ) -> anyhow::Result<Option<Self>> {
        let settings = Settings::from_config(config)?;
        if !settings.enabled || !settings.local {
            return Ok(None);
        }
        Ok(Some(Self::start(Engine::open(settings).await?, installation.clone())))
    }

    pub(crate) fn start(engine: Engine, installation: Installation) -> Self {
        let (stop, stopped) = oneshot::channel();
        let until = async {
            // Dropped with the whole program: that means the same.
            let _ = stopped.await;
        };
        let running = tokio::spawn(tenantry_backup::keep(engine, installation, until));
        Self { stop, running }
    }

    /// Ends it; a backup under way is broken off, and goes on from there the next time.
    pub(crate) async fn stop(self) {
        // It may have ended already.
        let _ = self.stop.send(());
        if let Err(error) = self.running.await {
            tracing::error!(%error, "the backups broke off");
        }
    }
}
