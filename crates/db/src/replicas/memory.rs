//! What each tenant has written or seen through this process, for those who send no token.
//!
//! Kept for a while and bounded: where there is no room, a tenant is not forgotten but counted among
//! those who have seen the newest of it all, which costs them reads on the primary and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::types::PgLsn;

use crate::ids::TenantId;

/// No replica ever shows this: whoever needs it reads from the primary.
pub(crate) const BEYOND: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Memory {
    keep: Duration,
    most: usize,
    /// Between one and two times `keep` in all.
    halves: Mutex<Halves>,
}

#[derive(Debug)]
struct Halves {
    since: Instant,
    young: Half,
    old: Half,
}

#[derive(Debug, Default)]
struct Half {
    positions: HashMap<TenantId, PgLsn>,
    /// For all that found no room.
    others: Option<PgLsn>,
}

impl Half {
    fn of(&self, tenant: TenantId) -> Option<PgLsn> {
        self.positions.get(&tenant).copied().max(self.others)
    }
}

impl Memory {
    pub(crate) fn new(keep: Duration, most: usize) -> Self {
        let halves = Halves { since: Instant::now(), young: Half::default(), old: Half::default() };
        Self { keep, most, halves: Mutex::new(halves) }
    }

    /// The newest position that the tenant has written or seen.
    pub(crate) fn of(&self, tenant: TenantId) -> Option<PgLsn> {
        self.at(Instant::now(), |halves| halves.young.of(tenant).max(halves.old.of(tenant)))
    }

    /// The tenant has written or seen this.
    pub(crate) fn note(&self, tenant: TenantId, position: PgLsn) {
        self.note_at(Instant::now(), tenant, position);
    }

    /// Nobody knows whether the tenant has written something: the answer was not seen.
    pub(crate) fn note_unknown(&self, tenant: TenantId) {
        self.note(tenant, BEYOND.into());
    }

    fn note_at(&self, now: Instant, tenant: TenantId, position: PgLsn) {
        self.at(now, |halves| {
            let Half { positions, others } = &mut halves.young;
            let room = positions.len() < self.most;
            match positions.get_mut(&tenant) {
                Some(known) => *known = position.max(*known),
                None if room => drop(positions.insert(tenant, position)),
                None => *others = Some(position).max(*others),
            }
        });
    }

    fn at<T>(&self, now: Instant, look: impl FnOnce(&mut Halves) -> T) -> T {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(halves.since);
        if age >= self.keep {
            let young = std::mem::take(&mut halves.young);
            // After a pause of twice that, what was young is too old as well.
            halves.old = if age < 2 * self.keep { young } else { Half::default() };
            halves.since = now;
        }
        look(&mut halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(30);

    fn of(memory: &Memory, now: Instant, tenant: TenantId) -> Option<u64> {
        let of = |halves: &mut Halves| halves.young.of(tenant).max(halves.old.of(tenant));
        memory.at(now, of).map(u64::from)
    }

    #[test]
    fn the_newest_is_kept_for_its_time() {
        let (memory, start) = (Memory::new(KEEP, 10), Instant::now());
        let (one, other) = (TenantId::random(), TenantId::random());
        memory.note_at(start + KEEP / 2, one, 200.into());
        memory.note_at(start + KEEP / 2, one, 100.into());
        for later in [0, 10, 20, 29, 30, 44] {
            let now = start + KEEP / 2 + Duration::from_secs(later);
            assert_eq!(of(&memory, now, one), Some(200), "{later} s");
            assert_eq!(of(&memory, now, other), None);
        }
        assert_eq!(of(&memory, start + 3 * KEEP, one), None);
    }

    #[test]
    fn an_old_half_never_hides_a_newer_position() {
        let (memory, start) = (Memory::new(KEEP, 10), Instant::now());
        let tenant = TenantId::random();
        memory.note_at(start, tenant, 300.into());
        memory.note_at(start + KEEP, tenant, 100.into());
        assert_eq!(of(&memory, start + KEEP, tenant), Some(300));
    }

    #[test]
    fn a_pause_forgets_and_nothing_else_does() {
        let (memory, start) = (Memory::new(KEEP, 10), Instant::now());
        let tenant = TenantId::random();
        memory.note_at(start, tenant, 1.into());
        assert_eq!(of(&memory, start + 2 * KEEP, tenant), None);
    }

    #[test]
    fn who_finds_no_room_is_not_forgotten() {
        let (memory, start) = (Memory::new(KEEP, 2), Instant::now());
        let tenants: Vec<TenantId> = (0..5).map(|_| TenantId::random()).collect();
        for (n, tenant) in tenants.iter().enumerate() {
            memory.note_at(start, *tenant, (n as u64 + 1).into());
        }
        for (n, tenant) in tenants.iter().enumerate() {
            assert!(of(&memory, start, *tenant) >= Some(n as u64 + 1));
        }
        assert_eq!(memory.halves.lock().unwrap().young.positions.len(), 2);
    }
}
