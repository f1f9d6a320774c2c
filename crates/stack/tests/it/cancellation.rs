//! A start that is interrupted, at whatever moment, leaves nothing behind after `stop`.

use std::time::{Duration, Instant};

use tenantry_stack::Stack;

use crate::place::{Place, settings, start_all};

#[tokio::test]
async fn a_start_can_be_cancelled_at_any_moment() {
    // Shares of how long it takes here spread the moments over the whole of it.
    let mut whole = interrupted(Duration::MAX).await.expect("nothing interrupted this one");
    for percent in [1, 25, 50, 65, 80, 95] {
        // A start that was through before its moment is a better measure of how long one takes.
        while let Some(shorter) = interrupted(whole * percent / 100).await {
            whole = shorter;
        }
    }
}

/// Starts all servers, interrupts that after `moment`, and sees that `stop` leaves no process.
/// Returns how long the start took if it was through before that.
async fn interrupted(moment: Duration) -> Option<Duration> {
    let place = Place::new();
    let mut stack = Stack::open(place.options()).await.unwrap();
    let begun = Instant::now();
    let whole = tokio::time::timeout(moment, start_all(&mut stack)).await.ok();
    let whole = whole.map(|()| begun.elapsed());
    stack.stop().await.unwrap();
    place.expect_no_processes().await;
    whole
}

#[tokio::test]
async fn a_start_goes_on_after_many_interruptions() {
    let place = Place::new();
    let mut stack = Stack::open(place.options()).await.unwrap();
    let mut patience = Duration::from_millis(3);
    for _ in 0..12 {
        let start = async {
            stack.start_primary().await.unwrap();
            stack.start_replica(1).await.unwrap();
            stack.start_pooler(&settings()).await.unwrap();
        };
        let _ = tokio::time::timeout(patience, start).await;
        patience = patience.mul_f32(1.6);
    }
    start_all(&mut stack).await;
    stack.stop().await.unwrap();
    place.expect_no_processes().await;
}
