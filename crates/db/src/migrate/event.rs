//! What a run tells of itself while it goes on.

use serde::Serialize;

use super::AppliedNow;
use super::record::{Blocker, SchemaFailure};
use super::standing::Standing;
use crate::ids::TenantId;

/// What happens, as it happens.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Something that does no harm, and should be known.
    Remark {
        /// A sentence.
        remark: String,
    },
    /// A migration of the public schema is through, in either direction.
    Public {
        /// The version.
        version: i64,
        /// Its name.
        name: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// A wave of tenants begins.
    WaveBegan {
        /// Its number, from 1.
        wave: usize,
        /// How many there are.
        waves: usize,
        /// How many tenants are in it.
        tenants: usize,
        /// How many the run concerns.
        total: usize,
    },
    /// A migration of a tenant is through, in either direction.
    Applied {
        /// The tenant.
        tenant: TenantId,
        /// Its human name, if it has one.
        subdomain: Option<String>,
        /// The version.
        version: i64,
        /// Its name.
        name: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// A tenant stands where it was to go.
    TenantDone {
        /// The tenant.
        tenant: TenantId,
        /// Its human name, if it has one.
        subdomain: Option<String>,
        /// How many do so far.
        done: usize,
        /// How many the run concerns.
        total: usize,
    },
    /// A tenant is purged, or being purged.
    Skipped {
        /// The tenant.
        tenant: TenantId,
    },
    /// A tenant will be tried again.
    Retrying {
        /// The tenant.
        tenant: TenantId,
        /// Its human name, if it has one.
        subdomain: Option<String>,
        /// Why it did not work.
        reason: String,
        /// Who held the lock that it waited for.
        blocked_by: Vec<Blocker>,
        /// Which try that was.
        attempt: u32,
        /// How long until the next.
        pause_ms: u64,
    },
    /// A schema can't be brought along.
    Failed(SchemaFailure),
    /// The server is out of locks, memory or connections: fewer tenants at once.
    SlowedDown {
        /// How many.
        parallel: usize,
    },
    /// Somebody wants to stop.
    Stopping {
        /// How many tenants are under way.
        under_way: usize,
    },
}

impl Event {
    pub(super) fn applied(standing: &Standing, now: &AppliedNow) -> Self {
        Self::Applied {
            tenant: standing.id,
            subdomain: standing.subdomain.clone(),
            version: now.version,
            name: now.name.clone(),
            duration_ms: millis(now),
        }
    }

    pub(super) fn public(now: &AppliedNow) -> Self {
        let duration_ms = millis(now);
        Self::Public { version: now.version, name: now.name.clone(), duration_ms }
    }
}

fn millis(now: &AppliedNow) -> u64 {
    u64::try_from(now.took.as_millis()).unwrap_or(u64::MAX)
}
