//! A server for a look at restored data: in a directory of its own, reached through its socket only, and gone
//! afterwards.
//!
//! Owns that directory. Whoever opens it ends and wipes what a killed run has left there. What the data's own
//! configuration says of addresses, archiving, recovery and libraries does not count: it is meant for another
//! server. Refuses a directory that others use, or that is not of this kind.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use crate::binaries;
use crate::error::{Error, Result};
use crate::files;
use crate::layout::Layout;
use crate::leftovers;
use crate::lock::DirectoryLock;
use crate::postmaster_file;
use crate::process::{POLL, ProcessId, send};
use crate::running::RunningServer;
use crate::server::Server;
use crate::tool;
use crate::user::ServerUser;

const PRIVATE: u32 = 0o700;
/// Only a part of the socket's name.
const PORT: u16 = 5432;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CHILDREN_PATIENCE: Duration = Duration::from_secs(5);
/// Of the log, what is handed out.
const LOG_BYTES: u64 = 1024 * 1024;

/// A directory with a scratch server in it, running or not. Dropped, both are gone.
#[derive(Debug)]
pub struct Scratch {
    layout: Layout,
    running: Option<RunningServer>,
    _lock: DirectoryLock,
}

impl Scratch {
    /// Takes the directory, and makes it empty: what a killed run has left is ended first.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody else uses it; [`Error::NotADataDir`] if there are other files in it.
    pub async fn open(root: &Path, user: &ServerUser) -> Result<Self> {
        let layout = Layout::new(root.to_owned(), user.clone());
        layout.claim()?;
        let lock = DirectoryLock::acquire(&layout)?;
        leftovers::stop_all(&layout).await?;
        until_empty(|| layout.clear()).await?;
        layout.prepare()?;
        let scratch = Self { layout, running: None, _lock: lock };
        for directory in scratch.filled() {
            files::ensure_directory(&directory, PRIVATE, Some(user))?;
        }
        Ok(scratch)
    }

    /// Throws away what was restored into it, so that something else can be.
    ///
    /// # Errors
    /// [`Error::StillRunning`], [`Error::Io`].
    pub async fn empty(&mut self) -> Result<()> {
        self.stop().await?;
        for directory in self.filled() {
            until_empty(|| files::remove_directory(&directory)).await?;
            files::ensure_directory(&directory, PRIVATE, Some(self.layout.user()))?;
        }
        Ok(())
    }

    /// What a restore writes to.
    fn filled(&self) -> [PathBuf; 2] {
        [self.data_dir(), self.root().join("tablespaces")]
    }

    /// The directory that everything lies in.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Where the server's own directory is to be restored to. It is there, and empty.
    pub fn data_dir(&self) -> PathBuf {
        self.layout.server(Server::Primary)
    }

    /// Notes down a process that fills the directory, the leader of its group, so that whoever comes after we
    /// were killed ends it before anything is wiped.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DiskFull`].
    pub fn note_tool(&self, pid: u32) -> Result<()> {
        tool::note(&self.layout, pid)
    }

    /// Starts PostgreSQL on a directory, with settings that nothing in there overrides, and waits until it takes
    /// writes: a recovery is over then. Only its owner and root reach it.
    ///
    /// # Errors
    /// [`Error::StartFailed`] with the end of its log; [`Error::StartTimeout`]; [`Error::MissingBinary`].
    pub async fn start(
        &mut self,
        directory: &Path,
        settings: &[(&str, String)],
        patience: Duration,
    ) -> Result<()> {
        self.stop().await?;
        let version = files::read_if_present(&directory.join("PG_VERSION"))?;
        let major = version.and_then(|text| text.trim().parse().ok());
        let program = binaries::find_postgres(major).await?;
        self.write_configuration()?;
        postmaster_file::remove_stale(directory)?;
        let sockets = self.layout.sockets();
        for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            files::remove_file(&sockets.join(name))?;
        }
        let mut arguments = vec![OsString::from("-D"), directory.into()];
        for (name, value) in self.settings().iter().chain(settings) {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        let running =
            RunningServer::spawn(&self.layout, Server::Primary, &program, arguments, PORT)?;
        let running = self.running.insert(running);
        let config = socket_config(&sockets, "postgres", "postgres");
        let ready = wait_until_ready(running, directory, &config, patience).await;
        if ready.is_err() {
            // The reason why it did not start matters more than how it was stopped.
            let _ = self.stop().await;
        }
        ready
    }

