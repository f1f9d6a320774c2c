//! The primary: making its cluster, starting it.
//!
//! Owns `initdb`. Refuses to leave a half-made cluster under the cluster's name.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::info;

use crate::error::{Error, Result};
use crate::files;
use crate::options::Durability;
use crate::postgres::{self, Plan, SETTINGS_FILE};
use crate::running::RunningServer;
use crate::server::Server;
use crate::site::{SUPERUSER, Site};
use crate::tool;

/// Sorts alike on every machine and whatever the C library's version; the second is for systems
/// that do not have the first.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];
/// What `initdb` says of a locale that the system lacks.
const UNKNOWN_LOCALE: &str = "invalid locale";

/// Long, because a server that replays its WAL after a crash is busy, not broken; one that can't
/// start ends by itself, and that is seen at once.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// Makes the cluster if there is none, and starts the server into `slot`.
pub(crate) async fn start(site: &Site, slot: &mut Option<RunningServer>) -> Result<()> {
    tool::stop_leftover(&site.layout).await?;
    let unfinished = site.layout.unfinished(Server::Primary);
    if site.layout.has_cluster(Server::Primary) {
        files::remove_directory(&unfinished)?;
    } else {
        create_cluster(site, &unfinished).await?;
    }
    let plan = Plan { server: Server::Primary, own_settings: &[], patience: START_PATIENCE };
    postgres::start(site, plan, slot, async |_| postgres::answers(site, Server::Primary).await)
        .await
}

async fn create_cluster(site: &Site, unfinished: &Path) -> Result<()> {
    let user = site.layout.user();
    info!("making the primary's cluster");
    // `initdb` runs as the servers' user and can't read our secrets; it gets a copy for a moment.
    let password = PasswordFile(site.layout.sockets().join("initdb.password"));
    files::write_private(&password.0, site.superuser_password.reveal(), Some(user))?;
    for (index, locale) in LOCALES.into_iter().enumerate() {
        files::replace_directory(unfinished, 0o700, user)?;
        match initdb(site, unfinished, &password.0, locale).await {
            Err(Error::Tool { log_tail, .. })
                if log_tail.contains(UNKNOWN_LOCALE) && index + 1 < LOCALES.len() => {}
            result => {
                result?;
                break;
            }
        }
    }
    let configuration = unfinished.join("postgresql.conf");
    OpenOptions::new()
        .append(true)
        .open(&configuration)
        .and_then(|mut file| {
            writeln!(file, "\ninclude_if_exists '{SETTINGS_FILE}'")?;
            file.sync_all()
        })
        .map_err(Error::io("write", &configuration))?;
    files::publish_directory(unfinished, &site.layout.server(Server::Primary))
}

async fn initdb(site: &Site, directory: &Path, password: &Path, locale: &str) -> Result<()> {
    let mut arguments: Vec<OsString> =
        ["--username", SUPERUSER, "--encoding", "UTF8", "--locale", locale]
            .map(OsString::from)
            .to_vec();
    arguments.extend(["--auth", "scram-sha-256", "--data-checksums", "--pwfile"].map(Into::into));
    arguments.extend([password.into(), "--pgdata".into(), directory.into()]);
    if site.options.durability == Durability::Volatile {
        arguments.push("--no-sync".into());
    }
    tool::run(&site.layout, "initdb", &site.programs.postgres("initdb"), arguments, &[]).await
}

struct PasswordFile(PathBuf);

impl Drop for PasswordFile {
    fn drop(&mut self) {
        // The directory is as closed as the file; the next start overwrites it.
        let _ = files::remove_file(&self.0);
    }
}
