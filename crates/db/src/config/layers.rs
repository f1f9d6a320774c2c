//! Defaults, file, environment and flags, laid over each other with their origins kept.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::{Table, Value};

use crate::error::Error;

/// The manual: every key with its default.
pub const DEFAULTS: &str = include_str!("../../../../config.default.toml");

/// Sections whose entries the user names; any entry there has the shape of this one.
const OPEN_SECTIONS: &[(&str, &str)] = &[("tiers", "free")];

/// Settings that are paths: in a file they are meant from its directory.
const PATHS: &[&str] = &[
    "migrations.dir",
    "auth.public_key_file",
    "auth.jwks_file",
    "erasure.ledger_dir",
    "backup.dir",
    "backup.repository",
    "backup.pg_data_dir",
    "backup.pg_socket_dir",
    "backup.pg_password_file",
    "backup.s3.ca_file",
];

/// Environment variables that are understood under names of their own.
const KNOWN_VARIABLES: &[(&str, &str)] = &[
    ("DATABASE_URL", "database.url"),
    ("DATABASE_DIRECT_URL", "database.direct_url"),
    ("DATABASE_REPLICA_URLS", "database.replica_urls"),
    ("DATABASE_REPLICA_DIRECT_URLS", "database.replica_direct_urls"),
];

/// Settings by dotted key, each with the place it came from.
#[derive(Debug, Clone)]
pub struct Layers {
    defaults: BTreeMap<String, Value>,
    values: BTreeMap<String, Setting>,
    problems: Vec<String>,
    overridden: Vec<String>,
}

#[derive(Clone)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: String,
}

impl fmt::Debug for Setting {
    /// The origin only: the value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.origin)
    }
}

impl Layers {
    /// The defaults alone.
    pub fn defaults() -> Self {
        let table: Table = DEFAULTS.parse().expect("the embedded defaults are TOML");
        let defaults: BTreeMap<String, Value> = flatten(&table).into_iter().collect();
        let as_setting = |(key, value): (&String, &Value)| {
            (key.clone(), Setting { value: value.clone(), origin: "default".to_owned() })
        };
        let values = defaults.iter().map(as_setting).collect();
        Self { defaults, values, problems: Vec::new(), overridden: Vec::new() }
    }

