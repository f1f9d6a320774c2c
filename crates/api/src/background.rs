//! What the service does beside answering: each job is one function of the library, which takes the
//! installation and a future that says when to stop, and survives its own failures.

use tenantry_db::models::{heartbeat, idempotency};
use tenantry_db::{Installation, audit, lifecycle, operate, replicas};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The jobs that are running. Dropped, it breaks them off.
pub(crate) struct Background {
    stop: watch::Sender<bool>,
    jobs: JoinSet<()>,
}

impl Background {
    /// Starts all of them.
    pub(crate) fn start(installation: &Installation) -> Self {
        let mut background = Self { stop: watch::Sender::new(false), jobs: JoinSet::new() };
        let installation = || installation.clone();
        let stop = background.stop();
        background.jobs.spawn(lifecycle::keep_ready_pool(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(idempotency::keep_forgetting(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(lifecycle::run_due_purges(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(lifecycle::keep_dropping_kept(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(audit::keep_sealing(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(audit::keep_anchoring(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(operate::keep_sweeping_shells(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(heartbeat::keep_beating(installation(), stop));
        let stop = background.stop();
        background.jobs.spawn(replicas::watch(installation(), stop));
        background
    }

    /// Done when the jobs are to end.
    fn stop(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            // The sender's end means the same.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// Tells them to end, and waits until they have: a job ends at once, and its transaction with it.
    pub(crate) async fn end(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.jobs.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a background job broke off");
            }
        }
    }
}
