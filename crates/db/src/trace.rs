//! What was learned through a handle: how new a state it has written or seen, and who answered its reads.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::consistency::Position;

/// Who answered a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedBy {
    /// The primary.
    Primary,
    /// A replica.
    Replica,
}

impl ServedBy {
    /// As in HTTP's `Served-By`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// Shared by a handle and its clones.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    newest: Mutex<Option<Position>>,
    served: AtomicU8,
}

impl Trace {
    pub(crate) fn note(&self, position: Position) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two histories the later one counts.
        let rank = |position: Position| (position.timeline, position.lsn);
        if newest.is_none_or(|known| rank(known) < rank(position)) {
            *newest = Some(position);
        }
    }

    pub(crate) fn newest(&self) -> Option<Position> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_served(&self, by: ServedBy) {
        let code = match by {
            ServedBy::Primary => 1,
            ServedBy::Replica => 2,
        };
        self.served.store(code, Ordering::Relaxed);
    }

    pub(crate) fn served_by(&self) -> Option<ServedBy> {
        match self.served.load(Ordering::Relaxed) {
            1 => Some(ServedBy::Primary),
            2 => Some(ServedBy::Replica),
            _ => None,
        }
    }
}
