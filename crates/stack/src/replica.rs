//! A replica: copying the primary, following it.
//!
//! Owns the replication role, the slots (which have the replicas' names) and the copy. A replica holds
//! nothing that its primary does not, so one for which no WAL was kept is rebuilt without asking, but only
//! if it is a standby of this very cluster. Refuses, and leaves alone, any other directory: one that was
//! promoted may hold writes of its own, and one of another cluster may be its last copy.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::files;
use crate::log::RunLog;
use crate::options::Durability;
use crate::postgres::{self, Plan};
use crate::running::RunningServer;
use crate::server::{MAX_REPLICAS, Server};
use crate::site::{REPLICATOR, Site};
use crate::tool;

/// PostgreSQL starts as a standby if this file is there, and as a second primary if not.
const STANDBY_MARK: &str = "standby.signal";
const PASSWORD_FILE: &str = "replicator.pgpass";

const FOLLOW_PATIENCE: Duration = Duration::from_secs(60);

/// What the replica logs when it will never be able to follow, and what that means.
const HOPELESS: [(&str, &str); 6] = [
    ("has already been removed", "the primary no longer has the WAL that it needs"),
    ("database system identifier differs", "it is a copy of another cluster"),
    ("is not in this server's history", "the primary was restored to an earlier point"),
    ("before current recovery point", "the primary was restored to an earlier point"),
    ("is behind recovery timeline", "the primary was restored to an earlier point"),
    ("is ahead of the WAL flush position", "it is ahead of the primary"),
];

/// Copies the primary if need be, starts the replica into `slot`, and waits until it follows.
pub(crate) async fn start(
    site: &Site,
    replica: Server,
    slot: &mut Option<RunningServer>,
) -> Result<()> {
    tool::stop_leftover(&site.layout).await?;
    let unfinished = site.layout.unfinished(replica);
    files::remove_directory(&unfinished)?;
    if slot.as_mut().is_none_or(RunningServer::has_ended) {
        let primary = connect_primary(site).await?;
        ensure_role(site, &primary).await?;
        ensure_copy(site, replica, &primary, &unfinished).await?;
    }
    let plan = Plan {
        server: replica,
        own_settings: &own_settings(site, replica)?,
        patience: FOLLOW_PATIENCE,
    };
    postgres::start(site, plan, slot, async |log| follows(site, replica, log).await).await
}

/// Lets go of the WAL that is kept for replicas that the options no longer have, and yields which they were. A
/// slot that somebody uses is left alone. The others stay by name: their directories hold what was deleted on the
/// primary since, and whoever asks which replicas there are must not overlook them.
pub(crate) async fn release_unwanted(site: &Site) -> Result<Vec<Server>> {
    let primary = connect_primary(site).await?;
    let wanted = usize::from(site.options.replicas);
    let mut released = Vec::new();
    for replica in Server::replicas(MAX_REPLICAS).skip(wanted) {
        let slot = replica.name();
        let keeps = format!(
            "SELECT slot_name FROM pg_replication_slots WHERE slot_name = '{slot}' \
             AND slot_type = 'physical' AND NOT active AND wal_status IS NOT NULL"
        );
        if one_value(&primary, "look for unwanted replication slots", &keeps).await?.is_some() {
            drop_slot(&primary, slot).await?;
            create_slot(&primary, slot, false).await?;
            released.push(replica);
        }
    }
    Ok(released)
}

async fn drop_slot(primary: &Client, slot: &str) -> Result<()> {
    let drop_it = format!("SELECT pg_drop_replication_slot('{slot}')");
    one_value(primary, "drop the replication slot", &drop_it).await.map(drop)
}

/// It keeps WAL from now on, or from when a replica uses it.
async fn create_slot(primary: &Client, slot: &str, at_once: bool) -> Result<()> {
    let create = format!("SELECT pg_create_physical_replication_slot('{slot}', {at_once})");
    one_value(primary, "create the replication slot", &create).await.map(drop)
}

async fn connect_primary(site: &Site) -> Result<Client> {
    let connected = site.connect(Server::Primary).await;
    connected.map_err(Error::postgres(Server::Primary, "log in as the superuser"))
}

async fn follows(site: &Site, replica: Server, log: &RunLog) -> Result<bool> {
    let tail = log.tail();
    if let Some((_, reason)) = HOPELESS.iter().find(|(words, _)| tail.contains(words)) {
        return Err(unusable(site, replica, reason));
    }
    Ok(postgres::answers(site, replica).await? && is_streaming(site, replica).await?)
}

/// The password is set each time: if the secrets were lost, the role must learn the new one.
async fn ensure_role(site: &Site, primary: &Client) -> Result<()> {
    let existing = one_value(
        primary,
        "look for the replication role",
        &format!("SELECT 'yes' FROM pg_roles WHERE rolname = '{REPLICATOR}'"),
    )
    .await?;
    let verb = if existing.is_some() { "ALTER" } else { "CREATE" };
    // A secret has letters and digits only.
    let password = site.replicator_password.reveal();
    primary
        .batch_execute(&format!("{verb} ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD '{password}'"))
        .await
        .map_err(Error::postgres(Server::Primary, "set up the replication role"))
}

