//! `/metrics`: the service's numbers for Prometheus. Nothing in them names a tenant.

use axum::extract::State;
use axum::http::{HeaderName, header};

use crate::state::ApiState;

pub(super) async fn show(
    State(state): State<ApiState>,
) -> ([(HeaderName, &'static str); 1], String) {
    const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    state.metrics().note_replicas(state.installation().replicas());
    ([(header::CONTENT_TYPE, FORMAT)], state.metrics().render())
}
