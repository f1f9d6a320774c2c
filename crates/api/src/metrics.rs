//! What is counted: requests by route, method and status, how long they took, how many are under
//! way. Never by tenant: ten thousand of them would be ten thousand series for each number.
//!
//! The recorder belongs to one service instead of the process, so that two services, as in tests,
//! do not count into each other.

mod replicas;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use metrics::{counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tenantry_db::doctor::Outcome;
use tenantry_db::lifecycle::ErasureCounts;

const REQUESTS: &str = "tenantry_http_requests_total";
const DURATION: &str = "tenantry_http_request_duration_seconds";
const UNDER_WAY: &str = "tenantry_http_requests_under_way";
const PURGES_BEGUN: &str = "tenantry_purges_begun";
const PURGES_FINISHED: &str = "tenantry_purges_finished";
const PURGES_FAILING: &str = "tenantry_purges_failing";
const CERTIFICATES_INCOMPLETE: &str = "tenantry_certificates_incomplete";
const CONNECTIONS: &str = "tenantry_http_connections";
const BACKUP_CHECK: &str = "tenantry_backup_check";

/// A lookup takes about a millisecond, a sign-up about fifty.
const BUCKETS_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// One service's numbers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    recorder: Arc<PrometheusRecorder>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let builder =
            PrometheusBuilder::new().set_buckets(BUCKETS_SECONDS).expect("there are buckets");
        let recorder = Arc::new(builder.build_recorder());
        with_local_recorder(&*recorder, || {
            metrics::describe_counter!(REQUESTS, "Requests answered");
            metrics::describe_histogram!(DURATION, "Time from a request's head to its answer's");
            metrics::describe_gauge!(UNDER_WAY, "Requests being answered");
            metrics::describe_gauge!(CONNECTIONS, "Open connections");
            metrics::describe_gauge!(
                BACKUP_CHECK,
                "How a check of the backups ended: 0 well, 1 a warning, 2 an alarm"
            );
            metrics::describe_gauge!(PURGES_BEGUN, "Purges of the installation that began");
            metrics::describe_gauge!(PURGES_FINISHED, "Purges that came to their end");
            metrics::describe_gauge!(PURGES_FAILING, "Purges whose last try failed");
            metrics::describe_gauge!(
                CERTIFICATES_INCOMPLETE,
                "Erasure certificates that are incomplete"
            );
            replicas::describe();
        });
        Self { recorder }
    }

    /// Counts a request as under way until the guard is dropped, also when the client goes away.
    pub(crate) fn under_way(&self) -> Present {
        self.present(UNDER_WAY)
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn connected(&self) -> Present {
        self.present(CONNECTIONS)
    }

    fn present(&self, gauge: &'static str) -> Present {
        with_local_recorder(&*self.recorder, || gauge!(gauge).increment(1.0));
        Present { gauge, metrics: self.clone() }
    }

    pub(crate) fn answered(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        took: Duration,
    ) {
        let (method, route) = (method_label(method), route.to_owned());
        with_local_recorder(&*self.recorder, || {
            let status = status.as_str().to_owned();
            counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => status)
                .increment(1);
            histogram!(DURATION, "method" => method, "route" => route).record(took);
        });
    }

    /// One of the numbers of the report on the backups.
    pub(crate) fn backup_number(&self, name: &str, number: f64) {
        let name = format!("tenantry_backup_{name}");
        with_local_recorder(&*self.recorder, || gauge!(name).set(number));
    }

    /// How a check of the backups ended: 0 well, 1 a warning, 2 an alarm.
    pub(crate) fn backup_check(&self, check: &str, outcome: Outcome) {
        let number = match outcome {
            Outcome::Ok => 0.0,
            Outcome::Warning => 1.0,
            Outcome::Failed => 2.0,
        };
        let check = check.to_owned();
        with_local_recorder(&*self.recorder, || gauge!(BACKUP_CHECK, "check" => check).set(number));
    }

    /// Of the whole installation, so each service shows the same.
    pub(crate) fn erasures(&self, counts: ErasureCounts) {
        with_local_recorder(&*self.recorder, || {
            for (name, count) in [
                (PURGES_BEGUN, counts.begun),
                (PURGES_FINISHED, counts.finished),
                (PURGES_FAILING, counts.failing),
                (CERTIFICATES_INCOMPLETE, counts.incomplete),
            ] {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "far below what a double can't hold"
                )]
                gauge!(name).set(count as f64);
            }
        });
    }

    /// Takes over what is known of the replicas.
    pub(crate) fn note_replicas(&self, known: &tenantry_db::replicas::Replicas) {
        with_local_recorder(&*self.recorder, || replicas::note(known));
    }

    /// In Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        self.handle().render()
    }

    /// Moves measured times into their buckets now and then; otherwise they pile up until somebody
    /// asks for the numbers.
    pub(crate) fn upkeep(&self) -> impl Future<Output = ()> + use<> {
        const EVERY: Duration = Duration::from_secs(5);
        let handle = self.handle();
        async move {
            loop {
                tokio::time::sleep(EVERY).await;
                handle.run_upkeep();
            }
        }
    }

    fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }
}

/// What is counted for as long as it is there.
pub(crate) struct Present {
    gauge: &'static str,
    metrics: Metrics,
}

impl Drop for Present {
    fn drop(&mut self) {
        with_local_recorder(&*self.metrics.recorder, || gauge!(self.gauge).decrement(1.0));
    }
}

/// HTTP lets anybody invent methods; a series for each would let anybody fill the memory.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
