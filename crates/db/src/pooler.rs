//! PgBouncer from the outside: who may log in, and how its pools are doing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio_postgres::SimpleQueryMessage;

use crate::config::Config;
use crate::direct::connect_once;
use crate::error::{Doing, Error};
use crate::ids::LaneId;
use crate::secret::Secret;

/// Everybody who logs in to PgBouncer: all lanes, so that `lanes.count` can change while everything
/// runs, and the login for its console.
///
/// # Errors
/// [`Error::Config`] if `lanes.secret` is not set.
pub fn logins(config: &Config) -> Result<Vec<(String, Secret)>, Error> {
    let secret = config.lanes.secret()?;
    let names = LaneId::all().map(|lane| config.roles.lane(lane));
    Ok(names
        .chain([config.roles.stats()])
        .map(|name| (name.clone(), secret.password(&name)))
        .collect())
}

/// The same as PgBouncer's `auth_file`. Its passwords are plain text: SCRAM towards the server
/// needs them.
///
/// # Errors
/// [`Error::Config`] if `lanes.secret` is not set.
pub fn userlist(config: &Config) -> Result<String, Error> {
    let lines = logins(config)?;
    Ok(lines
        .iter()
        .map(|(name, password)| format!("\"{name}\" \"{}\"\n", password.expose()))
        .collect())
}

/// A lane's pool on the primary, from `SHOW POOLS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LanePool {
    /// Clients that are being served.
    pub clients_active: u32,
    /// Clients that wait for a server connection.
    pub clients_waiting: u32,
    /// Server connections in use.
    pub servers_active: u32,
    /// Server connections ready for use.
    pub servers_idle: u32,
    /// How long the first waiting client has waited.
    pub max_wait_ms: u64,
}

/// The pools of all lanes that have one: PgBouncer makes a pool at a login's first use.
///
/// # Errors
/// [`Error::Unavailable`] if PgBouncer does not answer or refuses the console login.
pub async fn lane_pools(config: &Config) -> Result<BTreeMap<LaneId, LanePool>, Error> {
    let rows = show(config, "SHOW POOLS").await?;
    let database = config.database.pooled_name()?;
    let lanes: BTreeMap<String, LaneId> =
        LaneId::all().map(|lane| (config.roles.lane(lane), lane)).collect();
    let mut pools = BTreeMap::new();
    for row in rows {
        let text = |column: &str| row.get(column).map_or("", String::as_str);
        let number = |column: &str| text(column).parse::<u64>().unwrap_or(0);
        let count = |column: &str| u32::try_from(number(column)).unwrap_or(u32::MAX);
        if let (true, Some(lane)) = (text("database") == database, lanes.get(text("user"))) {
            let pool = LanePool {
                clients_active: count("cl_active"),
                clients_waiting: count("cl_waiting"),
                servers_active: count("sv_active"),
                servers_idle: count("sv_idle") + count("sv_used") + count("sv_tested"),
                max_wait_ms: number("maxwait") * 1000 + number("maxwait_us") / 1000,
            };
            pools.insert(*lane, pool);
        }
    }
    Ok(pools)
}

/// PgBouncer's settings, from `SHOW CONFIG`.
pub(crate) async fn settings(config: &Config) -> Result<BTreeMap<String, String>, Error> {
    let rows = show(config, "SHOW CONFIG").await?;
    Ok(rows
        .into_iter()
        .filter_map(|mut row| Some((row.remove("key")?, row.remove("value").unwrap_or_default())))
        .collect())
}

/// Asks PgBouncer's console, which speaks the simple protocol only and answers in text.
async fn show(
    config: &Config,
    command: &'static str,
) -> Result<Vec<BTreeMap<String, String>>, Error> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let login = config.roles.stats();
    let mut console = config.database.pooled(&login, &config.lanes.secret()?.password(&login))?;
    console.dbname("pgbouncer");
    let client = connect_once(&console, config.database.connect_timeout.min(TIMEOUT)).await?;
    let messages =
        client.simple_query(command).await.doing(format!("ask PgBouncer to `{command}`"))?;
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let named = row.columns().iter().enumerate();
            rows.push(
                named
                    .map(|(i, c)| (c.name().to_owned(), row.get(i).unwrap_or_default().to_owned()))
                    .collect(),
            );
        }
    }
    Ok(rows)
}