    /// How a login reaches it; no password is asked for.
    pub fn config(&self, user: &str, database: &str) -> tokio_postgres::Config {
        socket_config(&self.layout.sockets(), user, database)
    }

    /// The directory of its socket, and the port in the socket's name.
    pub fn socket(&self) -> (PathBuf, u16) {
        (self.layout.sockets(), PORT)
    }

    /// The end of its log, also after it has ended.
    pub fn log(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.layout.log(Server::Primary.name()))?;
            let from = file.metadata()?.len().saturating_sub(LOG_BYTES);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// What `pg_dump` says of one schema of the server that runs: a section of it, without owners and rights. With
    /// the program of the server's own version, as its user, through its socket.
    ///
    /// # Errors
    /// [`Error::MissingBinary`]; [`Error::Tool`] with the end of what it said.
    pub async fn dump_schema(
        &self,
        login: &str,
        database: &str,
        schema: &str,
        section: &str,
    ) -> Result<String> {
        let version = files::read_if_present(&self.data_dir().join("PG_VERSION"))?;
        let major = version.and_then(|text| text.trim().parse().ok());
        let beside = binaries::find_postgres(major).await?.with_file_name("pg_dump");
        let program = if beside.is_file() {
            beside
        } else {
            binaries::find_client_program("pg_dump").await?
        };
        let place = self.root().join("dumps");
        files::ensure_directory(&place, PRIVATE, Some(self.layout.user()))?;
        let file = place.join(format!("{section}.sql"));
        let mut arguments: Vec<OsString> =
            ["--no-owner", "--no-privileges", "--no-password", "--strict-names"]
                .map(OsString::from)
                .into();
        let named = [
            format!("--host={}", self.layout.sockets().display()),
            format!("--port={PORT}"),
            format!("--username={login}"),
            format!("--schema={schema}"),
            format!("--section={section}"),
            format!("--file={}", file.display()),
            database.to_owned(),
        ];
        arguments.extend(named.map(OsString::from));
        tool::run(&self.layout, "pg_dump", &program, arguments, &[]).await?;
        files::read_if_present(&file)?.ok_or_else(|| {
            let gone = std::io::Error::from(ErrorKind::NotFound);
            Error::io("read", &file)(gone)
        })
    }

    /// Stops it, with a checkpoint. It may be stopped already.
    ///
    /// # Errors
    /// [`Error::StillRunning`].
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(running) = &mut self.running {
            running.stop().await?;
            self.running = None;
        }
        Ok(())
    }

    /// Stops it and removes everything.
    ///
    /// # Errors
    /// [`Error::StillRunning`], [`Error::Io`].
    pub async fn wipe(mut self) -> Result<()> {
        if let Some(running) = &mut self.running {
            // Nobody needs what it has in its memory.
            running.kill().await?;
            self.running = None;
        }
        until_empty(|| self.remove()).await
    }

    fn remove(&self) -> Result<()> {
        if !self.layout.sockets().starts_with(self.root()) {
            files::remove_directory(&self.layout.sockets())?;
        }
        self.layout.remove()
    }

    /// In the directory of the socket, which only the server's user enters.
    fn write_configuration(&self) -> Result<()> {
        const ACCESS: &str = "local all all trust\n";
        let user = Some(self.layout.user());
        for (name, text) in
            [("postgresql.conf", ""), ("pg_hba.conf", ACCESS), ("pg_ident.conf", "")]
        {
            files::write_private(&self.layout.sockets().join(name), text, user)?;
        }
        Ok(())
    }

    /// On the command line, which `postgresql.auto.conf` does not override.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let sockets = self.layout.sockets();
        let file = |name: &str| sockets.join(name).display().to_string();
        let directory = format!("\"{}\"", sockets.display().to_string().replace('"', "\"\""));
        let mut all = vec![
            ("config_file", file("postgresql.conf")),
            ("hba_file", file("pg_hba.conf")),
            ("ident_file", file("pg_ident.conf")),
            ("unix_socket_directories", directory),
            ("port", PORT.to_string()),
        ];
        all.extend(FIXED.map(|(name, value)| (name, value.to_owned())));
        all
    }
}

