//! One try to take one tenant where it is to go, and what its failure means.

use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::error::SqlState;

use super::record::{self, Blocker};
use super::session::Session;
use super::standing::Standing;
use super::tenant::{Arrival, Journey};
use super::{AppliedNow, MigrationError};
use crate::direct::AdminDb;
use crate::error::{Error, server_is_away};

/// What came of a try.
pub(super) struct Attempted {
    pub(super) standing: Standing,
    /// The connection, if it may be used again.
    pub(super) session: Option<Session>,
    pub(super) result: Result<Arrival, Error>,
    pub(super) applied: Vec<AppliedNow>,
    pub(super) blocked_by: Vec<Blocker>,
    pub(super) cancelled: bool,
}

/// What a failure means for the tries to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may pass: somebody held a lock.
    Later,
    /// It may pass, and less at once would help: the server is out of locks, memory or connections.
    Overloaded,
    /// The server, or the way to it, was lost.
    Away,
    /// It will fail again.
    Final,
}

/// Takes a tenant there. Once `cancel` is true, what is under way is rolled back.
pub(super) async fn attempt(
    journey: Journey<'_>,
    session: Option<Session>,
    mut standing: Standing,
    mut cancel: watch::Receiver<bool>,
    look_after: Duration,
) -> Attempted {
    let mut applied = Vec::new();
    let mut blocked_by = Vec::new();
    let mut session = match session {
        Some(session) => session,
        None => match Session::open_for_fleet(journey.admin).await {
            Ok(session) => session,
            Err(error) => {
                let result = Err(error);
                return Attempted {
                    standing,
                    session: None,
                    result,
                    applied,
                    blocked_by,
                    cancelled: false,
                };
            }
        },
    };
    let (pid, canceller) = (session.pid(), session.canceller());
    let mut cancelled = false;
    let result = {
        let mut progress = |now| applied.push(now);
        let wanted = cancel.clone();
        let taking = journey.take(&mut session, &mut standing, &wanted, &mut progress);
        let mut taking = std::pin::pin!(taking);
        loop {
            tokio::select! {
                biased;
                result = &mut taking => break result,
                wanted = is_wanted(&mut cancel), if !cancelled => {
                    cancelled = true;
                    if wanted {
                        canceller.cancel().await;
                    }
                }
                () = tokio::time::sleep(look_after), if blocked_by.is_empty() => {
                    blocked_by = seen_blockers(journey.admin, pid).await;
                }
            }
        }
    };
    cancelled |= *cancel.borrow();
    let session = session.may_go_on().then_some(session);
    Attempted { standing, session, result, applied, blocked_by, cancelled }
}

/// Waits for the wish; false if nobody can have it any more.
async fn is_wanted(cancel: &mut watch::Receiver<bool>) -> bool {
    cancel.wait_for(|cancel| *cancel).await.is_ok()
}

/// For the message only: where nobody can be asked, there is nobody to name.
async fn seen_blockers(admin: &AdminDb, pid: i32) -> Vec<Blocker> {
    record::blockers(admin, pid).await.unwrap_or_else(|error| {
        tracing::debug!(error = %error, "can't look who holds the lock");
        Vec::new()
    })
}

impl Verdict {
    /// Judges a failure.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::Busy(_) => Self::Later,
            Error::Unavailable { source, .. } => {
                match source.downcast_ref::<tokio_postgres::Error>() {
                    Some(source) if Self::of_server(source) == Self::Overloaded => Self::Overloaded,
                    _ => Self::Away,
                }
            }
            Error::Migration(MigrationError::Failed { source, .. })
            | Error::Database { source, .. } => Self::of_server(source),
            _ => Self::Final,
        }
    }

    fn of_server(error: &tokio_postgres::Error) -> Self {
        const LATER: [SqlState; 3] = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
        ];
        const OVERLOADED: [SqlState; 2] = [SqlState::OUT_OF_MEMORY, SqlState::TOO_MANY_CONNECTIONS];
        match error.code() {
            Some(code) if LATER.contains(code) => Self::Later,
            Some(code) if OVERLOADED.contains(code) => Self::Overloaded,
            _ if server_is_away(error) => Self::Away,
            None if is_io(error) => Self::Away,
            _ => Self::Final,
        }
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}
