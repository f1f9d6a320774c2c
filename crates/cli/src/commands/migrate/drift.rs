//! What `migrate status --drift` adds: tenants whose schemas are not as their files make them.

use serde::Serialize;
use tenantry_db::migrate::{self, Drift, DriftGroup, Expected, Migrations, Tenants};
use tenantry_db::{AdminDb, Config, ReaderDb};

use crate::steps::Progress;

/// A status, and the drift if that was asked for.
#[derive(Serialize)]
pub(super) struct WithDrift<T> {
    #[serde(flatten)]
    pub(super) status: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drift: Option<Drift>,
}

pub(super) async fn look(
    config: &Config,
    reader: &ReaderDb,
    migrations: &Migrations,
    tenants: &Tenants,
) -> anyhow::Result<Drift> {
    let (admin, bar) = (AdminDb::new(config)?, Progress::begin("schemas"));
    let show = |done, all| bar.at(done, all);
    Ok(migrate::drift(reader, &admin, migrations, tenants, show).await?)
}

impl<T> WithDrift<T> {
    pub(super) fn drift_text(&self) -> String {
        self.drift.as_ref().map(text).unwrap_or_default()
    }
}

fn text(drift: &Drift) -> String {
    let mut text = match drift.drifted {
        0 => format!("drift: none, {} compared\n", drift.compared),
        some => format!("drift: {some} of {} compared\n", drift.compared),
    };
    for group in &drift.groups {
        text += &group_text(group);
    }
    if drift.groups_truncated {
        text += "  and more\n";
    }
    if drift.not_comparable > 0 {
        text += &format!("  {} have nothing to be compared with\n", drift.not_comparable);
    }
    if drift.moved > 0 {
        text += &format!("  {} were changed during the look: ask again\n", drift.moved);
    }
    if let Expected::Majority { because } = &drift.expected {
        text += &format!(
            "note: compared with what most tenants of a version are like, not with the files: {because}\n"
        );
    }
    text
}

fn group_text(group: &DriftGroup) -> String {
    let names: Vec<String> = group
        .tenants
        .iter()
        .map(|tenant| {
            let name = tenant.subdomain.clone().unwrap_or_else(|| tenant.id.to_string());
            match tenant.half_way_to {
                Some(version) => format!("{name} (half way to version {version})"),
                None => name,
            }
        })
        .collect();
    let more = match group.count - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut text = format!("  {}{more}, at version {}:\n", names.join(", "), group.version);
    for line in &group.difference {
        text += &format!("    {}\n", line.trim_end().replace('\n', "\n      "));
    }
    text
}
