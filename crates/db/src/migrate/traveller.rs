//! A tenant on its way: how often it was tried, and when it is tried again.

use std::time::Duration;

use super::standing::Standing;

pub(super) struct Traveller {
    pub(super) standing: Standing,
    /// Tries that ended by something at the tenant.
    pub(super) attempts: u32,
    /// Tries that ended because the server was lost.
    pub(super) lost: u32,
}

impl Traveller {
    pub(super) fn new(standing: Standing) -> Self {
        Self { standing, attempts: 0, lost: 0 }
    }

    /// Doubled each time, and spread by the tenant's id, so that not all come back at once.
    pub(super) fn pause(&self, tries: u32) -> Duration {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(5);
        let doubled = FIRST.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST);
        let bytes = self.standing.id.as_uuid().as_bytes();
        let spread = f64::from(bytes[tries as usize % bytes.len()]) / f64::from(u8::MAX);
        doubled.mul_f64(0.5 + spread / 2.0)
    }
}
