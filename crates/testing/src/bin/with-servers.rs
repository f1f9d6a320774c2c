//! `with-servers COMMAND…`: starts servers for tests, runs the command, stops them.

use std::process::ExitCode;

use anyhow::Context as _;
use tenantry_testing::{Servers, VARIABLE, temp_dir};
use tokio::process::Command;

/// As `lanes.pool_size` by default.
const POOL_SIZE: u16 = 12;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("usage: with-servers COMMAND [ARGUMENT…]")?;
    let dir = temp_dir()?;
    let (mut stack, servers) = Servers::start(dir.path(), POOL_SIZE).await?;
    // Ctrl-C reaches the command too; it ends, and then so do the servers.
    let mut command = Command::new(&program);
    command.args(words).env(VARIABLE, serde_json::to_string(&servers)?);
    let mut child =
        command.spawn().with_context(|| format!("can't run `{}`", program.display()))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    stack.stop().await?;
    Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
