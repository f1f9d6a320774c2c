//! One file for each command.

mod audit;
mod backup;
mod certificate;
mod config;
mod deletion;
mod doctor;
mod down;
mod exec;
mod init;
mod lanes;
mod migrate;
mod psql;
mod replica;
mod serve;
mod status;
mod tenant;
mod token;
mod transfer;
mod up;

use std::path::{Path, PathBuf};

use tenantry_db::models::audit::Actor;

use crate::args::{Args, Command, DataDir};
use crate::exit::Exit;

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let common = args.common;
    match args.command {
        Command::Up(up) => up::run(&common, &up).await,
        Command::Down(data_dir) => down::run(&common, &data_dir).await,
        Command::Status(data_dir) => status::run(&common, &data_dir).await,
        Command::Serve(serve) => serve::run(&common, &serve).await,
        Command::Init(init) => init::run(&common, &init).await,
        Command::Migrate(migrate) => migrate::run(&common, &migrate).await,
        Command::Tenant(tenant) => tenant::run(&common, &tenant).await,
        Command::Lanes(lanes) => lanes::run(&common, &lanes).await,
        Command::Replica(replica) => replica::run(&common, &replica).await,
        Command::Backup(backup) => backup::run(&common, &backup).await,
        Command::Token(token) => token::run(&common, &token).await,
        Command::Audit(audit) => audit::run(&common, &audit).await,
        Command::Doctor => doctor::run(&common).await,
        Command::Config(config) => config::run(&common, &config),
    }
}

/// Where servers live unless somebody says otherwise.
const DEFAULT_DATA_DIR: &str = ".tenantry";

impl DataDir {
    fn path(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| Path::new(DEFAULT_DATA_DIR).to_owned())
    }
}

/// Who acts, for the audit log: the account at this machine.
fn actor() -> Actor {
    let name = std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .or_else(|_| std::env::var("LOGNAME"));
    let name = name.unwrap_or_else(|_| format!("uid-{}", rustix::process::getuid().as_raw()));
    Actor::new(format!("cli:{name}"))
}
