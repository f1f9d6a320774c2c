//! A tenant's database: statements that run as the tenant, in its schema, and nowhere else.
//!
//! There is no way from here to a bare connection. A single statement costs one round trip: bind,
//! statement and COMMIT leave together (pipelined), after an idea of the PostgreSQL protocol that
//! libpq calls pipeline mode.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use futures_util::future::{join, join3};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::bind::{COMMIT, ROLLBACK};
use crate::directory::TenantEntry;
use crate::door;
use crate::error::Error;
use crate::installation::Installation;
use crate::lanes::{LaneConnection, State};
use crate::models::tenants::Status;
use crate::slots::Slot;

/// A statement's parameters, each with its type: the server is never asked for types, so that no
/// statement needs a name.
pub type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

type DriverResult<T> = Result<T, tokio_postgres::Error>;

/// A handle on one tenant's database. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct TenantDb {
    installation: Installation,
    tenant: Arc<TenantEntry>,
}

impl TenantDb {
    pub(crate) fn new(installation: Installation, tenant: Arc<TenantEntry>) -> Result<Self, Error> {
        match tenant.status {
            Status::Active => Ok(Self { installation, tenant }),
            status => Err(Error::TenantNotServed { tenant: tenant.id, status }),
        }
    }

    /// The tenant.
    pub fn tenant(&self) -> &TenantEntry {
        &self.tenant
    }

    /// Runs one statement in a transaction of its own, in one round trip, and yields its rows.
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
        let (slot, connection) = self.connection(&self.tenant).await?;
        let (installation, tenant) = (self.installation.clone(), Arc::clone(&self.tenant));
        Ok(TenantTx { installation, connection, tenant, failed: false, _slot: slot })
    }

    async fn connection(&self, tenant: &TenantEntry) -> Result<(Slot, LaneConnection), Error> {
        let TenantEntry { id, lane, limits, slots, .. } = tenant;
        let slot = slots.acquire(*id, limits).await?;
        Ok((slot, self.installation.lanes().connection(*lane).await?))
    }

    async fn single(&self, sql: &'static str, params: Params<'_>) -> Result<Answer, Error> {
        let sql = door::admit(sql)?;
        match self.attempt(&self.tenant, sql, params).await {
            Err(refused) if refused.is_refused_bind() => {
                let directory = self.installation.directory();
                let tenant = directory.find_after_refusal(&self.tenant).await?;
                self.attempt(&tenant, sql, params).await
            }
            result => result,
        }
    }

    async fn attempt(
        &self,
        tenant: &TenantEntry,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Answer, Error> {
        let (_slot, connection) = self.connection(tenant).await?;
        in_one_trip(connection, tenant, sql, params).await
    }
}

/// Binds, runs the statement and commits.
async fn in_one_trip(
    mut connection: LaneConnection,
    tenant: &TenantEntry,
    sql: &str,
    params: Params<'_>,
) -> Result<Answer, Error> {
    connection.state = State::Unknown;
    let client: &Client = &connection;
    // Polled in this order, and each is sent at its first poll: that makes one trip of three.
    let (bound, result, ended) = join3(
        client.batch_execute(&tenant.bind),
        send(client, sql, params),
        client.batch_execute(COMMIT),
    )
    .await;
    // A COMMIT that fails (a deferred constraint, a lost server) skips the RESETs behind it.
    if ended.is_ok() {
        connection.state = State::Clean;
    }
    bound.map_err(|source| Error::of_bind(tenant.id, source))?;
    let answer = result.map_err(Error::of_statement)?;
    ended.map_err(Error::of_statement)?;
    Ok(answer)
}

/// See [`Installation::probe`].
pub(crate) async fn probe(connection: LaneConnection, tenant: &TenantEntry) -> Result<(), Error> {
    in_one_trip(connection, tenant, "SELECT", &[]).await.map(drop)
}

/// What a statement yielded.
struct Answer {
    rows: Vec<Row>,
    changed: u64,
}

impl Answer {
    fn one_or_none(mut self) -> Result<Option<Row>, Error> {
        match self.rows.len() {
            0 | 1 => Ok(self.rows.pop()),
            found => Err(Error::RowCount { found }),
        }
    }

    fn one(self) -> Result<Row, Error> {
        self.one_or_none()?.ok_or(Error::RowCount { found: 0 })
    }
}

/// Sent at the first poll, as an unnamed statement.
async fn send(client: &Client, sql: &str, params: Params<'_>) -> DriverResult<Answer> {
    let params = params.iter().map(|(value, kind)| (*value, kind.clone()));
    let mut stream = pin!(client.query_typed_raw(sql, params).await?);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(row);
    }
    Ok(Answer { rows, changed: stream.rows_affected().unwrap_or_default() })
}

/// A transaction as a tenant. Dropped without a commit, it is rolled back.
#[derive(Debug)]
pub struct TenantTx {
    installation: Installation,
    connection: LaneConnection,
    tenant: Arc<TenantEntry>,
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
        self.end(COMMIT).await
    }

    /// Undoes the transaction's work.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the server is gone; then it is undone all the same.
    pub async fn rollback(self) -> Result<(), Error> {
        self.end(ROLLBACK).await
    }

    async fn run(&mut self, sql: &'static str, params: Params<'_>) -> Result<Answer, Error> {
        let sql = door::admit(sql)?;
        if self.failed {
            return Err(Error::TransactionFailed);
        }
        let result = match self.send(sql, params).await {
            Err(refused) if refused.is_refused_bind() => match self.follow().await {
                Ok(()) => self.send(sql, params).await,
                Err(error) => Err(error),
            },
            result => result,
        };
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
            send(client, sql, params).await.map_err(Error::of_statement)
        } else {
            let (bound, result) =
                join(client.batch_execute(&self.tenant.bind), send(client, sql, params)).await;
            let bound = bound.map_err(|source| Error::of_bind(self.tenant.id, source));
            bound.and_then(|()| result.map_err(Error::of_statement))
        };
        // All has been answered, so the server is in the transaction, or in none at all where the
        // bind could not even be parsed; ROLLBACK is right in either case.
        self.connection.state = State::Open;
        result
    }

    async fn end(mut self, statement: &str) -> Result<(), Error> {
        if self.connection.state == State::Clean {
            return Ok(());
        }
        self.connection.state = State::Unknown;
        let ended = self.connection.batch_execute(statement).await;
        if ended.is_ok() {
            self.connection.state = State::Clean;
        }
        ended.map_err(Error::of_statement)
    }
}