/// Sees to a usable copy of the primary and to the slot that keeps WAL for it.
async fn ensure_copy(
    site: &Site,
    replica: Server,
    primary: &Client,
    unfinished: &Path,
) -> Result<()> {
    let slot = replica.name();
    // No status: it was made, or let go of, without keeping anything.
    let slot_state = one_value(
        primary,
        "look for the replication slot",
        &format!(
            "SELECT coalesce(wal_status, 'lost') FROM pg_replication_slots WHERE slot_name = '{slot}'"
        ),
    )
    .await?;
    let slot_keeps_wal = slot_state.as_deref().is_some_and(|state| state != "lost");
    let directory = site.layout.server(replica);
    if directory.exists() {
        check_is_our_standby(site, replica, &directory)?;
        if slot_keeps_wal {
            return Ok(());
        }
        warn!("no WAL was kept for the {replica}, so it is copied anew");
        files::remove_directory(&directory)?;
    }
    if slot_state.is_some() && !slot_keeps_wal {
        drop_slot(primary, slot).await?;
    }
    if !slot_keeps_wal {
        // At once, so none can go missing between the copy and the start.
        create_slot(primary, slot, true).await?;
    }
    copy_primary(site, replica, unfinished).await?;
    files::publish_directory(unfinished, &directory)
}

fn check_is_our_standby(site: &Site, replica: Server, directory: &Path) -> Result<()> {
    if !directory.join(STANDBY_MARK).exists() {
        return Err(unusable(
            site,
            replica,
            "it has no `standby.signal`, so it may have been promoted",
        ));
    }
    let layout = &site.layout;
    let ours = postgres::system_identifier(layout, Server::Primary)?;
    if postgres::system_identifier(layout, replica)? != ours {
        return Err(unusable(site, replica, "it is a copy of another cluster"));
    }
    Ok(())
}

async fn copy_primary(site: &Site, replica: Server, unfinished: &Path) -> Result<()> {
    info!("copying the primary for the {replica}");
    files::replace_directory(unfinished, 0o700, site.layout.user())?;
    let port = site.port(Server::Primary).to_string();
    let mut arguments: Vec<OsString> =
        ["--host", "127.0.0.1", "--port", &port, "--username", REPLICATOR]
            .map(OsString::from)
            .to_vec();
    arguments.extend(
        ["--no-password", "--wal-method", "stream", "--slot", replica.name()].map(Into::into),
    );
    arguments.extend(["--checkpoint", "fast", "--pgdata"].map(Into::into));
    arguments.push(unfinished.into());
    if site.options.durability == Durability::Volatile {
        arguments.push("--no-sync".into());
    }
    let program = site.programs.postgres("pg_basebackup");
    let environment = [("PGPASSWORD", site.replicator_password.reveal())];
    tool::run(&site.layout, "pg_basebackup", &program, arguments, &environment).await?;
    // Before the directory gets its name: a copy without the mark would be a second primary.
    let user = Some(site.layout.user());
    files::write_private(&unfinished.join(STANDBY_MARK), "", user)
}

fn own_settings(site: &Site, replica: Server) -> Result<[(&'static str, String); 2]> {
    let password_file = site.layout.server(replica).join(PASSWORD_FILE);
    let line = format!("*:*:*:{REPLICATOR}:{}\n", site.replicator_password.reveal());
    files::write_private(&password_file, &line, Some(site.layout.user()))?;
    let slot = replica.name();
    let connection = format!(
        "host=127.0.0.1 port={} user={REPLICATOR} application_name={slot} passfile='{}'",
        site.port(Server::Primary),
        password_file.display().to_string().replace('\\', "\\\\").replace('\'', "\\'")
    );
    Ok([("primary_conninfo", connection), ("primary_slot_name", slot.to_owned())])
}

async fn is_streaming(site: &Site, replica: Server) -> Result<bool> {
    // The replica answered a moment ago; if it does not now, its end is seen elsewhere.
    let Ok(client) = site.connect(replica).await else {
        return Ok(false);
    };
    let state = one_value_on(
        replica,
        &client,
        "ask for the state of replication",
        "SELECT status FROM pg_stat_wal_receiver",
    );
    Ok(state.await?.as_deref() == Some("streaming"))
}

fn unusable(site: &Site, replica: Server, reason: &str) -> Error {
    let path = site.layout.server(replica);
    Error::ReplicaUnusable { path, reason: reason.to_owned() }
}

async fn one_value(client: &Client, action: &'static str, sql: &str) -> Result<Option<String>> {
    one_value_on(Server::Primary, client, action, sql).await
}

/// The first column of the first row.
async fn one_value_on(
    server: Server,
    client: &Client,
    action: &'static str,
    sql: &str,
) -> Result<Option<String>> {
    let messages = client.simple_query(sql).await.map_err(Error::postgres(server, action))?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}
