//! PgBouncer: its two files, starting it, telling it to read them again.
//!
//! Owns `pgbouncer.ini` and `userlist.txt`. Refuses an admin login: changes come through the files
//! and a signal, so that no client can pause or stop the pooler. Works with 1.18 and newer.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::warn;

use crate::error::Result;
use crate::files;
use crate::options::{PoolerSettings, pooler_entry};
use crate::running::RunningServer;
use crate::server::Server;
use crate::site::Site;

const CONFIGURATION: &str = "pgbouncer.ini";
const USERS: &str = "userlist.txt";

const START_PATIENCE: Duration = Duration::from_secs(60);

/// Open files that PgBouncer needs besides its connections.
const SPARE_FILES: u64 = 64;

/// PostgreSQL's `SSLRequest`: its length and its code. Any server answers with one letter, before
/// it knows who asks.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Writes the files, starts PgBouncer into `slot`, and waits until it answers. One that runs
/// already reads the files again.
pub(crate) async fn start(
    site: &Site,
    settings: &PoolerSettings,
    slot: &mut Option<RunningServer>,
) -> Result<()> {
    settings.validate()?;
    write_files(site, settings)?;
    drop(slot.take_if(RunningServer::has_ended));
    let reads_them_again = slot.is_some();
    let running = match slot {
        Some(running) => running,
        None => {
            let arguments = [site.layout.server(Server::Pooler).join(CONFIGURATION).into()];
            let (program, port) = (&site.programs.pooler, site.port(Server::Pooler));
            let spawned =
                RunningServer::spawn(&site.layout, Server::Pooler, program, arguments, port)?;
            slot.insert(spawned)
        }
    };
    let ready = running.wait_until_ready(START_PATIENCE, async || Ok(answers(site).await)).await;
    if let Err(error) = ready {
        // Why it did not start matters more than how it was stopped.
        let _ = running.stop().await;
        *slot = None;
        return Err(error);
    }
    if reads_them_again {
        // Not before it answered: a program that does not handle the signal yet dies of it.
        running.signal(Signal::HUP)?;
    }
    running.announce(site.port(Server::Pooler));
    Ok(())
}

/// Writes the files and tells PgBouncer to read them. Connections stay open.
pub(crate) fn reload(
    site: &Site,
    settings: &PoolerSettings,
    running: &RunningServer,
) -> Result<()> {
    settings.validate()?;
    write_files(site, settings)?;
    running.signal(Signal::HUP)
}

async fn answers(site: &Site) -> bool {
    let ask = async {
        let address = (Ipv4Addr::LOCALHOST, site.port(Server::Pooler));
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_u8().await
    };
    ask.await.is_ok()
}

fn write_files(site: &Site, settings: &PoolerSettings) -> Result<()> {
    let directory = site.layout.server(Server::Pooler);
    let user = Some(site.layout.user());
    let databases = 1 + u64::from(site.options.replicas);
    let clients = affordable_clients(settings, databases, raise_open_files_limit());
    if clients < settings.max_client_connections {
        warn!(
            wanted = settings.max_client_connections,
            clients,
            "the limit on open files allows PgBouncer fewer clients; raise it with `ulimit -n`"
        );
    }
    files::write_private(&directory.join(USERS), &user_list(settings), user)?;
    files::write_private(
        &directory.join(CONFIGURATION),
        &configuration(site, settings, clients),
        user,
    )
}

/// Raises this process's limit, which PgBouncer inherits, as far as the system lets anybody: login
/// shells often start with 1,024 where half a million are allowed. Returns the limit in force.
fn raise_open_files_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// PgBouncer itself only warns when it is promised more connections than it may open files, and
/// then fails under load.
fn affordable_clients(settings: &PoolerSettings, databases: u64, open_files: Option<u64>) -> u32 {
    let Some(open_files) = open_files else {
        return settings.max_client_connections;
    };
    // Each database has its own connections to its server.
    let servers = databases * u64::from(settings.max_server_connections);
    let left = open_files.saturating_sub(SPARE_FILES + servers).max(1);
    settings.max_client_connections.min(u32::try_from(left).unwrap_or(u32::MAX))
}

fn configuration(site: &Site, settings: &PoolerSettings, clients: u32) -> String {
    let database = &site.options.database;
    let mut text = String::from("; Written by tenantry at each start; changes here are lost.\n");
    text.push_str("[databases]\n");
    // One server each, never a list: whoever asks a replica how far it is must then read there.
    for server in [Server::Primary].into_iter().chain(Server::replicas(site.options.replicas)) {
        let (name, port) = (pooler_entry(database, server), site.port(server));
        // The name needs no quotes, and 1.18 takes none. Writing to a String can't fail.
        let _ = writeln!(text, "{name} = host=127.0.0.1 port={port} dbname='{database}'");
    }
    if settings.any_database {
        let _ = writeln!(text, "* = host=127.0.0.1 port={}", site.port(Server::Primary));
    }
    let _ = write!(
        text,
        "\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {USERS}\n\
         stats_users = {stats_users}\n\
         pool_mode = transaction\n\
         default_pool_size = {pool_size}\n\
         max_db_connections = {max_server_connections}\n\
         max_client_conn = {clients}\n\
         query_wait_timeout = {query_wait_timeout_s}\n\
         server_connect_timeout = 5\n\
         server_login_retry = 1\n\
         server_lifetime = 3600\n\
         ignore_startup_parameters = extra_float_digits\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         log_stats = 0\n",
        port = site.port(Server::Pooler),
        stats_users = settings.stats_users.join(", "),
        pool_size = settings.pool_size,
        max_server_connections = settings.max_server_connections,
        query_wait_timeout_s = settings.query_wait_timeout_s,
    );
    text
}

/// Plain passwords, because the pooler logs in with them on the other side.
fn user_list(settings: &PoolerSettings) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut text = String::new();
    for login in &settings.logins {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{} {}", quoted(&login.name), quoted(&login.password));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::PoolerLogin;

    #[test]
    fn odd_passwords_survive_the_quoting() {
        let login = PoolerLogin { name: "lane".to_owned(), password: r#"a"b\c"#.to_owned() };
        let settings = PoolerSettings { logins: vec![login], ..PoolerSettings::default() };
        assert_eq!(user_list(&settings), "\"lane\" \"a\"\"b\\c\"\n");
    }

    #[test]
    fn clients_are_promised_only_what_the_limit_allows() {
        let settings = PoolerSettings::default();
        assert_eq!(affordable_clients(&settings, 2, Some(20_000)), 2000);
        assert_eq!(affordable_clients(&settings, 2, Some(256)), 96);
        assert_eq!(affordable_clients(&settings, 2, Some(10)), 1);
        assert_eq!(affordable_clients(&settings, 2, None), 2000);
    }
}
