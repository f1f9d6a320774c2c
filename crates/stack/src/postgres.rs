//! What the primary and the replica have in common: settings, access rules, starting.
//!
//! Owns `tenantry.conf` and `pg_hba.conf` in both clusters, and writes them anew at each start.
//! Refuses connections from other machines, and any without a password.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::files;
use crate::layout::Layout;
use crate::log::RunLog;
use crate::options::Durability;
use crate::postmaster_file;
use crate::running::RunningServer;
use crate::server::Server;
use crate::site::{REPLICATOR, Site};

/// Included by `postgresql.conf`, which stays as `initdb` wrote it but for that line.
pub(crate) const SETTINGS_FILE: &str = "tenantry.conf";
const ACCESS_FILE: &str = "pg_hba.conf";

/// The children of a killed postmaster notice its death a moment later. Until then a new one
/// refuses to start, with these words.
const PREDECESSOR_REMAINS: &str = "pre-existing shared memory block";
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(60);
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(200);

/// Which of the two is started, and how.
pub(crate) struct Plan<'a> {
    pub(crate) server: Server,
    /// Settings that the other one does not have.
    pub(crate) own_settings: &'a [(&'static str, String)],
    pub(crate) patience: Duration,
}

/// Starts the server into `slot` and waits until `is_ready` says so of its log and of itself. If a
/// start that was cancelled has left it there, goes on from that.
pub(crate) async fn start(
    site: &Site,
    plan: Plan<'_>,
    slot: &mut Option<RunningServer>,
    mut is_ready: impl AsyncFnMut(&RunLog) -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + PREDECESSOR_PATIENCE;
    write_configuration(site, &plan)?;
    loop {
        drop(slot.take_if(RunningServer::has_ended));
        let running = match slot {
            Some(running) => running,
            None => slot.insert(spawn(site, plan.server)?),
        };
        let log = running.log().clone();
        let ready = running.wait_until_ready(plan.patience, async || is_ready(&log).await);
        let Err(error) = ready.await else {
            running.announce(site.port(plan.server));
            return Ok(());
        };
        let remains = matches!(&error, Error::StartFailed { log_tail, .. }
            if log_tail.contains(PREDECESSOR_REMAINS));
        if !remains || Instant::now() >= deadline {
            // The reason why it did not start matters more than how it was stopped.
            let _ = running.stop().await;
            *slot = None;
            return Err(error);
        }
        sleep(PREDECESSOR_PAUSE).await;
    }
}

fn spawn(site: &Site, server: Server) -> Result<RunningServer> {
    let directory = site.layout.server(server);
    postmaster_file::remove_stale(&directory)?;
    remove_stale_socket(site, server)?;
    let program = site.programs.postgres("postgres");
    let arguments = [OsString::from("-D"), directory.into()];
    RunningServer::spawn(&site.layout, server, &program, arguments, site.port(server))
}

/// Removes a dead server's socket and its lock file. PostgreSQL refuses to start over one whose
/// number belongs to a living process, or to a killed server that its parent has not reaped yet.
/// The directory is ours alone, and no server of ours uses this port: that was checked before.
fn remove_stale_socket(site: &Site, server: Server) -> Result<()> {
    let socket = format!(".s.PGSQL.{}", site.port(server));
    let directory = site.layout.sockets();
    files::remove_file(&directory.join(format!("{socket}.lock")))?;
    files::remove_file(&directory.join(socket))
}

/// Whether the server takes our login and a query.
pub(crate) async fn answers(site: &Site, server: Server) -> Result<bool> {
    if !postmaster_file::says_ready(&site.layout.server(server))? {
        return Ok(false);
    }
    match site.connect(server).await {
        Ok(client) => Ok(client.simple_query("SELECT 1").await.is_ok()),
        // An answer that no waiting will change. All others are those of a server on its way.
        Err(error) if error.code() == Some(&SqlState::INVALID_PASSWORD) => {
            Err(Error::postgres(server, "log in as the superuser")(error))
        }
        Err(_) => Ok(false),
    }
}

