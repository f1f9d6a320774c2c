//! A start that is interrupted, at whatever moment, leaves nothing behind after `stop`.

use std::time::{Duration, Instant};

use tenantry_stack::Stack;

use crate::place::{Place, settings, start_all};

#[tokio::test]
async fn a_start_can_be_cancelled_at_any_moment() {
    // Finding out how long it takes here spreads the moments over the whole of it.
    let place = Place::new();
    let mut stack = Stack::open(place.options()).await.unwrap();
    let begun = Instant::now();
    start_all(&mut stack).await;
    let whole = begun.elapsed();
    stack.stop().await.unwrap();
    drop(stack);

    let mut finished = 0;
    for percent in [1, 25, 50, 65, 80, 95] {
        let place = Place::new();
        let mut stack = Stack::open(place.options()).await.unwrap();
        tokio::select! {
            () = start_all(&mut stack) => finished += 1,
            () = tokio::time::sleep(whole * percent / 100) => {}
        }
        stack.stop().await.unwrap();
        place.expect_no_processes().await;
    }
    assert!(finished < 4, "the machine was too uneven: {finished} starts were not interrupted");
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
