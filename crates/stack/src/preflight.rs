//! What is checked before anything is started: ports and disk space.
//!
//! Owns the questions and the numbers. Refuses early, with everything that is wrong at once.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use crate::error::{BusyPort, Error, Result};
use crate::layout::Layout;
use crate::options::StackOptions;
use crate::server::Server;

const MEGABYTE: u64 = 1024 * 1024;
/// A fresh cluster, its first WAL segments, and room to work.
const NEW_PRIMARY_BYTES: u64 = 512 * MEGABYTE;
/// A copy of the primary and the WAL meanwhile.
const NEW_REPLICA_BYTES: u64 = 256 * MEGABYTE;

/// Binds each port and lets go of it. Another program may still take it in between; then the
/// server itself reports it.
pub(crate) fn check_ports(options: &StackOptions) -> Result<()> {
    let mut busy = Vec::new();
    for server in options.servers() {
        let port = options.ports.of(server);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                busy.push(BusyPort { port, server });
            }
            Err(error) => {
                let reason = format!("is {port}, where nothing may listen: {error}");
                return Err(crate::options::invalid(server.port_flag(), reason));
            }
        }
    }
    if busy.is_empty() { Ok(()) } else { Err(Error::PortInUse { ports: busy }) }
}

/// Only clusters that are yet to be made need room: an existing one may start on a full disk, and
/// somebody may need it to.
pub(crate) fn check_space(options: &StackOptions, layout: &Layout) -> Result<()> {
    let mut needed_bytes = 0;
    if !layout.has_cluster(Server::Primary) {
        needed_bytes += NEW_PRIMARY_BYTES;
    }
    for replica in Server::replicas(options.replicas) {
        if !layout.has_cluster(replica) {
            needed_bytes += NEW_REPLICA_BYTES;
        }
    }
    let path = layout.root();
    let disk = rustix::fs::statvfs(path)
        .map_err(|error| Error::io("ask for the free space of", path)(error.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes < needed_bytes {
        return Err(Error::NotEnoughSpace { path: path.to_owned(), free_bytes, needed_bytes });
    }
    Ok(())
}