fn write_configuration(site: &Site, plan: &Plan<'_>) -> Result<()> {
    let directory = site.layout.server(plan.server);
    let user = Some(site.layout.user());
    files::write_private(&directory.join(SETTINGS_FILE), &settings(site, plan), user)?;
    files::write_private(&directory.join(ACCESS_FILE), &access_rules(), user)
}

fn settings(site: &Site, plan: &Plan<'_>) -> String {
    let (options, server) = (&site.options, plan.server);
    let mut all: Vec<(&str, String)> = vec![
        ("listen_addresses", "127.0.0.1".into()),
        ("port", site.port(server).to_string()),
        ("unix_socket_directories", directory_list(&site.layout.sockets())),
        ("unix_socket_permissions", "0700".into()),
        ("password_encryption", "scram-sha-256".into()),
        // The replica can't have fewer than the primary, so both have the same.
        ("max_connections", options.max_connections.to_string()),
        ("cluster_name", format!("tenantry {server}")),
        ("wal_level", "replica".into()),
        ("max_wal_senders", "10".into()),
        ("max_replication_slots", "10".into()),
        ("wal_keep_size", "64MB".into()),
        // A replica that stays away for long must not fill the primary's disk.
        ("max_slot_wal_keep_size", "1GB".into()),
        ("hot_standby", "on".into()),
        // After a restart of the primary, the replica is back in half a second, not in five.
        ("wal_retrieve_retry_interval", "500ms".into()),
        ("log_destination", "stderr".into()),
        ("logging_collector", "off".into()),
        ("log_line_prefix", "%m [%p] %q%u@%d ".into()),
        ("lc_messages", "C".into()),
        ("timezone", "UTC".into()),
        ("log_timezone", "UTC".into()),
    ];
    if options.durability == Durability::Volatile {
        let off = ["fsync", "full_page_writes", "synchronous_commit"];
        all.extend(off.map(|name| (name, "off".to_owned())));
    }
    all.extend(plan.own_settings.iter().cloned());
    all.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));

    let mut text = String::from("# Written by tenantry at each start; changes here are lost.\n");
    for (name, value) in &all {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name} = {}", quoted(value));
    }
    text
}

/// Passwords for everybody, from this machine only; replication for one role only, since `all`
/// does not cover it.
fn access_rules() -> String {
    format!(
        "# Written by tenantry at each start; changes here are lost.\n\
         local  all          all                        scram-sha-256\n\
         host   all          all           127.0.0.1/32 scram-sha-256\n\
         local  replication  {REPLICATOR}                 scram-sha-256\n\
         host   replication  {REPLICATOR}    127.0.0.1/32 scram-sha-256\n"
    )
}

/// A value as PostgreSQL's configuration files want it.
pub(crate) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

/// This setting is a list; without the quotes a comma in the path would split it.
fn directory_list(directory: &Path) -> String {
    format!("\"{}\"", directory.display().to_string().replace('"', "\"\""))
}

/// A cluster's system identifier, which `initdb` draws once and every copy keeps: the first 8
/// bytes of its control file, in all versions. Only ever compared.
pub(crate) fn system_identifier(layout: &Layout, server: Server) -> Result<Vec<u8>> {
    const IDENTIFIER_BYTES: usize = 8;
    let path = layout.server(server).join("global/pg_control");
    let mut bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    bytes.truncate(IDENTIFIER_BYTES);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_quoting() {
        assert_eq!(quoted("plain"), "'plain'");
        assert_eq!(quoted(r"it's C:\x"), r"'it''s C:\\x'");
        assert_eq!(quoted("two\nlines"), r"'two\nlines'");
        assert_eq!(quoted(&directory_list(Path::new("/a, 'b'"))), "'\"/a, ''b''\"'");
    }
}
