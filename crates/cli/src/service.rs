//! The HTTP service inside this program: its socket, its start and its end.

use std::net::SocketAddr;

use anyhow::Context as _;
use tenantry_api::Settings;
use tenantry_db::{Error, Installation};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::exit::{Exit, Failure};

/// Takes the address, so that a busy one is known before anything else is done.
pub(crate) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let message = format!("the service can't listen on `{address}`: {error}");
        Failure::new(Exit::Failed, message, "`--http-port` or `http.port` takes another port")
            .into()
    })
}

/// The running service.
pub(crate) struct Service {
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), Error>>,
}

impl Service {
    pub(crate) fn start(
        listener: TcpListener,
        installation: Installation,
        settings: Settings,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // Dropped with the whole program: then there is nobody left to serve.
            let _ = stopped.await;
        };
        let running = tokio::spawn(tenantry_api::serve(listener, installation, settings, shutdown));
        Self { stop, running }
    }

    /// Waits until it ends by itself, which it should not. Safe to cancel.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.running).await.context("the service broke off") {
            Ok(Ok(())) => anyhow::anyhow!("the service ended"),
            Ok(Err(error)) => error.into(),
            Err(error) => error,
        }
    }

    /// Lets requests under way finish, within `http.shutdown_grace`.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        // It may have ended already.
        let _ = self.stop.send(());
        Ok(self.running.await.context("the service broke off")??)
    }
}
