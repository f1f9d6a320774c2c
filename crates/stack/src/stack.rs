//! The stack: the servers in one data directory, and the order among them.
//!
//! Owns who starts after whom and stops before whom. Refuses to start twice in one directory.

use std::future::{pending, poll_fn};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::task::Poll;

use tokio_postgres::Config;

use crate::binaries::Programs;
use crate::data_dir::resolve_data_dir;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::leftovers;
use crate::lock::{self, DirectoryLock};
use crate::options::{PoolerSettings, Ports, StackOptions};
use crate::preflight;
use crate::running::RunningServer;
use crate::secrets::Secret;
use crate::server::{MAX_REPLICAS, Server, ServerExit, ServerState, ServerStatus, Status, Stopped};
use crate::site::{SUPERUSER, Site};
use crate::user::ServerUser;
use crate::{pooler, primary, replica, tool};

/// A PostgreSQL primary, its replicas and PgBouncer, in one data directory.
///
/// Every `start_…` may be dropped at any moment (Ctrl-C in a `select!`), and called again or
/// followed by [`stop`](Self::stop). Dropping the stack itself tells running servers to shut down
/// and does not wait for them.
#[derive(Debug)]
pub struct Stack {
    // Dropped in this order: the lock is held until the servers were told to shut down.
    pooler: Option<RunningServer>,
    replicas: Vec<Option<RunningServer>>,
    primary: Option<RunningServer>,
    site: Site,
    _lock: DirectoryLock,
}

impl Stack {
    /// Takes the data directory, stops what an interrupted run has left in it, and checks that
    /// the servers can be started. Starts none.
    ///
    /// # Errors
    /// Everything that is known to be in the way: [`Error::Locked`], [`Error::MissingBinary`],
    /// [`Error::PortInUse`], [`Error::NotEnoughSpace`], [`Error::NotADataDir`] and their kin.
    pub async fn open(options: StackOptions) -> Result<Self> {
        options.validate()?;
        let root = resolve_data_dir(&options.data_dir, false)?.path;
        let layout = Layout::new(root, ServerUser::find()?);
        layout.claim()?;
        let lock = DirectoryLock::acquire(&layout)?;
        layout.prepare()?;
        let search_path = options.search_path.as_deref();
        let programs = Programs::find(search_path, layout.cluster_major()?).await?;
        leftovers::stop_all(&layout).await?;
        preflight::check_ports(&options)?;
        preflight::check_space(&options, &layout)?;
        let superuser_password = Secret::obtain(&layout, "superuser")?;
        let replicator_password = Secret::obtain(&layout, "replicator")?;
        let site = Site { options, layout, programs, superuser_password, replicator_password };
        let replicas = Server::replicas(site.options.replicas).map(|_| None).collect();
        Ok(Self { pooler: None, replicas, primary: None, site, _lock: lock })
    }

