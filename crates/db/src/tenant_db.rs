//! A tenant's database: statements that run as the tenant, in its schema, and nowhere else.
//!
//! There is no way from here to a bare connection. A single statement costs one round trip: bind,
//! statement and COMMIT leave together (pipelined), after an idea of the PostgreSQL protocol that
//! libpq calls pipeline mode.

use std::sync::Arc;

use futures_util::future::join;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use crate::bind::{self, COMMIT, COMMIT_AND_TELL, ROLLBACK};
use crate::directory::TenantEntry;
use crate::door;
use crate::error::{Error, server_is_away};
use crate::ids::TenantId;
use crate::installation::Installation;
use crate::lanes::{LaneConnection, State};
use crate::models::tenants::Status;
use crate::replicas::Replicas;
use crate::slots::Slot;
use crate::tenant_read::TenantRead;
use crate::trace::{ServedBy, Trace};
use crate::trip::{self, Answer, Broken, Params, Told};

/// A handle on one tenant's database. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct TenantDb {
    pub(crate) installation: Installation,
    pub(crate) tenant: Arc<TenantEntry>,
    pub(crate) trace: Arc<Trace>,
}

/// How often a refused bind is taken for a tenant that has moved to another lane since it was looked up, and
/// once more while it was looked up again.
const REFUSALS: u32 = 2;

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
}

impl TenantDb {
    pub(crate) fn new(installation: Installation, tenant: Arc<TenantEntry>) -> Result<Self, Error> {
        match tenant.status {
            Status::Active => Ok(Self { installation, tenant, trace: Arc::default() }),
            status => Err(Error::TenantNotServed { tenant: tenant.id, status }),
        }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantEntry {
        &self.tenant
    }

    /// A handle for reads: a replica may answer them, unless it is older than what the tenant has written
    /// or seen through this process.
    pub fn read(&self) -> TenantRead {
        TenantRead::new(self.clone())
    }

    /// A token for what was written or seen through this handle, its clones and their
    /// [`read`](Self::read)s; none before anything was. Given to [`TenantRead::after`] in any process, it
    /// makes sure that nothing older is read.
    pub fn token(&self) -> Option<String> {
        let tokens = self.installation.replicas().tokens();
        self.trace.newest().map(|position| tokens.seal(self.tenant.id, position))
    }

    /// Who answered the last read of this handle.
    pub fn served_by(&self) -> Option<ServedBy> {
        self.trace.served_by()
    }

    /// Runs one statement in a transaction of its own on the primary, in one round trip, and yields its
    /// rows.
    ///
    /// Dropping the call closes its connection; whether the statement took effect is unknown then.
    ///
    /// # Errors
    /// [`Error::TenantBusy`], [`Error::Unavailable`], [`Error::ForbiddenStatement`],
    /// [`Error::Bind`] if the tenant could not be bound (nothing ran then), and what the server says
    /// of the statement.
    pub async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        self.single(sql, params).await.map(|answer| answer.rows)
    }

    /// As [`query`](Self::query), for a statement that yields one row or none.
    ///
    /// # Errors
    /// As [`query`](Self::query); more than one row is [`Error::RowCount`].
    pub async fn query_opt(
        &self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        self.single(sql, params).await?.one_or_none()
    }

    /// As [`query`](Self::query), for a statement that yields one row.
    ///
    /// # Errors
    /// As [`query`](Self::query); any other number of rows is [`Error::RowCount`].
    pub async fn query_one(&self, sql: &'static str, params: Params<'_>) -> Result<Row, Error> {
        self.single(sql, params).await?.one()
    }

