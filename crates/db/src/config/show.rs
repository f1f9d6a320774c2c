//! The settings in effect, for people and scripts, with every secret hidden.

use std::fmt::Write as _;

use serde_json::json;
use toml::Value;

use super::Layers;

pub(super) fn text(layers: &Layers) -> String {
    let mut text = String::new();
    let mut open_section = String::new();
    for (key, setting) in layers.all() {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        if section != open_section {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
            section.clone_into(&mut open_section);
        }
        let value = hidden(key, setting.value.clone());
        let _ = match setting.origin.as_str() {
            "default" => writeln!(text, "{name} = {value}"),
            origin => writeln!(text, "{name} = {value}  # from {origin}"),
        };
    }
    text
}

pub(super) fn json(layers: &Layers) -> serde_json::Value {
    let entry = |(key, setting): (&str, &super::layers::Setting)| {
        let value = hidden(key, setting.value.clone());
        (key.to_owned(), json!({ "value": value, "origin": setting.origin.replace('`', "") }))
    };
    layers.all().map(entry).collect::<serde_json::Map<_, _>>().into()
}

fn hidden(key: &str, value: Value) -> Value {
    match value {
        Value::String(text) if key.ends_with("secret") && !text.is_empty() => "(hidden)".into(),
        Value::String(text) if key.ends_with("url") => without_password(&text).into(),
        Value::Array(items) if key.ends_with("urls") => {
            let shown = |item: Value| {
                item.as_str().map_or_else(|| item.clone(), |t| without_password(t).into())
            };
            items.into_iter().map(shown).collect::<Vec<Value>>().into()
        }
        other => other,
    }
}

/// A connection text reduced to what is surely no secret: a password may hide in more than one
/// place of it (`user:password@`, `?password=`, `password=…`).
fn without_password(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    match text.parse::<tokio_postgres::Config>() {
        Ok(config) => {
            let host = match config.get_hosts().first() {
                Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
                Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
                None => String::new(),
            };
            let port = config.get_ports().first().map_or_else(String::new, |p| format!(":{p}"));
            let user = config.get_user().map_or_else(String::new, |u| format!("{u}@"));
            format!("postgresql://{user}{host}{port}/{}", config.get_dbname().unwrap_or_default())
        }
        // An address of another kind: what may be a secret stands before `@` or after `?`.
        Err(_) if text.starts_with("https://") && !text.contains(['@', '?']) => text.to_owned(),
        Err(_) => "(hidden)".to_owned(),
    }
}
