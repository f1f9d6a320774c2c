//! A tenant's database: statements that run as the tenant, in its schema, and nowhere else.
//!
//! There is no way from here to a bare connection. A single statement costs one round trip: bind,
//! statement and COMMIT leave together (pipelined), after an idea of the PostgreSQL protocol that
//! libpq calls pipeline mode.

use std::sync::Arc;

use futures_util::future::{join, join3};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::bind::{COMMIT, ROLLBACK};
use crate::directory::TenantEntry;
use crate::door;
use crate::error::Error;
use crate::lanes::{LaneConnection, LanePools, State};
use crate::models::tenants::Status;
use crate::slots::Slot;

/// A statement's parameters, each with its type: the server is never asked for types, so that no
/// statement needs a name.
pub type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

type DriverResult<T> = Result<T, tokio_postgres::Error>;

/// A handle on one tenant's database. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct TenantDb {
    lanes: LanePools,
    tenant: Arc<TenantEntry>,
}

impl TenantDb {
    pub(crate) fn new(lanes: LanePools, tenant: Arc<TenantEntry>) -> Result<Self, Error> {
        match tenant.status {
            Status::Active => Ok(Self { lanes, tenant }),
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
        let sql = door::admit(sql)?;
        self.single(async |client| client.query_typed(sql, params).await).await
    }

    /// As [`query`](Self::query), for a statement that yields one row or none.
    ///
    /// # Errors
    /// As [`query`](Self::query); more than one row is [`Error::Database`].
    pub async fn query_opt(
        &self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        let sql = door::admit(sql)?;
        self.single(async |client| client.query_typed_opt(sql, params).await).await
    }

    /// As [`query`](Self::query), for a statement that yields one row.
    ///
    /// # Errors
    /// As [`query`](Self::query); any other number of rows is [`Error::Database`].
    pub async fn query_one(&self, sql: &'static str, params: Params<'_>) -> Result<Row, Error> {
        let sql = door::admit(sql)?;
        self.single(async |client| client.query_typed_one(sql, params).await).await
    }

    /// As [`query`](Self::query), and yields the number of rows that were changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&self, sql: &'static str, params: Params<'_>) -> Result<u64, Error> {
        let sql = door::admit(sql)?;
        self.single(async |client| client.execute_typed(sql, params).await).await
    }

    /// Begins a transaction of several statements. The bind goes out with the first of them.
    ///
    /// # Errors
    /// [`Error::TenantBusy`] or [`Error::Unavailable`].
    pub async fn begin(&self) -> Result<TenantTx, Error> {
        let (slot, connection) = self.connection().await?;
        let tenant = Arc::clone(&self.tenant);
        Ok(TenantTx { connection, tenant, failed: false, _slot: slot })
    }

    async fn connection(&self) -> Result<(Slot, LaneConnection), Error> {
        let TenantEntry { id, lane, limits, slots, .. } = &*self.tenant;
        let slot = slots.acquire(*id, limits).await?;
        Ok((slot, self.lanes.connection(*lane).await?))
    }

    async fn single<T>(
        &self,
        statement: impl AsyncFnOnce(&Client) -> DriverResult<T>,
    ) -> Result<T, Error> {
        let (_slot, mut connection) = self.connection().await?;
        connection.state = State::Unknown;
        let client: &Client = &connection;
        // Polled in this order, and each is sent at its first poll: that makes one trip of three.
        let (bound, result, ended) = join3(
            client.batch_execute(&self.tenant.bind),
            statement(client),
            client.batch_execute(COMMIT),
        )
        .await;
        // A COMMIT that fails (a deferred constraint, a lost server) skips the RESETs behind it.
        if ended.is_ok() {
            connection.state = State::Clean;
        }
        bound.map_err(|source| Error::of_bind(self.tenant.id, source))?;
        let value = result.map_err(Error::of_statement)?;
        ended.map_err(Error::of_statement)?;
        Ok(value)
    }
}

/// A transaction as a tenant. Dropped without a commit, it is rolled back.
#[derive(Debug)]
pub struct TenantTx {
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
        let sql = door::admit(sql)?;
        self.run(async |client| client.query_typed(sql, params).await).await
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
        let sql = door::admit(sql)?;
        self.run(async |client| client.query_typed_opt(sql, params).await).await
    }

    /// As [`query`](Self::query), for a statement that yields one row.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn query_one(&mut self, sql: &'static str, params: Params<'_>) -> Result<Row, Error> {
        let sql = door::admit(sql)?;
        self.run(async |client| client.query_typed_one(sql, params).await).await
    }

    /// As [`query`](Self::query), and yields the number of rows that were changed.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn execute(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64, Error> {
        let sql = door::admit(sql)?;
        self.run(async |client| client.execute_typed(sql, params).await).await
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

    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&Client) -> DriverResult<T>,
    ) -> Result<T, Error> {
        if self.failed {
            return Err(Error::TransactionFailed);
        }
        let before = std::mem::replace(&mut self.connection.state, State::Unknown);
        let result = self.send(before, statement).await;
        // Both futures have answered, so the server is in the transaction, or in none at all where
        // the bind could not even be parsed; ROLLBACK is right in either case.
        self.connection.state = State::Open;
        self.failed = result.is_err();
        result
    }

    async fn send<T>(
        &self,
        before: State,
        statement: impl AsyncFnOnce(&Client) -> DriverResult<T>,
    ) -> Result<T, Error> {
        let client: &Client = &self.connection;
        if before == State::Open {
            return statement(client).await.map_err(Error::of_statement);
        }
        let (bound, result) =
            join(client.batch_execute(&self.tenant.bind), statement(client)).await;
        bound.map_err(|source| Error::of_bind(self.tenant.id, source))?;
        result.map_err(Error::of_statement)
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
