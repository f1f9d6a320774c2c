//! Sockets: accepting, the limits below HTTP, and an orderly end.
//!
//! Written out instead of `axum::serve`, which sets no limit on headers, on the time they take, or
//! on connections.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use crate::config::HttpSettings;
use crate::metrics::Metrics;
use crate::middleware::host::Peer;

pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    http: &HttpSettings,
    metrics: &Metrics,
    shutdown: impl Future<Output = ()>,
) {
    let protocol = protocol(http);
    let places = Arc::new(Semaphore::new(http.max_connections));
    let graceful = GracefulShutdown::new();
    // Dropped at the end, and with it whatever outlives the grace time.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = accepted;
        let routes = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            routes.call(request)
        });
        // Without an end to it, clients that read nothing would keep their answers in memory for ever.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(http.write_timeout));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = graceful.watch(protocol.serve_connection(stream, service));
        let counted = metrics.connected();
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection broken off");
            }
            drop((place, counted));
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    tracing::info!("stopping: no more connections, waiting for requests under way");
    if tokio::time::timeout(http.shutdown_grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way after `http.shutdown_grace`: ended");
    }
}

fn protocol(http: &HttpSettings) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(http.header_timeout)
        .max_headers(http.max_headers)
        .max_buf_size(http.header_limit_bytes);
    protocol
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Peer, OwnedSemaphorePermit) {
    const PAUSE: Duration = Duration::from_millis(100);
    let place = Arc::clone(places).acquire_owned().await.expect("never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and whole: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                return (stream, Peer(peer.ip()), place);
            }
            // Mostly «too many open files», which passes; without a pause the loop would spin.
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
