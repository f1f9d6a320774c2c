//! `tenant psql`: a login of its own for one shell, which has one tenant's rights and nothing to go back to.
//!
//! A lane's login could take the role of every tenant of its lane; this one is a member of a single role,
//! good for one connection, and its password is good for a minute. Whoever shuts the tenant out drops its
//! shells and ends their sessions. What a killed program leaves is swept.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::GenericClient;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::background;
use crate::config::Config;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::installation::Installation;
use crate::lifecycle::{ErasureError, limit_waiting};
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::{self, Status};
use crate::roles::RolePrefix;
use crate::{Secret, scram};

/// How long a shell's password opens a connection.
const PASSWORD_SECONDS: i32 = 60;

/// A login for one shell.
#[derive(Debug)]
pub struct Shell {
    id: Uuid,
    /// The login's name.
    pub login: String,
    /// Its password.
    pub password: Secret,
    /// The server: a host, or the directory of its socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The installation's database.
    pub database: String,
    /// What the session begins with, in libpq's notation (`PGOPTIONS`): as the tenant's role, so that it is
    /// to the shell as it is to the application. `RESET ROLE` leads back there.
    pub options: String,
}

/// Makes a login that is this tenant and nobody else, until [`close_shell`].
///
/// # Errors
/// [`Error::TenantNotFound`]; [`Error::TenantNotServed`] for one that is not active;
/// [`ErasureError::OldControlFunctions`] until `tenantry init` has run again.
pub async fn open_shell(
    admin: &AdminDb,
    config: &Config,
    tenant: TenantId,
    actor: &Actor,
) -> Result<Shell, Error> {
    let id = Uuid::new_v4();
    // 244 random bits.
    let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let password = Secret::new(password);
    let mut db = admin.connection().await?;
    let tx = begin(&mut db).await?;
    limit_waiting(&tx, admin).await?;
    // Held until the login is there: whoever shuts the tenant out comes before, or finds it.
    let row = tenants::lock_taken(&tx, tenant).await?;
    if row.status != Status::Active {
        return Err(Error::TenantNotServed { tenant, status: row.status });
    }
    let timeout_ms = config.tier(&row.tier).statement_timeout.as_millis();
    let control = admin.roles.control_schema();
    let statement = format!(
        "SELECT {control}.open_tenant_shell('{tenant}', '{id}', $1, {timeout_ms}, {PASSWORD_SECONDS})"
    );
    let verifier = scram::verifier(&password);
    tx.query_typed(&statement, &[(&verifier, Type::TEXT)]).await.map_err(of_control)?;
    let login = login(&admin.roles, id);
    audit::record(&tx, actor, Action::ShellOpened, tenant, &json!({ "login": login })).await?;
    tx.commit().await.doing("commit the shell's login")?;
    let server = config.database.direct()?;
    let host = match server.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    Ok(Shell {
        id,
        login,
        password,
        host,
        port: server.get_ports().first().copied().unwrap_or(5432),
        database: config.database.name()?.to_owned(),
        options: format!("-c role={}", tenant.schema()),
    })
}

/// Drops the login of a shell that has ended. One that somebody else dropped is no error.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`]: then it is swept later.
pub async fn close_shell(admin: &AdminDb, shell: &Shell) -> Result<(), Error> {
    let db = admin.connection().await?;
    drop_login(&**db, &admin.roles, shell.id).await
}

/// Drops the logins of shells that ended without saying so: their password opens nothing any more, and
/// nobody is connected as them. Yields how many.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn sweep_shells(admin: &AdminDb) -> Result<usize, Error> {
    let db = admin.connection().await?;
    let left = leftover_shells(&**db, &admin.roles).await?;
    for login in &left {
        if let Some(id) = id_of(&admin.roles, login) {
            drop_login(&**db, &admin.roles, id).await?;
        }
    }
    Ok(left.len())
}

/// [`sweep_shells`] again and again, until `stop` is done.
pub async fn keep_sweeping_shells(installation: Installation, stop: impl Future<Output = ()>) {
    const EVERY: Duration = Duration::from_secs(60);
    background::repeat("drop the logins of shells that have ended", EVERY, stop, || async {
        let swept = sweep_shells(installation.admin()).await?;
        if swept > 0 {
            tracing::info!(swept, "logins of shells that had ended were dropped");
        }
        Ok(())
    })
    .await;
}

