//! What runs from a data directory whose `up` is gone, as its files tell.
//!
//! Owns finding and stopping such servers. Refuses to believe a file: a process is a server of ours
//! if it started when the pid file says, or, for a postmaster whose start nobody could note down,
//! if `postmaster.pid` and its command line agree.

use tracing::info;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::pid_file::PidFile;
use crate::postmaster_file;
use crate::running::stop_steps;
use crate::server::{Server, ServerState, ServerStatus, Stopped};
use crate::tool;

/// Stops them all, in order. Only for the holder of the lock.
pub(crate) async fn stop_all(layout: &Layout) -> Result<Vec<Stopped>> {
    tool::stop_leftover(layout).await?;
    let mut all = Vec::new();
    for server in Server::stop_order() {
        if let Some(found) = find(layout, server)? {
            let pid = found.process.pid();
            if !found.process.stop(stop_steps(server)).await {
                return Err(Error::StillRunning { server, pid });
            }
            info!(%server, pid, "stopped the {server}, which an interrupted run had left");
            all.push(Stopped { server, pid });
        }
        PidFile::remove(layout, server.name())?;
    }
    Ok(all)
}

/// Looks without touching anything.
pub(crate) fn status(layout: &Layout, server: Server) -> Result<ServerStatus> {
    let state = find(layout, server)?.map_or(ServerState::Stopped, |found| ServerState::Running {
        pid: found.process.pid(),
        port: found.port,
        since: found.since(),
    });
    Ok(ServerStatus { server, state })
}

fn find(layout: &Layout, server: Server) -> Result<Option<PidFile>> {
    let noted = PidFile::read(layout, server.name())?;
    if let Some(noted) = noted.filter(|noted| noted.process.is_alive()) {
        return Ok(Some(noted));
    }
    match server {
        Server::Primary | Server::Replica(_) => postmaster_file::find_live(&layout.server(server)),
        Server::Pooler => Ok(None),
    }
}
