//! One round trip: what opens a transaction, a statement, and what ends it, sent together.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use futures_util::future::join3;
use tokio_postgres::types::{PgLsn, ToSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use crate::consistency::Position;
use crate::error::Error;
use crate::ids::TenantId;
use crate::lanes::{LaneConnection, State};

/// A statement's parameters, each with its type: the server is never asked for types, so that no
/// statement needs a name.
pub type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

pub(crate) type DriverResult<T> = Result<T, tokio_postgres::Error>;

/// What a statement yielded.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    pub(crate) changed: u64,
}

impl Answer {
    pub(crate) fn one_or_none(mut self) -> Result<Option<Row>, Error> {
        match self.rows.len() {
            0 | 1 => Ok(self.rows.pop()),
            found => Err(Error::RowCount { found }),
        }
    }

    pub(crate) fn one(self) -> Result<Row, Error> {
        self.one_or_none()?.ok_or(Error::RowCount { found: 0 })
    }
}

/// Where a trip broke off. What comes after the first error has failed for its sake.
#[derive(Debug)]
pub(crate) enum Broken {
    Opening(tokio_postgres::Error),
    Statement(tokio_postgres::Error),
    Ending(tokio_postgres::Error),
}

impl Broken {
    pub(crate) fn source(&self) -> &tokio_postgres::Error {
        match self {
            Self::Opening(source) | Self::Statement(source) | Self::Ending(source) => source,
        }
    }

    pub(crate) fn of_tenant(self, tenant: TenantId) -> Error {
        match self {
            Self::Opening(source) => Error::of_bind(tenant, source),
            Self::Statement(source) | Self::Ending(source) => Error::of_statement(source),
        }
    }
}

/// Opens a transaction, runs the statement and ends the transaction. Yields also what the end told.
pub(crate) async fn make(
    connection: &mut LaneConnection,
    open: &str,
    end: &str,
    sql: &str,
    params: Params<'_>,
) -> Result<(Answer, Told), Broken> {
    connection.state = State::Unknown;
    let client: &Client = connection;
    // Polled in this order, and each is sent at its first poll: that makes one trip of three.
    let (opened, result, ended) =
        join3(client.batch_execute(open), send(client, sql, params), client.simple_query(end))
            .await;
    // A COMMIT that fails (a deferred constraint, a lost server) skips the RESETs behind it.
    if ended.is_ok() {
        connection.state = State::Clean;
    }
    opened.map_err(Broken::Opening)?;
    let answer = result.map_err(Broken::Statement)?;
    Ok((answer, Told(ended.map_err(Broken::Ending)?)))
}

/// Sent at the first poll, as an unnamed statement.
pub(crate) async fn send(client: &Client, sql: &str, params: Params<'_>) -> DriverResult<Answer> {
    let params = params.iter().map(|(value, kind)| (*value, kind.clone()));
    let mut stream = pin!(client.query_typed_raw(sql, params).await?);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(row);
    }
    Ok(Answer { rows, changed: stream.rows_affected().unwrap_or_default() })
}

/// What the end of a transaction told beside that it ended.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) Vec<SimpleQueryMessage>);

impl Told {
    /// Where the primary's WAL stood when the transaction had ended; none on a server in recovery.
    pub(crate) fn position(&self) -> Option<Position> {
        let timeline = u32::from_str_radix(self.text(1)?, 16).ok()?;
        Some(Position { lsn: self.lsn()?, timeline })
    }

    /// Where the WAL stood, whosever it is.
    pub(crate) fn lsn(&self) -> Option<PgLsn> {
        self.text(0)?.parse().ok()
    }

    fn text(&self, column: usize) -> Option<&str> {
        self.0.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(column),
            _ => None,
        })
    }
}
