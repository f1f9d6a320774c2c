//! `tenantry init`: the roles, the database, the control functions and the hardening.
//!
//! The only step that needs a superuser. It is idempotent, also after a half-done run: it looks at
//! what is there and changes what differs. It never changes a password that is right already, since
//! that alone makes PgBouncer's clients hang.

mod database;
mod roles;

use serde::Serialize;
use tokio_postgres::Client;

use crate::config::Config;
use crate::direct::{connect_once, server_name};
use crate::error::{Doing, Error};
use crate::{MIN_POSTGRES_MAJOR, Secret};

pub(crate) use database::{HARDENED_FUNCTIONS, open_to_everybody};

/// What `init` did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct InitReport {
    /// What was made or changed, in order.
    pub changed: Vec<String>,
    /// What the server did not let it do, as on managed services. `doctor` says what it means.
    pub skipped: Vec<String>,
}

/// Prepares a server and its database for Tenantry.
///
/// # Errors
/// [`Error::Config`] where a setting is missing; [`Error::ServerTooOld`],
/// [`Error::UnsuitableServer`]; [`Error::Database`] for what a superuser was refused.
pub async fn init(config: &Config) -> Result<InitReport, Error> {
    let superuser =
        config.init.superuser_url.as_ref().ok_or_else(|| Error::unset("init.superuser_url"))?;
    let admin_password = admin_password(config)?;
    let database = config.database.name()?.to_owned();
    if matches!(database.as_str(), "postgres" | "template0" | "template1") {
        return Err(Error::config(format!(
            "`database.direct_url` names the database `{database}`, which belongs to the server: choose one of its own"
        )));
    }
    let timeout = config.database.connect_timeout;
    let mut report = InitReport::default();

    let mut superuser = superuser.clone();
    // The owner, and so the admin, may set a search path for the database and put functions into
    // it. A superuser that found those before PostgreSQL's own would run them.
    superuser.options("-c search_path=pg_catalog,pg_temp");
    let mut maintenance = superuser.clone();
    maintenance.dbname("postgres");
    let mut server = connect_once(&maintenance, timeout).await?;
    check_server(&server, config).await?;
    roles::ensure(&mut server, config, &admin_password, &mut report).await?;
    database::ensure_exists(&server, config, &database, &mut report).await?;

    let mut inside = superuser.clone();
    inside.dbname(&database);
    let mut inside = connect_once(&inside, timeout).await?;
    database::prepare(&mut inside, config, &database, &mut report).await?;
    tracing::info!(
        server = server_name(&superuser),
        database,
        changed = report.changed.len(),
        "initialised"
    );
    Ok(report)
}

fn admin_password(config: &Config) -> Result<Secret, Error> {
    let direct = config.database.direct()?;
    let expected = config.roles.admin();
    if direct.get_user() != Some(expected.as_str()) {
        return Err(Error::config(format!(
            "`database.direct_url` must carry the login `{expected}` (`roles.prefix` and `_admin`)"
        )));
    }
    let password =
        direct.get_password().and_then(|p| std::str::from_utf8(p).ok()).filter(|p| !p.is_empty());
    password.map(Secret::new).ok_or_else(|| {
        Error::config("`database.direct_url` carries no password, and `init` gives the admin the one it finds there".to_owned())
    })
}

async fn check_server(db: &Client, config: &Config) -> Result<(), Error> {
    let row = db
        .query_typed_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                    pg_is_in_recovery(), current_user::text",
            &[],
        )
        .await
        .doing("ask the server for its version")?;
    let version: i32 = row.get(0);
    check_version(version, row.get(1))?;
    if row.get(2) {
        return Err(Error::UnsuitableServer(
            "this server is a replica: run `init` on its primary".to_owned(),
        ));
    }
    let login: String = row.get(3);
    if roles::names(config).contains(&login) {
        return Err(Error::config(format!(
            "`init.superuser_url` logs in as `{login}`, which is a role that `init` manages: use the server's superuser"
        )));
    }
    Ok(())
}

fn check_version(number: i32, shown: String) -> Result<(), Error> {
    let needed = i32::try_from(MIN_POSTGRES_MAJOR * 10_000).unwrap_or(i32::MAX);
    if number < needed { Err(Error::ServerTooOld { found: shown }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_15_are_refused() {
        let refused = check_version(140_012, "14.12 (Debian)".to_owned()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the server runs PostgreSQL 14.12 (Debian), but 15 or newer is needed"
        );
        assert!(check_version(150_000, "15.0".to_owned()).is_ok());
        assert!(check_version(180_001, "18.1".to_owned()).is_ok());
    }
}