/// What the data's own configuration must not decide.
const FIXED: [(&str, &str); 32] = [
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("external_pid_file", ""),
    ("ssl", "off"),
    ("archive_mode", "off"),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("restore_command", ""),
    ("recovery_target", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_xid", ""),
    ("recovery_target_lsn", ""),
    ("recovery_target_action", "promote"),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    // Nobody looks before the recovery is over, and so it needs no more room than the server had.
    ("hot_standby", "off"),
    ("wal_level", "replica"),
    // A commit would wait for ever.
    ("synchronous_standby_names", ""),
    ("default_transaction_read_only", "off"),
    ("shared_preload_libraries", ""),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("autovacuum", "off"),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_min_messages", "warning"),
    ("log_line_prefix", "%m [%p] "),
    ("lc_messages", "C"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("cluster_name", "tenantry scratch"),
];

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(pid) = self.running.as_ref().and_then(RunningServer::pid) {
            // Its children end with it. There is a number only while nobody has waited for it.
            let _ = send(pid, Signal::KILL);
        }
        // It would go on filling the directory.
        tool::kill_leftover(&self.layout);
        // What can't be removed now, the next one who opens it removes.
        let _ = self.remove();
    }
}

/// Removes until nobody puts files there any more: the children of a server that was killed end a moment
/// after it.
async fn until_empty(mut remove: impl FnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + CHILDREN_PATIENCE;
    loop {
        match remove() {
            Err(Error::Io { source, .. })
                if source.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < deadline =>
            {
                sleep(POLL).await;
            }
            removed => return removed,
        }
    }
}

fn socket_config(sockets: &Path, user: &str, database: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(sockets)
        .port(PORT)
        .user(user)
        .dbname(database)
        .application_name("tenantry-scratch")
        .connect_timeout(CONNECT_TIMEOUT);
    config
}

async fn wait_until_ready(
    running: &mut RunningServer,
    directory: &Path,
    config: &tokio_postgres::Config,
    patience: Duration,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        // A recovery takes minutes, and until then it would refuse.
        if postmaster_file::says_ready(directory)?
            && running.ask(async { Ok(takes_writes(config).await) }).await?
        {
            return Ok(());
        }
        running.ask(std::future::ready(Ok(false))).await?;
        sleep(POLL).await;
    }
    Err(running.start_timeout(patience))
}

/// Whoever logs in under a name that is not there is told so by a server that is up.
async fn takes_writes(config: &tokio_postgres::Config) -> bool {
    match config.connect(NoTls).await {
        Ok((client, connection)) => {
            let driven = tokio::spawn(connection);
            let row = client.query_typed_one("SELECT NOT pg_is_in_recovery()", &[]).await;
            driven.abort();
            row.is_ok_and(|row| row.get(0))
        }
        Err(error) => error.as_db_error().is_some_and(|error| {
            use tokio_postgres::error::SqlState as S;
            [&S::INVALID_AUTHORIZATION_SPECIFICATION, &S::INVALID_CATALOG_NAME]
                .contains(&error.code())
        }),
    }
}

/// The server that runs in a directory, whoever started it.
///
/// # Errors
/// [`Error::Io`] if the directory is closed to this user.
pub fn running_server(directory: &Path) -> Result<Option<u32>> {
    if let Some(found) = postmaster_file::find_live(directory)? {
        return Ok(Some(found.process.pid()));
    }
    let text = files::read_if_present(&directory.join("postmaster.pid"))?.unwrap_or_default();
    let pid = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
    let Some(pid) = pid.filter(|pid| ProcessId::of(*pid).is_some()) else { return Ok(None) };
    // A server's working directory is its data. Started through a link, its command line has another name.
    let at = std::fs::read_link(format!("/proc/{pid}/cwd"));
    let here = std::fs::canonicalize(directory).map_err(Error::io("look at", directory))?;
    Ok(at.is_ok_and(|at| at == here).then_some(pid))
}
