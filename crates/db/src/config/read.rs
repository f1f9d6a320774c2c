//! From layers to settings: types, ranges, and the rules between settings.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use toml::Value;

use super::erasure::parse_retention;
use super::{
    Audit, Config, Database, Directory, Erasure, Export, Init, Lanes, Layers, Migrations, Replicas,
    Tenants, Tier,
};
use crate::error::Error;
use crate::ids::LaneId;
use crate::migrate::Portion;
use crate::roles::RolePrefix;
use crate::secret::{LaneSecret, Secret};

pub(super) fn config(mut layers: Layers) -> Result<Config, Error> {
    let mut problems = layers.take_problems();
    let mut reader = Reader { layers: &layers, problems: &mut problems };
    let database = database(&mut reader);
    let roles = reader.text("roles.prefix");
    let roles = reader.parsed("roles.prefix", &roles, str::parse::<RolePrefix>);
    let before = reader.problems.len();
    let lanes = lanes(&mut reader);
    let tiers = tiers(&mut reader);
    let lanes_and_tiers_read = reader.problems.len() == before;
    let tenants = Tenants {
        default_tier: reader.text("tenants.default_tier"),
        reserved_subdomains: reader.list("tenants.reserved_subdomains"),
        ready_pool: reader.integer("tenants.ready_pool", 0..=1000),
        retention: reader.retention("tenants.retention").unwrap_or_default(),
    };
    let erasure = Erasure {
        ledger_dir: reader.path("erasure.ledger_dir"),
        check_every: reader.duration("erasure.check_every"),
        max_per_hour: reader.integer("erasure.max_per_hour", 1..=10_000),
        kept_tables: reader.list("erasure.kept_tables"),
    };
    let audit = Audit { anchor_every: reader.duration("audit.anchor_every") };
    let export = Export::read(&mut reader);
    let directory = Directory {
        ttl: reader.duration("directory.ttl"),
        unannounced_ttl: reader.duration("directory.unannounced_ttl"),
        max_entries: reader.integer("directory.max_entries", 1..=i64::from(u16::MAX)),
    };
    let replicas = Replicas::read(&mut reader, &database);
    let migrations = migrations(&mut reader);
    let init = Init {
        superuser_url: reader.url("init.superuser_url"),
        dump_roles: reader.list("init.dump_roles"),
    };
    if lanes_and_tiers_read {
        lane_rules(&mut problems, &lanes, &tiers);
    }
    tier_rules(&mut problems, &tiers, &tenants);
    match roles {
        Some(roles) if problems.is_empty() => Ok(Config {
            database,
            roles,
            lanes,
            tiers,
            tenants,
            erasure,
            audit,
            export,
            directory,
            replicas,
            migrations,
            init,
            layers,
        }),
        _ => Err(Error::Config { problems }),
    }
}

fn database(reader: &mut Reader<'_>) -> Database {
    Database {
        url: reader.url("database.url"),
        direct_url: reader.url("database.direct_url"),
        replica_urls: reader.urls("database.replica_urls"),
        replica_direct_urls: reader.urls("database.replica_direct_urls"),
        connect_timeout: reader.duration("database.connect_timeout"),
        acquire_timeout: reader.duration("database.acquire_timeout"),
        direct_connections: reader.integer("database.direct_connections", 1..=100).into(),
    }
}

fn migrations(reader: &mut Reader<'_>) -> Migrations {
    let waves = reader.list("migrations.waves");
    if waves.is_empty() {
        reader.problem("migrations.waves", "needs at least one wave, such as \"100%\"");
    }
    let portion = |wave: &String| reader.parsed("migrations.waves", wave, str::parse::<Portion>);
    Migrations {
        waves: waves.iter().filter_map(portion).collect(),
        dir: reader.path("migrations.dir"),
        lock_timeout: reader.duration("migrations.lock_timeout"),
        statement_timeout: reader.duration("migrations.statement_timeout"),
        parallel: reader.integer("migrations.parallel", 1..=64),
        retries: reader.integer("migrations.retries", 0..=100),
        plain_index_up_to_mib: reader.integer("migrations.plain_index_up_to_mib", 0..=65_535),
    }
}

