//! Running a call many times and saying how long it took.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

/// How long each of many calls took, and all of them together.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    took: Vec<Duration>,
    wall: Duration,
}

impl Sample {
    /// Calls that were made elsewhere.
    pub(crate) fn of(took: Vec<Duration>) -> Self {
        Self { wall: took.iter().sum(), took }
    }

    pub(crate) fn len(&self) -> usize {
        self.took.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The time that `share` of the calls stayed within, in microseconds.
    pub(crate) fn percentile_us(&mut self, share: f64) -> f64 {
        self.took.sort_unstable();
        let last = self.took.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.took.get(at).map_or(f64::NAN, |d| d.as_secs_f64() * 1e6)
    }

    /// Calls it so many times in all, each client one after the other.
    pub(crate) async fn add_calls<C, E: std::fmt::Debug>(
        &mut self,
        clients: &[C],
        calls: usize,
        call: impl AsyncFn(&C) -> Result<(), E>,
    ) -> Result<(), E> {
        let each = calls.div_ceil(clients.len());
        self.add_while(clients, call, |done, _| done < each).await
    }

    /// Calls it from each client, one after the other, until the time is over.
    pub(crate) async fn add<C, E: std::fmt::Debug>(
        &mut self,
        clients: &[C],
        span: Duration,
        call: impl AsyncFn(&C) -> Result<(), E>,
    ) -> Result<(), E> {
        self.add_while(clients, call, |_, elapsed| elapsed < span).await
    }

    async fn add_while<C, E: std::fmt::Debug>(
        &mut self,
        clients: &[C],
        call: impl AsyncFn(&C) -> Result<(), E>,
        goes_on: impl Fn(usize, Duration) -> bool,
    ) -> Result<(), E> {
        let started = Instant::now();
        let one = async |client: &C| {
            let mut took = Vec::new();
            while goes_on(took.len(), started.elapsed()) {
                let begun = Instant::now();
                call(client).await?;
                took.push(begun.elapsed());
            }
            Ok::<_, E>(took)
        };
        for took in join_all(clients.iter().map(one)).await {
            self.took.extend(took?);
        }
        self.wall += started.elapsed();
        Ok(())
    }
}
