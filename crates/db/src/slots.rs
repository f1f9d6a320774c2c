//! Per-tenant slots: how many transactions of one tenant run at once.
//!
//! A tenant that floods the service queues behind itself: a bounded number of its requests wait, for
//! a bounded time, and the rest are refused as busy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Tier;
use crate::error::Error;
use crate::ids::TenantId;

/// How many may wait for each slot.
const WAITING_PER_SLOT: usize = 8;

/// Dead entries are swept when the map has doubled, but not below this size.
const SWEEP_AT_LEAST: usize = 1024;

/// One tenant's slots.
#[derive(Debug)]
pub(crate) struct TenantSlots {
    slots: u16,
    running: Arc<Semaphore>,
    /// Those that run and those that wait.
    admitted: Arc<Semaphore>,
}

/// Held while a transaction runs.
#[derive(Debug)]
pub(crate) struct Slot {
    _running: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
}

impl TenantSlots {
    fn new(slots: u16) -> Self {
        let count = usize::from(slots);
        Self {
            slots,
            running: Arc::new(Semaphore::new(count)),
            admitted: Arc::new(Semaphore::new(count * (1 + WAITING_PER_SLOT))),
        }
    }

    /// Takes a slot, waiting as long as the tier allows.
    ///
    /// # Errors
    /// [`Error::TenantBusy`] when too many wait already, or the wait was in vain.
    pub(crate) async fn acquire(&self, tenant: TenantId, tier: &Tier) -> Result<Slot, Error> {
        let busy = || Error::TenantBusy(tenant);
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| busy())?;
        let running =
            tokio::time::timeout(tier.slot_timeout, Arc::clone(&self.running).acquire_owned());
        match running.await {
            Ok(Ok(running)) => Ok(Slot { _running: running, _admitted: admitted }),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

/// The slots of all tenants that are being served.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    tenants: Mutex<Tenants>,
}

#[derive(Debug, Default)]
struct Tenants {
    by_id: HashMap<TenantId, Weak<TenantSlots>>,
    sweep_at: usize,
}

impl Slots {
    /// The tenant's slots: the same ones for everybody who holds them, new ones after its tier
    /// changed.
    pub(crate) fn of(&self, tenant: TenantId, tier: &Tier) -> Arc<TenantSlots> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tenants.by_id.get(&tenant).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.slots == tier.slots) {
            return known;
        }
        if tenants.by_id.len() >= tenants.sweep_at.max(SWEEP_AT_LEAST) {
            tenants.by_id.retain(|_, slots| slots.strong_count() > 0);
            tenants.sweep_at = tenants.by_id.len() * 2;
        }
        let slots = Arc::new(TenantSlots::new(tier.slots));
        tenants.by_id.insert(tenant, Arc::downgrade(&slots));
        slots
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tier(slots: u16, slot_timeout: Duration) -> Tier {
        let second = Duration::from_secs(1);
        Tier {
            slots,
            slot_timeout,
            statement_timeout: second,
            idle_timeout: second,
            retention: None,
        }
    }

    #[tokio::test]
    async fn a_tenant_fills_its_own_slots_only() {
        let slots = Slots::default();
        let tier = tier(2, Duration::from_millis(1));
        let (one, other) = (TenantId::random(), TenantId::random());
        let held = slots.of(one, &tier);
        let first = held.acquire(one, &tier).await.unwrap();
        let _second = slots.of(one, &tier).acquire(one, &tier).await.unwrap();
        assert!(matches!(held.acquire(one, &tier).await, Err(Error::TenantBusy(id)) if id == one));
        slots.of(other, &tier).acquire(other, &tier).await.unwrap();
        drop(first);
        held.acquire(one, &tier).await.unwrap();
    }

    #[tokio::test]
    async fn the_queue_has_an_end() {
        let tier = tier(1, Duration::from_secs(600));
        let tenant = TenantId::random();
        let slots = Slots::default().of(tenant, &tier);
        let _running = slots.acquire(tenant, &tier).await.unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING_PER_SLOT).map(|_| Box::pin(slots.acquire(tenant, &tier))).collect();
        for wait in &mut waiting {
            assert!(futures_util::poll!(wait).is_pending());
        }
        assert!(slots.acquire(tenant, &tier).await.is_err(), "one more is refused at once");
    }
}