fn lanes(reader: &mut Reader<'_>) -> Lanes {
    let count = reader.integer("lanes.count", 1..=i64::from(LaneId::COUNT));
    let text = reader.text("lanes.secret");
    let secret = (!text.is_empty()).then(|| Secret::new(text)).and_then(|key| {
        let secret = LaneSecret::new(key);
        if secret.is_none() {
            let rule = format!("needs at least {} characters", LaneSecret::MIN_CHARS);
            reader.problem("lanes.secret", &rule);
        }
        secret
    });
    Lanes {
        count: u8::try_from(count).unwrap_or(LaneId::COUNT),
        pool_size: reader.integer("lanes.pool_size", 1..=1000),
        server_connections: reader.integer("lanes.server_connections", 1..=10_000),
        settle_timeout: reader.duration("lanes.settle_timeout"),
        secret,
    }
}

fn tiers(reader: &mut Reader<'_>) -> BTreeMap<String, Tier> {
    let names = reader.layers.entries("tiers");
    names
        .into_iter()
        .map(|name| {
            let key = |field: &str| format!("tiers.{name}.{field}");
            let tier = Tier {
                slots: reader.integer(&key("slots"), 1..=1000),
                slot_timeout: reader.duration(&key("slot_timeout")),
                statement_timeout: reader.duration(&key("statement_timeout")),
                idle_timeout: reader.duration(&key("idle_timeout")),
                retention: reader.optional_retention(&key("retention")),
            };
            (name, tier)
        })
        .collect()
}

/// Both are measured ones: ADR 2 has the numbers.
pub(super) fn lane_rules(
    problems: &mut Vec<String>,
    lanes: &Lanes,
    tiers: &BTreeMap<String, Tier>,
) {
    let wanted = u32::from(lanes.count) * u32::from(lanes.pool_size);
    if wanted > u32::from(lanes.server_connections) {
        problems.push(format!(
            "`lanes.count` × `lanes.pool_size` = {} × {} = {wanted} is over the budget \
             `lanes.server_connections` = {}: lower one of the first two or raise the budget",
            lanes.count, lanes.pool_size, lanes.server_connections
        ));
    }
    if let Some((name, tier)) = tiers.iter().max_by_key(|(_, tier)| tier.slots)
        && tier.slots >= lanes.pool_size
    {
        problems.push(format!(
            "`tiers.{name}.slots` = {} must be below `lanes.pool_size` = {}: otherwise one tenant \
             can fill its lane",
            tier.slots, lanes.pool_size
        ));
    }
}

fn tier_rules(problems: &mut Vec<String>, tiers: &BTreeMap<String, Tier>, tenants: &Tenants) {
    for name in tiers.keys() {
        if name.len() > 50 {
            problems.push(format!("`tiers.{name}`: a tier's name has at most 50 bytes"));
        }
    }
    if !tiers.contains_key(&tenants.default_tier) {
        let known: Vec<_> = tiers.keys().map(|name| format!("`{name}`")).collect();
        problems.push(format!(
            "`tenants.default_tier` = `{}` is not a tier: there are {}",
            tenants.default_tier,
            known.join(", ")
        ));
    }
}

