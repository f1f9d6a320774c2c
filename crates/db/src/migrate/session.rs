//! A direct connection of a migration's own.

use tokio_postgres::{CancelToken, Client, NoTls};

use super::claim::PREPARE;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};

/// A connection past PgBouncer that only one migration uses at a time.
pub(super) struct Session {
    client: Client,
    pid: i32,
    used: usize,
    used_up: bool,
}

impl Session {
    /// A backend keeps what it learns of each tenant's tables, some 200 KB. A new one costs a few
    /// milliseconds.
    const MAX_USES: usize = 500;

    pub(super) async fn open(admin: &AdminDb) -> Result<Self, Error> {
        let client = admin.session().await?;
        let row = client
            .query_typed_one("SELECT pg_backend_pid()", &[])
            .await
            .doing("ask for the connection's number")?;
        Ok(Self { pid: row.get(0), client, used: 0, used_up: false })
    }

    /// As [`open`](Self::open), for many tenants one after another, none of which waits for the disk.
    ///
    /// The run's own last entry is written synchronously, and takes all earlier ones along: one log, in
    /// order. After a crash of the server before that, the last tenants are whole at their former
    /// version, and the run looks for them, or the next one does.
    ///
    /// What a killed runner was waiting for is ended by the server soon, so that the next one, which may
    /// follow at once, finds the tenant's row free.
    pub(super) async fn open_for_fleet(admin: &AdminDb) -> Result<Self, Error> {
        let session = Self::open(admin).await?;
        session
            .client
            .batch_execute(&format!("SET synchronous_commit = off; {PREPARE}"))
            .await
            .doing("prepare a connection for migrations")?;
        let watched = "SET client_connection_check_interval = '500ms'";
        if let Err(error) = session.client.batch_execute(watched).await {
            tracing::debug!(error = %error, "this server can't look whether its clients are there");
        }
        Ok(session)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The backend's process on the server.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Counts a use; says whether it may be used again.
    pub(super) fn may_go_on(&mut self) -> bool {
        self.used += 1;
        self.used < Self::MAX_USES && !self.used_up && !self.client.is_closed()
    }

    /// It has settings or locks now that a next one must not meet.
    pub(super) fn use_up(&mut self) {
        self.used_up = true;
    }

    pub(super) fn canceller(&self) -> Canceller {
        Canceller(self.client.cancel_token())
    }
}

/// Ends what a session's backend is doing.
pub(super) struct Canceller(CancelToken);

impl Canceller {
    /// Asks the server. What was under way is rolled back, unless it was through already.
    pub(super) async fn cancel(&self) {
        if let Err(error) = self.0.cancel_query(NoTls).await {
            tracing::warn!(error = %error, "can't cancel a migration under way");
        }
    }
}