    /// As [`query`](Self::query), and yields the number of rows that were changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &'static str, params: Params<'_>) -> Result<u64, Error> {
        self.single(sql, params).await.map(|answer| answer.changed)
    }

    /// Begins a transaction of several statements. The bind goes out with the first of them.
    ///
    /// # Errors
    /// [`Error::TenantBusy`] or [`Error::Unavailable`].
    pub async fn begin(&self) -> Result<TenantTx, Error> {
        let TenantEntry { id, lane, limits, slots, .. } = &*self.tenant;
        let slot = slots.acquire(*id, limits).await?;
        let connection = self.installation.lanes().connection(*lane).await?;
        let Self { installation, tenant, trace } = self.clone();
        Ok(TenantTx { installation, connection, tenant, trace, failed: false, _slot: slot })
    }

    async fn single(&self, sql: &'static str, params: Params<'_>) -> Result<Answer, Error> {
        let sql = door::admit(sql)?;
        let TenantEntry { id, limits, slots, .. } = &*self.tenant;
        let _slot = slots.acquire(*id, limits).await?;
        self.on_primary(&self.tenant, Access::Write, sql, params).await
    }

    /// Runs a statement on the primary, by way of the lane where the tenant is now. Whoever calls holds one
    /// of its slots.
    pub(crate) async fn on_primary(
        &self,
        tenant: &TenantEntry,
        access: Access,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Answer, Error> {
        let directory = self.installation.directory();
        let mut moved = None;
        for _ in 0..REFUSALS {
            let tenant = moved.as_deref().unwrap_or(tenant);
            match self.attempt(tenant, access, sql, params).await {
                Err(refused) if refused.is_refused_bind() => {
                    moved = Some(directory.find_after_refusal(tenant).await?);
                }
                result => return result,
            }
        }
        self.attempt(moved.as_deref().unwrap_or(tenant), access, sql, params).await
    }

    async fn attempt(
        &self,
        tenant: &TenantEntry,
        access: Access,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Answer, Error> {
        let replicas = self.installation.replicas();
        let mut connection = self.installation.lanes().connection(tenant.lane).await?;
        let result = match access {
            Access::Write => {
                let unsure = Unsure::of(replicas, tenant.id);
                let made =
                    trip::make(&mut connection, &tenant.bind, COMMIT_AND_TELL, sql, params).await;
                unsure.settle(made.as_ref().err().map(Broken::source));
                made
            }
            Access::Read => {
                // Nobody asks how new it is where there is nothing older.
                let end = if replicas.is_empty() { COMMIT } else { COMMIT_AND_TELL };
                trip::make(&mut connection, &bind::read(&tenant.bind), end, sql, params).await
            }
        };
        let (answer, told) = result.map_err(|broken| broken.of_tenant(tenant.id))?;
        note(replicas, &self.trace, tenant.id, &told);
        Ok(answer)
    }
}

/// Remembers what was written or seen, for the tenant and for the handle.
fn note(replicas: &Replicas, trace: &Trace, tenant: TenantId, told: &Told) {
    let Some(position) = told.position() else { return };
    trace.note(position);
    if !replicas.is_empty() {
        replicas.memory().note(tenant, position.lsn);
    }
}

/// While nobody knows whether something was written. Dropped unsettled, the tenant's next reads go to the
/// primary: whoever looks there whether it was shall see it.
struct Unsure<'a> {
    replicas: &'a Replicas,
    tenant: TenantId,
    settled: bool,
}

impl<'a> Unsure<'a> {
    fn of(replicas: &'a Replicas, tenant: TenantId) -> Self {
        Self { replicas, tenant, settled: replicas.is_empty() }
    }

    /// The server has answered, unless the connection was lost.
    fn settle(mut self, error: Option<&tokio_postgres::Error>) {
        let answered =
            |error: &tokio_postgres::Error| error.as_db_error().is_some() && !server_is_away(error);
        self.settled |= error.is_none_or(answered);
    }
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.replicas.memory().note_unknown(self.tenant);
        }
    }
}

/// See [`Installation::probe`].
pub(crate) async fn probe(
    mut connection: LaneConnection,
    tenant: &TenantEntry,
) -> Result<(), Error> {
    let made = trip::make(&mut connection, &tenant.bind, COMMIT, "SELECT", &[]).await;
    made.map(drop).map_err(|broken| broken.of_tenant(tenant.id))
}

