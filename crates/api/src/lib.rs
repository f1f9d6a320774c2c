//! Tenantry's HTTP service: JSON over HTTP/1.1, a bearer token on everything that concerns tenants.
//!
//! A request's way: `middleware` gives it an id, a span and its limits; an extractor verifies the
//! token and finds the tenant, so that a handler which takes a tenant's database can't be reached
//! without the right to it; `routes` parse and answer; every failure leaves as a `problem`.

pub mod auth;

mod background;
mod backups;
mod body;
mod config;
mod cursor;
mod exports;
mod fields;
mod headers;
mod metrics;
mod middleware;
mod problem;
mod routes;
mod server;
mod services;
mod state;

use std::future::Future;

use axum::Router;
use axum::middleware::from_fn;
use tenantry_db::{Error, ErrorKind, Installation};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::background::Background;

pub use auth::AuthSettings;
pub use config::{HttpSettings, Settings};
pub use state::ApiState;

/// Serves until `shutdown` is done; then takes no more connections, and lets requests under way
/// finish within `http.shutdown_grace`.
///
/// # Errors
/// [`Error::Config`] if no source of keys for tokens is set;
/// [`ErasureError::ErasedBefore`](tenantry_db::lifecycle::ErasureError::ErasedBefore) on a database that was
/// restored without applying the erasure ledger again.
pub async fn serve(
    listener: TcpListener,
    installation: Installation,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let http = settings.http.clone();
    let state = ApiState::new(installation, settings)?;
    // A database that does not answer yet is looked at before the first lookup.
    match state.installation().require_erased_stay_erased().await {
        Err(error) if error.kind() == ErrorKind::Refused => return Err(error),
        _ => {}
    }
    let directory = state.installation().directory().clone();
    // Ended when this is dropped.
    let mut beside = JoinSet::new();
    beside.spawn(state.upkeep());
    beside.spawn(async move { directory.follow().await });
    let background = Background::start(state.installation());
    let metrics = state.metrics().clone();
    server::run(listener, router(state), &http, &metrics, shutdown).await;
    background.end().await;
    Ok(())
}

/// The service without a socket: for tests, or to be nested in a service of one's own, which then runs
/// [`ApiState::upkeep`] beside it, [`tenantry_db::replicas::watch`] if replicas shall answer, and
/// [`tenantry_db::lifecycle::run_due_purges`] if it shall purge.
pub fn router(state: ApiState) -> Router {
    let edge = middleware::edge::Edge::new(&state);
    // Outermost, so that a problem's answer has its headers, too.
    middleware::edge::around(routes::all(), edge)
        .layer(from_fn(middleware::consistency::pass))
        .with_state(state)
}