    /// More PostgreSQL settings, for servers that are started from now on.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for odd names.
    pub fn add_settings(
        &mut self,
        settings: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<()> {
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.site.options.settings.extend(settings);
        self.site.options.validate()
    }

    /// Makes the primary's cluster if there is none yet, and starts it. Returns once it answers.
    ///
    /// # Errors
    /// [`Error::StartFailed`] and [`Error::StartTimeout`] with the end of its log;
    /// [`Error::Tool`] if `initdb` fails.
    pub async fn start_primary(&mut self) -> Result<()> {
        primary::start(&self.site, &mut self.primary).await
    }

    /// Lets go of the WAL that is kept for replicas that an earlier run had and the options no longer have, and
    /// says which they were. Their slots and directories stay; if they are wanted again, they are copied anew.
    ///
    /// # Errors
    /// [`Error::Postgres`] if the primary does not run.
    pub async fn release_unwanted_replicas(&self) -> Result<Vec<Server>> {
        replica::release_unwanted(&self.site).await
    }

    /// Starts all replicas, one after another.
    ///
    /// # Errors
    /// As [`start_replica`](Self::start_replica).
    pub async fn start_replicas(&mut self) -> Result<()> {
        for number in 1..=self.site.options.replicas {
            self.start_replica(number).await?;
        }
        Ok(())
    }

    /// Copies the primary if there is no such replica yet, or if no WAL was kept for the one there, and starts
    /// it. Returns once it follows the running primary.
    ///
    /// # Errors
    /// As for the primary; and [`Error::ReplicaUnusable`] for a directory that is not a standby of
    /// this primary. That directory is left as it is. [`Error::InvalidOption`] for a number that the
    /// options do not have.
    pub async fn start_replica(&mut self, number: u16) -> Result<()> {
        let index = usize::from(number).checked_sub(1);
        match index.and_then(|index| self.replicas.get_mut(index)) {
            Some(slot) => replica::start(&self.site, Server::Replica(number), slot).await,
            None => Err(crate::options::invalid("replicas", format!("has no number {number}"))),
        }
    }

    /// Starts PgBouncer; one that runs already takes over the settings. Returns once it answers.
    /// It does not need the PostgreSQL servers to run.
    ///
    /// # Errors
    /// [`Error::StartFailed`] and [`Error::StartTimeout`] with the end of its log;
    /// [`Error::InvalidOption`] for settings that its files can't express.
    pub async fn start_pooler(&mut self, settings: &PoolerSettings) -> Result<()> {
        pooler::start(&self.site, settings, &mut self.pooler).await
    }

    /// Gives PgBouncer other settings while its connections stay open. It takes them over a moment
    /// after this returns.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it does not run.
    pub fn reload_pooler(&self, settings: &PoolerSettings) -> Result<()> {
        let running = self.pooler.as_ref().ok_or(Error::NotRunning { server: Server::Pooler })?;
        pooler::reload(&self.site, settings, running)
    }

    /// Stops all that runs: PgBouncer, the replicas, the primary. Nothing running is fine.
    ///
    /// # Errors
    /// The first one, after all were tried. [`Error::StillRunning`] if a server could not even be
    /// killed.
    pub async fn stop(&mut self) -> Result<()> {
        let mut result = tool::stop_leftover(&self.site.layout).await;
        for server in Server::stop_order() {
            let stopped = self.stop_server(server).await;
            result = result.and(stopped);
        }
        result
    }

    /// Stops one server; it may be stopped already.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub async fn stop_server(&mut self, server: Server) -> Result<()> {
        if let Some(slot) = self.slot(server)
            && let Some(running) = slot
        {
            running.stop().await?;
            *slot = None;
        }
        Ok(())
    }

    /// Kills one server as a crash would, for tests of recovery; start it again afterwards.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it does not run.
    pub async fn kill_server(&mut self, server: Server) -> Result<()> {
        let slot = self.slot(server).ok_or(Error::NotRunning { server })?;
        let running = slot.as_mut().ok_or(Error::NotRunning { server })?;
        running.kill().await?;
        *slot = None;
        Ok(())
    }

    /// Waits until a server ends that nobody has stopped, and tells which and why. Waits for ever
    /// where none runs. Cancel-safe.
    pub async fn wait_for_exit(&mut self) -> ServerExit {
        tokio::select! {
            exit = exit_of(&mut self.primary) => exit,
            exit = exit_of_any(&mut self.replicas) => exit,
            exit = exit_of(&mut self.pooler) => exit,
        }
    }

    /// The process of a server that runs.
    pub fn pid(&self, server: Server) -> Option<u32> {
        match server {
            Server::Primary => self.primary.as_ref(),
            Server::Replica(number) => {
                self.replicas.get(usize::from(number).checked_sub(1)?)?.as_ref()
            }
            Server::Pooler => self.pooler.as_ref(),
        }?
        .pid()
    }

    /// The data directory's real path.
    pub fn data_dir(&self) -> &Path {
        self.site.layout.root()
    }

    /// A server's own directory: for PostgreSQL, the cluster.
    pub fn server_dir(&self, server: Server) -> PathBuf {
        self.site.layout.server(server)
    }

    /// A server's log.
    pub fn log_path(&self, server: Server) -> PathBuf {
        self.site.layout.log(server.name())
    }

    /// The directory of the PostgreSQL servers' Unix sockets. Only the servers' user may enter it,
    /// and there, too, everybody needs a password.
    pub fn socket_dir(&self) -> PathBuf {
        self.site.layout.sockets()
    }