    /// Lays a configuration file over what is there. Relative paths in it are meant from its
    /// directory.
    ///
    /// # Errors
    /// [`Error::Config`] if the file can't be read or is not TOML. Unknown keys are reported later,
    /// with everything else.
    pub fn file(mut self, path: &Path) -> Result<Self, Error> {
        const MAX_BYTES: u64 = 1024 * 1024;
        let shown = path.display();
        // A device or a pipe would be read for ever.
        let odd = std::fs::metadata(path).is_ok_and(|m| !m.is_file() || m.len() > MAX_BYTES);
        if odd {
            return Err(Error::config(format!("`{shown}` is not a file of at most 1 MiB")));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::config(format!("`{shown}` can't be read: {e}")))?;
        // The parser's own report shows the line it stumbled over, which may hold a secret.
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            Error::config(format!("`{shown}`, line {line}: {}", e.message()))
        })?;
        for (key, mut value) in flatten(&table) {
            if let (true, Value::String(text)) = (PATHS.contains(&key.as_str()), &mut value)
                && !text.is_empty()
            {
                *text = path.with_file_name(&*text).display().to_string();
            }
            self.set(&key, value, format!("`{shown}`"));
        }
        Ok(self)
    }

    /// Lays environment variables over what is there. Others than Tenantry's are ignored.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut ours: Vec<(String, String, String)> = Vec::new();
        for (name, text) in variables {
            if let Some((_, key)) = KNOWN_VARIABLES.iter().find(|(known, _)| *known == name) {
                ours.push((name, (*key).to_owned(), text));
            } else if let Some(path) = name.strip_prefix("TENANTRY_").filter(|p| p.contains("__")) {
                let key = path.to_lowercase().replace("__", ".");
                ours.push((name, key, text));
            } else if let Some(key) = self.misspelt(&name) {
                let right = format!("TENANTRY_{}", key.to_uppercase().replace('.', "__"));
                self.problems.push(format!("`{name}` is not a setting; did you mean `{right}`?"));
            }
        }
        // In this order TENANTRY_DATABASE__URL comes after DATABASE_URL, so the full name wins.
        ours.sort();
        for (name, key, text) in ours {
            let value = self.like_default(&key, text);
            if let Some(former) = self.values.get(&key).filter(|s| s.origin != "default") {
                self.overridden.push(format!("`{name}` overrides `{key}` from {}", former.origin));
            }
            self.set(&key, value, format!("`{name}`"));
        }
        self
    }

    /// What the environment took over from a file: people forget what their shell exports.
    pub fn overridden(&self) -> &[String] {
        &self.overridden
    }

    /// The setting that a variable must mean that has one underscore where two belong.
    fn misspelt(&self, variable: &str) -> Option<&str> {
        let meant = variable.strip_prefix("TENANTRY_")?.to_lowercase();
        self.defaults.keys().find(|key| key.replace('.', "_") == meant).map(String::as_str)
    }

    /// Lays one flag over what is there.
    #[must_use]
    pub fn flag(mut self, flag: &str, key: &str, value: impl Into<Value>) -> Self {
        self.set(key, value.into(), format!("`{flag}`"));
        self
    }

    /// Takes text from the environment for what the key's default is.
    fn like_default(&self, key: &str, text: String) -> Value {
        match self.shape(key) {
            Some(Value::Integer(_)) => text.parse().map_or(Value::String(text), Value::Integer),
            Some(Value::Boolean(_)) => text.parse().map_or(Value::String(text), Value::Boolean),
            Some(Value::Array(_)) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect::<Vec<_>>()
                .into(),
            _ => Value::String(text),
        }
    }

    fn set(&mut self, key: &str, value: Value, origin: String) {
        if self.shape(key).is_some() {
            self.values.insert(key.to_owned(), Setting { value, origin });
            return;
        }
        let nearest = self
            .values
            .keys()
            .map(|known| (strsim::damerau_levenshtein(known, key), known))
            .min()
            .filter(|(distance, _)| *distance <= 5)
            .map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"));
        let key = crate::ids::excerpt(key);
        self.problems.push(format!("`{key}` is not a setting ({origin}){nearest}"));
    }

    /// The default that tells what a key looks like: its own, or in a section whose entries the
    /// user names, that of the built-in entry.
    fn shape(&self, key: &str) -> Option<&Value> {
        self.defaults.get(key).or_else(|| {
            OPEN_SECTIONS.iter().find_map(|(section, example)| {
                let (name, field) =
                    key.strip_prefix(section)?.strip_prefix('.')?.split_once('.')?;
                let shape = self.defaults.get(&format!("{section}.{example}.{field}"));
                shape.filter(|_| !name.is_empty())
            })
        })
    }

    pub(super) fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    /// A setting; for an entry of the user's own that leaves a field out, the built-in entry's.
    pub(super) fn get(&self, key: &str) -> Setting {
        let default = || Setting {
            value: self.shape(key).expect("every key that is read has a default").clone(),
            origin: "default".to_owned(),
        };
        self.values.get(key).cloned().unwrap_or_else(default)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.values.iter().map(|(key, setting)| (key.as_str(), setting))
    }

    /// The names that the user or the defaults gave to the entries of an open section.
    pub(super) fn entries(&self, section: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .values
            .keys()
            .filter_map(|key| {
                Some(key.strip_prefix(section)?.strip_prefix('.')?.split_once('.')?.0.to_owned())
            })
            .collect();
        names.dedup();
        names
    }
}

fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                flat.extend(
                    flatten(inner).into_iter().map(|(rest, v)| (format!("{key}.{rest}"), v)),
                );
            }
            leaf => flat.push((key.clone(), leaf.clone())),
        }
    }
    flat
}
