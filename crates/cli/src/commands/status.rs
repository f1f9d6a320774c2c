//! `tenantry status`: servers, migrations, tenants, lanes and backups at a glance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tenantry_api::Settings;
use tenantry_db::migrate::{self, FleetStatus, Migrations};
use tenantry_db::models::tenants;
use tenantry_db::{Error, ReaderDb};
use tenantry_stack::ServerState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::backup;
use super::migrate::fleet_text;
use crate::args::{Common, DataDir};
use crate::exit::Exit;
use crate::{config_file, output};

#[derive(Serialize)]
struct Glance {
    /// Absent where no data directory is: the servers are somebody else's then.
    servers: Option<Vec<Server>>,
    /// Absent where no configuration says where it would be.
    api: Option<Api>,
    /// Absent where the database can't be read; `problem` says why.
    migrations: Option<FleetStatus>,
    tenants: BTreeMap<String, i64>,
    /// Absent where no configuration says whether there are any.
    backups: Option<backup::Glance>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Api {
    address: SocketAddr,
    answers: bool,
}

#[derive(Serialize)]
struct Server {
    name: &'static str,
    running: bool,
    pid: Option<u32>,
    port: Option<u16>,
    since: Option<Timestamp>,
}

pub(super) async fn run(common: &Common, data_dir: &DataDir) -> anyhow::Result<Exit> {
    let directory = data_dir.path();
    let servers = if directory.exists() { Some(servers(&directory).await?) } else { None };
    let mut glance = Glance {
        servers,
        api: None,
        migrations: None,
        tenants: BTreeMap::new(),
        backups: None,
        problem: None,
    };
    // Where our servers are stopped, it is somebody else who answers there.
    let ours = glance.servers.as_ref().is_none_or(|servers| servers.iter().any(|s| s.running));
    if let Some(address) = api_address(common).ok().filter(|_| ours) {
        glance.api = Some(Api { address, answers: answers(address).await });
    }
    match database(common).await {
        Ok((fleet, tenants)) => {
            glance.migrations = Some(fleet);
            glance.tenants = tenants.into_iter().collect();
            glance.backups = Some(backup::Glance::take(&config_file::load(common)?).await);
        }
        Err(error) => glance.problem = Some(format!("{error:#}")),
    }
    let readable = glance.problem.is_none();
    output::data(common.output, &glance, text)?;
    Ok(if readable { Exit::Done } else { Exit::Failed })
}

async fn servers(directory: &std::path::Path) -> anyhow::Result<Vec<Server>> {
    let status = tenantry_stack::status(directory).await?;
    let server = |s: &tenantry_stack::ServerStatus| match s.state {
        ServerState::Running { pid, port, since } => Server {
            name: s.server.name(),
            running: true,
            pid: Some(pid),
            port: Some(port),
            since: Timestamp::try_from(since).ok(),
        },
        ServerState::Stopped => {
            Server { name: s.server.name(), running: false, pid: None, port: None, since: None }
        }
    };
    Ok(status.servers.iter().map(server).collect())
}

fn api_address(common: &Common) -> anyhow::Result<SocketAddr> {
    Ok(Settings::from_config(&config_file::load(common)?)?.http.address)
}

/// Whether our service answers there: somebody else's would not say this.
async fn answers(address: SocketAddr) -> bool {
    const LIMIT: Duration = Duration::from_secs(2);
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.take(16 * 1024).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(LIMIT, asked).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|a| a.ends_with(br#"{"status":"live"}"#)))
}

async fn database(common: &Common) -> anyhow::Result<(FleetStatus, Vec<(String, i64)>)> {
    let config = config_file::load(common)?;
    let migrations = Migrations::load(&config.migrations).map_err(Error::from)?;
    let reader = ReaderDb::new(&config)?;
    let fleet = migrate::fleet_status(&reader, &migrations).await?;
    let tenants = match fleet.public.applied {
        0 => Vec::new(),
        _ => tenants::count_by_status(&reader).await?,
    };
    Ok((fleet, tenants))
}

fn text(glance: &Glance) -> String {
    let mut text = String::new();
    if let Some(servers) = &glance.servers {
        let row = |s: &Server| {
            let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            vec![
                s.name.to_owned(),
                if s.running { "running" } else { "stopped" }.to_owned(),
                or_dash(s.port.map(|port| format!("127.0.0.1:{port}"))),
                or_dash(s.pid.map(|pid| pid.to_string())),
                or_dash(s.since.map(|since| format!("{since:.0}"))),
            ]
        };
        let rows: Vec<_> = servers.iter().map(row).collect();
        text += &output::table(&["SERVER", "STATE", "ADDRESS", "PID", "SINCE"], &rows);
        text += "\n";
    }
    if let Some(Api { address, answers }) = &glance.api {
        let state = if *answers { "answers" } else { "does not answer" };
        text += &format!("API: {state} on http://{address}\n");
    }
    if let Some(fleet) = &glance.migrations {
        text += &fleet_text(fleet);
    }
    if !glance.tenants.is_empty() {
        let counts: Vec<_> =
            glance.tenants.iter().map(|(status, n)| format!("{n} {status}")).collect();
        text += &format!("by status: {}\n", counts.join(", "));
    }
    if let Some(backups) = &glance.backups {
        text += &backups.text(Timestamp::now());
    }
    if let Some(problem) = &glance.problem {
        text += &format!("database: {problem}\n");
    }
    text
}
