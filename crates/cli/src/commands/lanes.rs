//! `tenantry lanes`: tenants and pools by lane, moving tenants, and PgBouncer's userlist.

use std::collections::BTreeMap;

use serde_json::json;
use tenantry_db::lifecycle::{Relocated, resize_lanes};
use tenantry_db::models::tenants;
use tenantry_db::pooler::{self, LanePool};
use tenantry_db::{AdminDb, Config, LaneId, ReaderDb};

use super::actor;
use crate::args::{Common, Lanes};
use crate::exit::Exit;
use crate::steps::Progress;
use crate::{config_file, output};

pub(super) async fn run(common: &Common, command: &Lanes) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    match command {
        Lanes::List => list(common, &config).await?,
        Lanes::Resize { count } => resize(common, &config, *count).await?,
        Lanes::Userlist => {
            let logins = pooler::logins(&config)?;
            let shown: BTreeMap<_, _> = logins.iter().map(|(name, p)| (name, p.expose())).collect();
            let text = pooler::userlist(&config)?;
            output::data(common.output, &shown, |_| text)?;
        }
    }
    Ok(Exit::Done)
}

async fn resize(common: &Common, config: &Config, count: u8) -> anyhow::Result<()> {
    let admin = AdminDb::new(config)?;
    let bar = Progress::begin("moving tenants");
    let done = resize_lanes(&admin, config, count, &actor(), |done, all| bar.at(done, all)).await;
    drop(bar);
    let Relocated { moved, ended } = done?;
    if config.lanes.count != count {
        output::say(&format!(
            "hint: set `lanes.count = {count}` for every service; new tenants still go to {} lanes",
            config.lanes.count
        ));
    }
    let shown = json!({ "lanes": count, "moved": moved, "transactions_ended": ended });
    output::data(common.output, &shown, |_| {
        format!("{moved} tenants moved, {ended} transactions ended: all are on {count} lanes\n")
    })
}

async fn list(common: &Common, config: &Config) -> anyhow::Result<()> {
    let reader = ReaderDb::new(config)?;
    let tenants: BTreeMap<LaneId, i64> =
        tenants::count_by_lane(&reader).await?.into_iter().collect();
    // The list is about tenants; without PgBouncer it says less, but it says it.
    let pools = match pooler::lane_pools(config).await {
        Ok(pools) => Some(pools),
        Err(error) => {
            output::say(&format!("warning: no word from PgBouncer: {error}"));
            None
        }
    };
    let in_use: Vec<LaneId> = config.lanes.in_use().collect();
    let with_tenants = tenants.keys().copied().filter(|lane| !in_use.contains(lane));
    let lanes: Vec<LaneId> = in_use.iter().copied().chain(with_tenants).collect();
    let count = |lane: &LaneId| tenants.get(lane).copied().unwrap_or(0);
    let pool =
        |lane: &LaneId| pools.as_ref().map(|pools| pools.get(lane).cloned().unwrap_or_default());
    let shown: Vec<_> = lanes
        .iter()
        .map(|lane| {
            json!({ "lane": lane.number(), "login": config.roles.lane(*lane),
                    "in_use": in_use.contains(lane), "tenants": count(lane), "pool": pool(lane) })
        })
        .collect();
    output::data(common.output, &json!({ "data": shown }), |_| {
        let cells = |pool: Option<LanePool>| match pool {
            Some(p) => [
                p.clients_active.to_string(),
                p.clients_waiting.to_string(),
                p.servers_active.to_string(),
                p.servers_idle.to_string(),
                format!("{} ms", p.max_wait_ms),
            ],
            None => std::array::from_fn(|_| "?".to_owned()),
        };
        let row = |lane: &LaneId| {
            let mut row = vec![config.roles.lane(*lane), count(lane).to_string()];
            row.extend(cells(pool(lane)));
            row
        };
        let heading = [
            "LANE",
            "TENANTS",
            "CLIENTS",
            "WAITING",
            "SERVERS BUSY",
            "SERVERS IDLE",
            "LONGEST WAIT",
        ];
        output::table(&heading, &lanes.iter().map(row).collect::<Vec<_>>())
    })
}
