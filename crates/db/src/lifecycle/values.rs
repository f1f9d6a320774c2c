//! What a tenant may be called and have: the rules that creating and changing one share. Each collects
//! its complaint and goes on, so that all of them come at once.

use serde_json::{Map, Value};

use crate::config::Config;
use crate::ids::{Subdomain, excerpt, is_invisible};

const MAX_NAME_CHARS: usize = 255;
const MAX_SETTINGS_BYTES: usize = 64 * 1024;

pub(super) fn name(name: &str, problems: &mut Vec<String>) -> Option<String> {
    let name = name.trim();
    let problem = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.chars().count() > MAX_NAME_CHARS {
        format!("the name is longer than {MAX_NAME_CHARS} characters")
    } else if name.chars().any(is_invisible) {
        "the name holds control or invisible characters".to_owned()
    } else {
        return Some(name.to_owned());
    };
    problems.push(problem);
    None
}

pub(super) fn subdomain(
    config: &Config,
    subdomain: &str,
    problems: &mut Vec<String>,
) -> Option<Subdomain> {
    let parsed = subdomain.parse::<Subdomain>().map_err(|e| problems.push(e.to_string())).ok();
    if config.tenants.reserved_subdomains.iter().any(|reserved| reserved == subdomain) {
        problems.push(format!("`{subdomain}` is not a usable subdomain: it is a reserved name"));
        return None;
    }
    parsed
}

pub(super) fn tier(config: &Config, tier: &str, problems: &mut Vec<String>) -> Option<String> {
    if config.tiers.contains_key(tier) {
        return Some(tier.to_owned());
    }
    let known: Vec<_> = config.tiers.keys().map(|known| format!("`{known}`")).collect();
    problems.push(format!("`{}` is not a tier: there are {}", excerpt(tier), known.join(", ")));
    None
}

pub(super) fn check_settings(settings: &Map<String, Value>, problems: &mut Vec<String>) {
    if Value::Object(settings.clone()).to_string().len() > MAX_SETTINGS_BYTES {
        problems.push(format!("settings are larger than {} KiB", MAX_SETTINGS_BYTES / 1024));
    }
    if settings.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)) {
        problems.push("settings hold a NUL character, which PostgreSQL does not store".to_owned());
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