    /// Where all the servers listen.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::LOCALHOST
    }

    /// The ports on that address.
    pub fn ports(&self) -> Ports {
        self.site.options.ports
    }

    /// The superuser's password, on the primary and the replicas.
    pub fn superuser_password(&self) -> &str {
        self.site.superuser_password.reveal()
    }

    /// How the superuser reaches the database `postgres` on the primary, directly.
    pub fn superuser_config(&self) -> Config {
        self.site.superuser_config(Server::Primary)
    }

    /// How the superuser reaches the database `postgres` on a replica, directly.
    pub fn replica_superuser_config(&self, number: u16) -> Config {
        self.site.superuser_config(Server::Replica(number))
    }

    /// [`superuser_config`](Self::superuser_config) as a URL, for programs. Holds the password.
    pub fn superuser_url(&self) -> String {
        let (host, port) = (self.host(), self.ports().postgres);
        // A generated password needs no escaping.
        format!("postgresql://{SUPERUSER}:{}@{host}:{port}/postgres", self.superuser_password())
    }

    /// Where the server is held; none for a replica that the options do not have.
    fn slot(&mut self, server: Server) -> Option<&mut Option<RunningServer>> {
        match server {
            Server::Primary => Some(&mut self.primary),
            Server::Replica(number) => self.replicas.get_mut(usize::from(number).checked_sub(1)?),
            Server::Pooler => Some(&mut self.pooler),
        }
    }
}

async fn exit_of(slot: &mut Option<RunningServer>) -> ServerExit {
    let Some(running) = slot else {
        return pending().await;
    };
    let exit = running.ended().await;
    *slot = None;
    exit
}

async fn exit_of_any(slots: &mut [Option<RunningServer>]) -> ServerExit {
    let mut exits: Vec<_> = slots.iter_mut().map(|slot| Box::pin(exit_of(slot))).collect();
    poll_fn(|context| {
        for exit in &mut exits {
            if let Poll::Ready(exit) = exit.as_mut().poll(context) {
                return Poll::Ready(exit);
            }
        }
        Poll::Pending
    })
    .await
}

/// Stops the servers that an interrupted run has left in a data directory, and says which. None is
/// fine, and so is a directory that does not exist.
///
/// # Errors
/// [`Error::Locked`] if the run was not interrupted but goes on; [`Error::NotADataDir`] for a
/// directory that is none.
pub async fn down(data_dir: &Path) -> Result<Vec<Stopped>> {
    let Some(layout) = existing_layout(data_dir)? else {
        return Ok(Vec::new());
    };
    let _lock = DirectoryLock::acquire(&layout)?;
    leftovers::stop_all(&layout).await
}

/// Deletes everything in a data directory, the caller's own files included; servers that an
/// interrupted run has left there are stopped first. A directory that does not exist is fine.
///
/// # Errors
/// As [`down`].
pub async fn reset(data_dir: &Path) -> Result<()> {
    let Some(layout) = existing_layout(data_dir)? else {
        return Ok(());
    };
    let _lock = DirectoryLock::acquire(&layout)?;
    leftovers::stop_all(&layout).await?;
    layout.clear()
}

/// Which servers run in a data directory. Does not disturb a stack that runs, starts or stops.
///
/// # Errors
/// [`Error::NotADataDir`] for a directory that is none; [`Error::Io`] if its files are closed to
/// this user.
pub async fn status(data_dir: &Path) -> Result<Status> {
    let layout = existing_layout(data_dir)?;
    // A second replica is no part of most directories, so it is shown where there is one.
    let replicas = Server::replicas(MAX_REPLICAS).filter(|server| {
        *server == Server::Replica(1) || layout.as_ref().is_some_and(|l| l.has_cluster(*server))
    });
    let servers = [Server::Primary].into_iter().chain(replicas).chain([Server::Pooler]);
    let Some(layout) = &layout else {
        let stopped = servers.map(|server| ServerStatus { server, state: ServerState::Stopped });
        return Ok(Status { owner_pid: None, servers: stopped.collect() });
    };
    let servers: Result<Vec<_>> = servers.map(|server| leftovers::status(layout, server)).collect();
    Ok(Status { owner_pid: lock::owner_pid(layout)?, servers: servers? })
}

fn existing_layout(data_dir: &Path) -> Result<Option<Layout>> {
    // What runs from it can be stopped also if a directory above it was closed since.
    let root = match std::fs::canonicalize(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(Error::io("find the directory", data_dir))?,
    };
    let layout = Layout::new(root, ServerUser::find()?);
    Ok(layout.is_ours()?.then_some(layout))
}
