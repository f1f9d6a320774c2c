//! What a service does again and again beside answering: when, and what becomes of a failure.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

/// The longest pause after failures.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Does a step every `every` until `stop` is done. `doing` is a verb phrase that follows «can't».
///
/// A failure is said once, and ends nothing: the pause doubles with each further one, up to a minute. A
/// step that is under way when `stop` comes is dropped, so it must be safe to drop; what is done in a
/// transaction is.
pub async fn repeat<F: Future<Output = Result<(), E>>, E: Error + 'static>(
    doing: &'static str,
    every: Duration,
    stop: impl Future<Output = ()>,
    mut step: impl FnMut() -> F,
) {
    let steps = async {
        let mut failures: u32 = 0;
        loop {
            match step().await {
                Ok(()) if failures > 0 => {
                    tracing::info!(failures, "it works again: {doing}");
                    failures = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    let cause = causes(&error);
                    if failures == 0 {
                        tracing::warn!(cause, "can't {doing}: trying again");
                    } else {
                        tracing::debug!(cause, failures, "can't {doing}");
                    }
                    failures = failures.saturating_add(1);
                }
            }
            tokio::time::sleep(pause(every, failures)).await;
        }
    };
    tokio::select! {
        biased;
        () = pin!(stop) => {}
        () = steps => {}
    }
}

fn pause(every: Duration, failures: u32) -> Duration {
    let longer = every.saturating_mul(1 << failures.min(16));
    if failures == 0 { every } else { longer.min(MAX_PAUSE.max(every)) }
}

/// The error and what is behind it, the first line of each: what PostgreSQL adds below repeats values.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let separator = if text.is_empty() { "" } else { ": " };
        text += separator;
        text += error.to_string().lines().next().unwrap_or_default();
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let second = Duration::from_secs(1);
        let pauses: Vec<u64> = (0..9).map(|n| pause(second, n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(second, u32::MAX), MAX_PAUSE);
        let hour = Duration::from_secs(3600);
        assert_eq!((pause(hour, 0), pause(hour, 3)), (hour, hour));
    }

    #[tokio::test]
    async fn failures_end_nothing_and_a_stop_ends_even_what_never_would() {
        let stop = Notify::new();
        let mut calls = 0;
        let step = || {
            calls += 1;
            let (call, stop) = (calls, &stop);
            async move {
                match call {
                    1..=3 => Err(crate::Error::TransactionFailed),
                    5 => {
                        stop.notify_one();
                        std::future::pending().await
                    }
                    _ => Ok(()),
                }
            }
        };
        repeat("try", Duration::from_millis(1), stop.notified(), step).await;
        assert_eq!(calls, 5);
    }
}
