//! `tenantry replica`: how the replicas are, asked now.

use serde_json::json;
use tenantry_db::replicas::{self, ReplicaView, State};

use crate::args::{Common, Replica};
use crate::exit::Exit;
use crate::{config_file, output};

pub(super) async fn run(common: &Common, command: &Replica) -> anyhow::Result<Exit> {
    match command {
        Replica::Status => status(common).await,
    }
}

async fn status(common: &Common) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    let views = replicas::inspect(&config).await?;
    if views.is_empty() {
        let why = match config.database.replica_urls.len() {
            0 => "`database.replica_urls` names no replica",
            _ => "`database.replica_direct_urls` does not say where the replicas are asked",
        };
        output::say(&format!("note: {why}, so every read goes to the primary"));
    }
    output::data(common.output, &json!({ "data": views }), |_| text(&views))?;
    Ok(Exit::Done)
}

fn text(views: &[ReplicaView]) -> String {
    if views.is_empty() {
        return String::new();
    }
    let heading = ["REPLICA", "STATE", "LAG", "BEHIND", "HEARTBEAT", "TIMELINE", "WHY"];
    output::table(&heading, &views.iter().map(row).collect::<Vec<_>>())
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

fn row(view: &ReplicaView) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
    let mut why: Vec<&str> = view.reasons.iter().map(|reason| reason.in_words()).collect();
    why.extend(view.problem.as_deref());
    vec![
        view.name.clone(),
        match view.state {
            State::Healthy => "healthy",
            State::Unhealthy => "UNHEALTHY",
            State::Unknown => "unknown",
        }
        .to_owned(),
        or_dash(view.lag_ms.map(seconds)),
        or_dash(view.behind_bytes.map(kib)),
        or_dash(view.heartbeat_age_ms.map(seconds)),
        or_dash(view.timeline.map(|timeline| timeline.to_string())),
        why.join("; "),
    ]
}
