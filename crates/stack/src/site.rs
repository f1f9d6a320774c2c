//! What all the servers of one stack share, and what does not change while it lives.
//!
//! Owns the connection pieces for our own two roles. Refuses to know whether anything runs.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};
use tracing::debug;

use crate::binaries::Programs;
use crate::layout::Layout;
use crate::options::StackOptions;
use crate::secrets::Secret;
use crate::server::Server;

/// PostgreSQL's first superuser.
pub(crate) const SUPERUSER: &str = "postgres";
/// The role that the replica connects as.
pub(crate) const REPLICATOR: &str = "replicator";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) options: StackOptions,
    pub(crate) layout: Layout,
    pub(crate) programs: Programs,
    pub(crate) superuser_password: Secret,
    pub(crate) replicator_password: Secret,
}

impl Site {
    pub(crate) fn port(&self, server: Server) -> u16 {
        self.options.ports.of(server)
    }

    /// How the superuser reaches a PostgreSQL server.
    pub(crate) fn superuser_config(&self, server: Server) -> Config {
        let mut config = Config::new();
        config
            .host(Ipv4Addr::LOCALHOST.to_string())
            .port(self.port(server))
            .user(SUPERUSER)
            .password(self.superuser_password.reveal())
            .dbname("postgres")
            .application_name("tenantry-stack")
            .connect_timeout(CONNECT_TIMEOUT);
        config
    }

    /// A connection as superuser. SCRAM proves both ways: whoever answers on the port and does
    /// not know this directory's password is not our server, and is refused.
    pub(crate) async fn connect(&self, server: Server) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.superuser_config(server).connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%server, %error, "a connection of ours to the {server} was cut");
            }
        });
        Ok(client)
    }
}