/// A transaction as a tenant. Dropped without a commit, it is rolled back.
#[derive(Debug)]
pub struct TenantTx {
    installation: Installation,
    connection: LaneConnection,
    tenant: Arc<TenantEntry>,
    trace: Arc<Trace>,
    failed: bool,
    _slot: Slot,
}

impl TenantTx {
    /// Runs a statement and yields its rows.
    ///
    /// # Errors
    /// As [`TenantDb::query`]; [`Error::TransactionFailed`] after an earlier error.
    pub async fn query(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        self.run(sql, params).await.map(|answer| answer.rows)
    }

    /// As [`query`](Self::query), for a statement that yields one row or none.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn query_opt(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        self.run(sql, params).await?.one_or_none()
    }

    /// As [`query`](Self::query), for a statement that yields one row.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn query_one(&mut self, sql: &'static str, params: Params<'_>) -> Result<Row, Error> {
        self.run(sql, params).await?.one()
    }

    /// As [`query`](Self::query), and yields the number of rows that were changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64, Error> {
        self.run(sql, params).await.map(|answer| answer.changed)
    }

    /// Keeps the transaction's work.
    ///
    /// # Errors
    /// [`Error::TransactionFailed`] if a statement before it failed: the server would answer COMMIT
    /// with ROLLBACK, and the driver would not say so. Else what the server says of the COMMIT.
    pub async fn commit(self) -> Result<(), Error> {
        if self.failed {
            self.end(ROLLBACK).await?;
            return Err(Error::TransactionFailed);
        }
        let (installation, trace, tenant) =
            (self.installation.clone(), Arc::clone(&self.trace), self.tenant.id);
        let unsure = Unsure::of(installation.replicas(), tenant);
        let ended = self.end(COMMIT_AND_TELL).await;
        unsure.settle(ended.as_ref().err().and_then(|error| error.of_driver()));
        note(installation.replicas(), &trace, tenant, &Told(ended?));
        Ok(())
    }

    /// Undoes the transaction's work.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the server is gone; then it is undone all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        self.end(ROLLBACK).await.map(drop)
    }

    async fn run(&mut self, sql: &'static str, params: Params<'_>) -> Result<Answer, Error> {
        let sql = door::admit(sql)?;
        if self.failed {
            return Err(Error::TransactionFailed);
        }
        let mut result = self.send(sql, params).await;
        for _ in 0..REFUSALS {
            if !result.as_ref().is_err_and(Error::is_refused_bind) {
                break;
            }
            result = match self.follow().await {
                Ok(()) => self.send(sql, params).await,
                Err(error) => Err(error),
            };
        }
        self.failed = result.is_err();
        result
    }

    /// After a refused bind, begins anew where the tenant is now. Nothing of the transaction has run.
    async fn follow(&mut self) -> Result<(), Error> {
        let directory = self.installation.directory();
        self.tenant = directory.find_after_refusal(&self.tenant).await?;
        self.connection = self.installation.lanes().connection(self.tenant.lane).await?;
        Ok(())
    }

    async fn send(&mut self, sql: &str, params: Params<'_>) -> Result<Answer, Error> {
        let before = std::mem::replace(&mut self.connection.state, State::Unknown);
        let client: &Client = &self.connection;
        let result = if before == State::Open {
            trip::send(client, sql, params).await.map_err(Error::of_statement)
        } else {
            let (bound, result) =
                join(client.batch_execute(&self.tenant.bind), trip::send(client, sql, params))
                    .await;
            let bound = bound.map_err(|source| Error::of_bind(self.tenant.id, source));
            bound.and_then(|()| result.map_err(Error::of_statement))
        };
        // All has been answered, so the server is in the transaction, or in none at all where the
        // bind could not even be parsed; ROLLBACK is right in either case.
        self.connection.state = State::Open;
        result
    }

    async fn end(mut self, statement: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        if self.connection.state == State::Clean {
            return Ok(Vec::new());
        }
        self.connection.state = State::Unknown;
        let ended = self.connection.simple_query(statement).await;
        if ended.is_ok() {
            self.connection.state = State::Clean;
        }
        ended.map_err(Error::of_statement)
    }
}
