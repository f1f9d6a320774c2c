//! `/metrics`: the service's numbers for Prometheus. Nothing in them names a tenant.
//!
//! Those of purges come from the database. Nobody needs a token here, so one look serves everybody for a
//! moment; while the database does not answer, the last ones stand.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderName, header};
use tenantry_db::lifecycle::count_erasures;
use tokio::sync::Mutex;

use crate::state::ApiState;

/// When the database was last asked.
#[derive(Debug, Default)]
pub(crate) struct Erasures {
    asked: Mutex<Option<Instant>>,
}

impl Erasures {
    const GOOD_FOR: Duration = Duration::from_secs(5);
    const PATIENCE: Duration = Duration::from_secs(1);

    async fn refresh(&self, state: &ApiState) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < Self::GOOD_FOR) {
            return;
        }
        *asked = Some(Instant::now());
        let counts = count_erasures(state.installation().reader());
        if let Ok(Ok(counts)) = tokio::time::timeout(Self::PATIENCE, counts).await {
            state.metrics().erasures(counts);
        }
    }
}

pub(super) async fn show(
    State(state): State<ApiState>,
) -> ([(HeaderName, &'static str); 1], String) {
    const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    state.erasures().refresh(&state).await;
    state.metrics().note_replicas(state.installation().replicas());
    ([(header::CONTENT_TYPE, FORMAT)], state.metrics().render())
}