/// The logins that [`sweep_shells`] would drop.
pub(crate) async fn leftover_shells(
    db: &impl GenericClient,
    roles: &RolePrefix,
) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            // A minute more: whoever was let in at the last moment may not be listed yet.
            // Roles belong to the server: another database's shells are that one's to sweep, nobody's
            // are anybody's.
            "SELECT r.rolname::text FROM pg_roles r
             LEFT JOIN pg_auth_members am ON am.member = r.oid
             LEFT JOIN pg_roles g ON g.oid = am.roleid
             WHERE starts_with(r.rolname, $1) AND r.rolcanlogin AND r.rolvaliduntil < now() - interval '1 minute'
               AND (g.oid IS NULL OR EXISTS (
                        SELECT FROM public.tenants t WHERE g.rolname = 'tenant_' || replace(t.id::text, '-', '')))
               AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid)
             ORDER BY 1",
            &[(&shell_prefix(roles), Type::TEXT)],
        )
        .await
        .doing("look for shells that have ended")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Drops all shells of a tenant, in the transaction that shuts it out. Yields the numbers of their roles,
/// whose sessions are still there.
pub(crate) async fn close_shells_of(
    tx: &impl GenericClient,
    roles: &RolePrefix,
    tenant: TenantId,
) -> Result<Vec<u32>, Error> {
    let rows = tx
        .query_typed(
            "SELECT m.oid, m.rolname::text FROM pg_auth_members am
             JOIN pg_roles g ON g.oid = am.roleid
             JOIN pg_roles m ON m.oid = am.member
             WHERE g.rolname = $1 AND starts_with(m.rolname, $2)",
            &[(&tenant.schema().to_string(), Type::TEXT), (&shell_prefix(roles), Type::TEXT)],
        )
        .await
        .doing("look for the tenant's shells")?;
    for row in &rows {
        if let Some(id) = id_of(roles, row.get(1)) {
            drop_login(tx, roles, id).await?;
        }
    }
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Ends the sessions of shells that were dropped, which would go on as the tenant otherwise.
pub(crate) async fn end_sessions(db: &impl GenericClient, shells: &[u32]) -> Result<(), Error> {
    if shells.is_empty() {
        return Ok(());
    }
    // Without it, a transaction sees the sessions of its first look.
    db.batch_execute("SELECT pg_stat_clear_snapshot()").await.doing("look for sessions anew")?;
    db.query_typed(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usesysid = ANY ($1)",
        &[(&shells, Type::OID_ARRAY)],
    )
    .await
    .doing("end the tenant's shells")?;
    db.batch_execute("SELECT pg_stat_clear_snapshot()").await.doing("look for sessions anew")?;
    let left = db
        .query_typed(
            "SELECT pid FROM pg_stat_activity WHERE usesysid = ANY ($1)",
            &[(&shells, Type::OID_ARRAY)],
        )
        .await
        .doing("look for sessions anew")?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::Busy("a shell of the tenant does not end, so the tenant".to_owned()))
}

/// What the names of all shells' logins begin with.
pub(crate) fn shell_prefix(roles: &RolePrefix) -> String {
    format!("{roles}_shell_")
}

fn login(roles: &RolePrefix, id: Uuid) -> String {
    format!("{}{}", shell_prefix(roles), id.simple())
}

fn id_of(roles: &RolePrefix, login: &str) -> Option<Uuid> {
    Uuid::try_parse(login.strip_prefix(&shell_prefix(roles))?).ok()
}

async fn drop_login(db: &impl GenericClient, roles: &RolePrefix, id: Uuid) -> Result<(), Error> {
    let statement = format!("SELECT {}.close_tenant_shell('{id}')", roles.control_schema());
    db.batch_execute(&statement).await.map_err(of_control)
}

fn of_control(source: tokio_postgres::Error) -> Error {
    match source.code() {
        Some(&SqlState::UNDEFINED_FUNCTION) => ErasureError::OldControlFunctions.into(),
        _ => Error::Database { doing: "make or drop a shell's login".to_owned(), source },
    }
}
