//! `tenantry down`: stops what an interrupted `up` left.

use serde_json::json;

use crate::args::{Common, DataDir};
use crate::exit::Exit;
use crate::output;

pub(super) async fn run(common: &Common, data_dir: &DataDir) -> anyhow::Result<Exit> {
    let stopped = tenantry_stack::down(&data_dir.path()).await?;
    let shown: Vec<_> =
        stopped.iter().map(|s| json!({ "server": s.server.name(), "pid": s.pid })).collect();
    output::data(common.output, &json!({ "stopped": shown }), |_| {
        if stopped.is_empty() {
            return "nothing was running\n".to_owned();
        }
        stopped.iter().map(|s| format!("{} (pid {}) stopped\n", s.server.name(), s.pid)).collect()
    })?;
    Ok(Exit::Done)
}
