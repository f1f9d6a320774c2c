//! The lanes' pools of connections to PgBouncer: the data plane's only way to the server.
//!
//! What is taken from here is never handed out bare: [`LaneConnection`] stays inside the crate, and
//! goes back to its pool only in a state that is known to be clean.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio_postgres::{Client, NoTls};

use crate::bind::ROLLBACK;
use crate::config::{Config, Database};
use crate::direct::server_name;
use crate::error::Error;
use crate::ids::LaneId;
use crate::secret::Secret;

/// One pool for each lane, also for those beyond `lanes.count`: tenants may still be there, and a pool
/// that nobody uses opens nothing.
#[derive(Debug, Clone)]
pub(crate) struct LanePools {
    pools: Arc<[Pool]>,
    server: Arc<str>,
}

impl LanePools {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let Database { acquire_timeout, connect_timeout, .. } = config.database;
        let patience = (acquire_timeout, connect_timeout);
        Self::of(config, patience, |login, password| config.database.pooled(login, password))
    }

    /// Those of the replica with this index. Nobody waits long there: the primary answers as well.
    pub(crate) fn of_replica(config: &Config, index: usize) -> Result<Self, Error> {
        let patience = config.replicas.poll_timeout;
        Self::of(config, (patience, patience), |login, password| {
            let mut entries = config.database.replicas_pooled(login, password);
            Ok(entries.swap_remove(index))
        })
    }

    fn of(
        config: &Config,
        patience: (Duration, Duration),
        entry: impl Fn(&str, &Secret) -> Result<tokio_postgres::Config, Error>,
    ) -> Result<Self, Error> {
        let secret = config.lanes.secret()?;
        let mut server = String::new();
        let mut pools = Vec::new();
        for lane in LaneId::all() {
            let login = config.roles.lane(lane);
            let mut entry = entry(&login, &secret.password(&login))?;
            server = server_name(&entry);
            // No start-up parameter of ours: RESET ALL would undo it at every transaction's end, and
            // PgBouncer would set it again before the next.
            entry.connect_timeout(patience.1);
            pools.push(pool(entry, config, patience));
        }
        Ok(Self { pools: pools.into(), server: server.into() })
    }

    /// Takes a connection of the lane, waiting for one as long as the configuration allows.
    pub(crate) async fn connection(&self, lane: LaneId) -> Result<LaneConnection, Error> {
        match self.pools[usize::from(lane.number())].get().await {
            Ok(object) => Ok(LaneConnection { object: Some(object), state: State::Clean }),
            Err(e) => Err(self.unavailable(e)),
        }
    }

    fn unavailable(&self, error: PoolError) -> Error {
        Error::Unavailable { server: self.server.to_string(), source: Box::new(error) }
    }
}

fn pool(
    entry: tokio_postgres::Config,
    config: &Config,
    (to_wait, to_connect): (Duration, Duration),
) -> Pool {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(entry, NoTls, recycling))
        .max_size(config.lanes.pool_size.into())
        .wait_timeout(Some(to_wait))
        .create_timeout(Some(to_connect))
        .runtime(Runtime::Tokio1)
        .build()
        .expect("a pool with a runtime can be built")
}

/// What is known of a connection's state on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No transaction, and nothing left behind.
    Clean,
    /// A transaction is open, and no statement is under way.
    Open,
    /// Unknown: a statement is under way, or its end was not seen.
    Unknown,
}

/// A lane's connection while one transaction has it.
#[derive(Debug)]
pub(crate) struct LaneConnection {
    object: Option<Object>,
    pub(crate) state: State,
}

impl Deref for LaneConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.object.as_ref().expect("taken only on drop")
    }
}

impl Drop for LaneConnection {
    /// Clean: back to the pool. Open: rolled back first, by a task of its own. Unknown: closed, and
    /// PgBouncer then closes the server's side, which ends whatever still ran there.
    fn drop(&mut self) {
        let Some(object) = self.object.take() else { return };
        match (self.state, tokio::runtime::Handle::try_current()) {
            (State::Clean, _) => drop(object),
            (State::Open, Ok(runtime)) => {
                runtime.spawn(async move {
                    if object.batch_execute(ROLLBACK).await.is_err() {
                        drop(Object::take(object));
                    }
                });
            }
            (State::Open | State::Unknown, _) => drop(Object::take(object)),
        }
    }
}
