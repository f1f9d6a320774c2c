//! The replicas: which of them are healthy, which one answers a read, and what each tenant must be shown
//! at least.
//!
//! Nothing here makes a read correct: the transaction that reads checks where its replica is
//! (see `bind`). Health bounds how old a state may be that nobody has objected to, and keeps
//! reads away from where they would be in vain.

mod choose;
mod health;
mod look;
mod memory;
mod track;
mod view;
mod watch;

use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, watch as channel};

use crate::config::{self, Config};
use crate::consistency::Tokens;
use crate::direct::server_name;
use crate::error::Error;
use crate::ids::{LaneId, TenantId};
use crate::lanes::LanePools;

pub use choose::ReadOn;
pub use health::{Reason, State};
pub use view::{ReplicaView, inspect};
pub use watch::watch;

pub(crate) use choose::{Choice, Lease};
pub(crate) use health::Health;

use memory::Memory;
use track::Track;

/// What a process knows of the replicas.
#[derive(Debug)]
pub struct Replicas {
    replicas: Vec<Replica>,
    limits: config::Replicas,
    track: Mutex<Track>,
    memory: Memory,
    tokens: Tokens,
    /// For each lane, how many reads may run on the primary.
    fallback: Vec<Semaphore>,
    counts: [AtomicU64; ReadOn::COUNT],
    /// What each replica is asked about its health.
    question: String,
}

/// One replica, as a process sees it.
#[derive(Debug)]
pub(crate) struct Replica {
    name: String,
    /// The reader's way to it.
    direct: tokio_postgres::Config,
    /// The way of tenants' reads to it, for trying it.
    pooled: tokio_postgres::Config,
    lanes: LanePools,
    seen: channel::Sender<Seen>,
    under_way: AtomicUsize,
    reads: AtomicU64,
    /// It has replayed at least this.
    replayed: AtomicU64,
    /// A position that it had not reached when it was last asked for, and when that was.
    refused: Mutex<Option<choose::Refusal>>,
    /// Reads in a row that broke off.
    broken: AtomicU16,
    /// Something is wrong there: look now.
    suspect: Notify,
}

/// What the looks at a replica have come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) health: Health,
    pub(crate) last: Option<view::LastLook>,
}

impl Replicas {
    /// More tenants than this within the time that is remembered cost each other reads on the primary.
    const REMEMBERED_TENANTS: usize = 100_000;

    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let secret = config.lanes.secret()?;
        let login = config.roles.reader();
        let direct = config.database.replicas_direct(&login, &secret.password(&login));
        let lane = config.roles.lane(LaneId::spread(TenantId::random(), config.lanes.count));
        let pooled = config.database.replicas_pooled(&lane, &secret.password(&lane));
        let mut replicas = Vec::new();
        // Without the second address nobody knows how the replica is, so it is as if it were not there.
        for (index, (direct, pooled)) in direct.into_iter().zip(pooled).enumerate() {
            replicas.push(Replica {
                name: server_name(&pooled),
                direct,
                pooled,
                lanes: LanePools::of_replica(config, index)?,
                seen: channel::Sender::new(Seen::default()),
                under_way: AtomicUsize::new(0),
                reads: AtomicU64::new(0),
                replayed: AtomicU64::new(0),
                refused: Mutex::new(None),
                broken: AtomicU16::new(0),
                suspect: Notify::new(),
            });
        }
        let limits = config.replicas;
        let share = usize::from(config.lanes.pool_size) * usize::from(limits.fallback_percent);
        let permits = (share / 100).max(1);
        Ok(Self {
            replicas,
            limits,
            track: Mutex::default(),
            memory: Memory::new(limits.memory(), Self::REMEMBERED_TENANTS),
            tokens: Tokens::new(secret, limits.token_ttl()),
            fallback: LaneId::all().map(|_| Semaphore::new(permits)).collect(),
            counts: Default::default(),
            question: look::question(&config.roles),
        })
    }

    /// Whether there is none to read from.
    pub(crate) fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn limits(&self) -> &config::Replicas {
        &self.limits
    }

    /// The timeline that the primary writes; none as long as it has not answered.
    pub(crate) fn timeline(&self) -> Option<u32> {
        self.track().timeline()
    }

    fn track(&self) -> MutexGuard<'_, Track> {
        self.track.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many reads were answered where, and why.
    pub fn counts(&self) -> impl Iterator<Item = (ReadOn, u64)> {
        let count = |on: ReadOn| self.counts[on.index()].load(Ordering::Relaxed);
        ReadOn::all().map(move |on| (on, count(on)))
    }

    /// What is known of each, in the order of the configuration.
    pub fn views(&self) -> Vec<ReplicaView> {
        self.replicas.iter().map(ReplicaView::of).collect()
    }
}

impl Replica {
    /// It has told that it has replayed this much.
    fn note_replayed(&self, position: u64) {
        self.replayed.fetch_max(position, Ordering::AcqRel);
    }
}