/// Reads settings one by one and goes on after a bad one, so that all problems come at once. What
/// it hands back for a bad one is never used.
#[derive(Debug)]
pub struct Reader<'a> {
    layers: &'a Layers,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    pub(super) fn run<T>(
        layers: &Layers,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Result<T, Error> {
        let mut problems = Vec::new();
        let read = read(&mut Reader { layers, problems: &mut problems });
        if problems.is_empty() { Ok(read) } else { Err(Error::Config { problems }) }
    }

    /// Reports that a setting breaks a rule; `rule` follows its name, as in «must be …».
    pub fn problem(&mut self, key: &str, rule: &str) {
        let origin = self.layers.get(key).origin;
        self.problems.push(format!("`{key}` {rule} (from {origin})"));
    }

    /// Text.
    pub fn text(&mut self, key: &str) -> String {
        match self.layers.get(key).value {
            Value::String(text) => text,
            other => {
                self.problem(key, &format!("takes text in quotes, not {}", kind(&other)));
                String::new()
            }
        }
    }

    fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(text).map_err(|e| self.problem(key, &format!("can't be used: {e}"))).ok()
    }

    /// A whole number in a range.
    pub fn integer(&mut self, key: &str, range: RangeInclusive<i64>) -> u16 {
        let rule = format!("takes a whole number from {} to {}", range.start(), range.end());
        match self.layers.get(key).value {
            Value::Integer(number) if range.contains(&number) => {
                u16::try_from(number).unwrap_or(u16::MAX)
            }
            _ => {
                self.problem(key, &rule);
                1
            }
        }
    }

    /// Yes or no.
    pub fn truth(&mut self, key: &str) -> bool {
        match self.layers.get(key).value {
            Value::Boolean(truth) => truth,
            _ => {
                self.problem(key, "takes true or false, without quotes");
                false
            }
        }
    }

    /// A list of texts.
    pub fn list(&mut self, key: &str) -> Vec<String> {
        let all_text = |items: Vec<Value>| {
            items
                .into_iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        };
        let Value::Array(items) = self.layers.get(key).value else {
            self.problem(key, "takes a list such as [\"a\", \"b\"]");
            return Vec::new();
        };
        all_text(items).unwrap_or_else(|| {
            self.problem(key, "takes a list of texts in quotes");
            Vec::new()
        })
    }

    /// A duration above zero, in milliseconds at least.
    pub fn duration(&mut self, key: &str) -> Duration {
        let text = self.text(key);
        let parsed = text.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        // PostgreSQL takes 0 for «no limit», and milliseconds in 32 bits.
        match parsed.filter(|d| (1..=i32::MAX as u128).contains(&d.as_millis())) {
            Some(duration) => duration,
            None => {
                self.problem(
                    key,
                    "takes a duration above zero such as \"30s\", \"5min\" or \"1h\"",
                );
                Duration::from_secs(1)
            }
        }
    }

    /// A duration that may be empty.
    pub(super) fn optional_duration(&mut self, key: &str) -> Option<Duration> {
        if self.text(key).is_empty() { None } else { Some(self.duration(key)) }
    }

    /// A duration of up to ten years, and of days, too; none for a bad one.
    pub fn retention(&mut self, key: &str) -> Option<Duration> {
        let text = self.text(key);
        parse_retention(&text).map_err(|rule| self.problem(key, &rule)).ok()
    }

    /// As [`retention`](Self::retention), but it may be empty.
    pub fn optional_retention(&mut self, key: &str) -> Option<Duration> {
        if self.text(key).is_empty() { None } else { self.retention(key) }
    }

    /// A path; none if it is empty.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key);
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn url(&mut self, key: &str) -> Option<tokio_postgres::Config> {
        let text = self.text(key);
        if text.is_empty() { None } else { self.connection(key, &text) }
    }

    fn urls(&mut self, key: &str) -> Vec<tokio_postgres::Config> {
        let texts = self.list(key);
        texts.iter().filter_map(|text| self.connection(key, text)).collect()
    }

    fn connection(&mut self, key: &str, text: &str) -> Option<tokio_postgres::Config> {
        const FORM: &str = "postgresql://user:password@host:port/database";
        // The parser's own words may repeat the text, and with it a password.
        let Ok(config) = text.parse::<tokio_postgres::Config>() else {
            self.problem(key, &format!("is not a connection URL of the form `{FORM}`"));
            return None;
        };
        let problem = if config.get_hosts().len() != 1 {
            Some(
                "must name exactly one host: with several, a check may ask another server than the query",
            )
        } else if config.get_dbname().is_none_or(str::is_empty) {
            Some("names no database")
        } else {
            None
        };
        match problem {
            Some(rule) => {
                self.problem(key, rule);
                None
            }
            None => Some(config),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}
