//! Which configuration file is read, and the one that `up` writes.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use tenantry_db::Config;
use tenantry_db::config::Layers;
use tenantry_stack::{Server, pooler_entry};
use toml_edit::{DocumentMut, Item, Table, value};

use crate::args::Common;
use crate::exit::{Exit, Failure};
use crate::output::say;

/// Where files are looked for, seen from the current directory.
const PLACES: &[&str] = &["tenantry.toml", ".tenantry/tenantry.toml"];

/// The name of the file that `up` writes into its data directory.
pub(crate) const IN_DATA_DIR: &str = "tenantry.toml";

/// Reads the configuration of servers that are to be connected to: defaults, file, environment.
pub(crate) fn load(common: &Common) -> anyhow::Result<Config> {
    Ok(Config::from_layers(installation_layers(common)?)?)
}

/// As [`load`], for flags to be laid over.
pub(crate) fn installation_layers(common: &Common) -> anyhow::Result<Layers> {
    let named = ["DATABASE_DIRECT_URL", "TENANTRY_DATABASE__DIRECT_URL"];
    if file(common)?.is_none() && named.iter().all(|name| std::env::var_os(name).is_none()) {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "no configuration: there is no `{}` here, and DATABASE_DIRECT_URL is not set",
                PLACES.join("` or `")
            ),
            "`tenantry up` starts servers for development and writes one; `--config` names another",
        )
        .into());
    }
    let layers = layers(common)?;
    for overridden in layers.overridden() {
        say(&format!("note: {overridden}"));
    }
    Ok(layers)
}

/// The layers below the flags.
pub(crate) fn layers(common: &Common) -> anyhow::Result<Layers> {
    let mut layers = Layers::defaults();
    if let Some(file) = file(common)? {
        layers = layers.file(&file)?;
    }
    Ok(layers.environment(variables()?))
}

/// The environment. A variable of ours that is not text is a mistake to be told of; others are not
/// ours to judge.
fn variables() -> anyhow::Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_))
                if ["TENANTRY_", "DATABASE_"].iter().any(|p| name.starts_with(p)) =>
            {
                let message = format!("the environment variable {name} is not valid UTF-8");
                return Err(Failure::new(Exit::Usage, message, "unset it or set it anew").into());
            }
            _ => {}
        }
    }
    Ok(variables)
}

/// The file that is read, if there is one.
pub(crate) fn file(common: &Common) -> anyhow::Result<Option<PathBuf>> {
    match &common.config {
        Some(file) if !file.exists() => Err(Failure::new(
            Exit::Usage,
            format!("there is no file `{}`", file.display()),
            "`--config` or TENANTRY_CONFIG names it",
        )
        .into()),
        Some(file) => Ok(Some(file.clone())),
        None => Ok(PLACES.iter().map(PathBuf::from).find(|place| place.exists())),
    }
}

/// What `up` decides of the configuration; everything else in the file stays as the user wrote it.
pub(crate) struct Decided {
    pub(crate) http_port: u16,
    pub(crate) postgres_port: u16,
    pub(crate) replica_ports: Vec<u16>,
    pub(crate) pgbouncer_port: u16,
    pub(crate) database: &'static str,
    pub(crate) lanes: Option<u8>,
    pub(crate) ready_pool: Option<u16>,
    /// The directory of the servers' sockets, where backups are made.
    pub(crate) backup_sockets: Option<PathBuf>,
}

/// Writes the file of a data directory, with secrets from the former one or new ones, readable by
/// its owner only.
pub(crate) fn write(path: &Path, decided: &Decided) -> anyhow::Result<()> {
    const HEADER: &str = "\
# Written by `tenantry up`, which renews the connection URLs and keeps everything else. It holds
# passwords. `tenantry config show --defaults` describes every setting.

";
    let shown = path.display();
    let former = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("can't read `{shown}`")),
    };
    let mut document: DocumentMut = former.parse().map_err(|_| {
        Failure::new(
            Exit::Usage,
            format!("`{shown}` is not TOML"),
            format!("`tenantry config check --config {shown}` shows the line"),
        )
    })?;
    if let Some(section) = no_section(&document) {
        return Err(Failure::new(
            Exit::Usage,
            format!("in `{shown}`, `{section}` is a value, but a section is expected"),
            format!("write `[{section}]` and its settings below it"),
        )
        .into());
    }
    decide(&mut document, decided)?;
    let header = if former.is_empty() { HEADER } else { "" };
    write_private(path, &format!("{header}{document}"))
        .with_context(|| format!("can't write `{shown}`"))
}

/// A name of the sections written here that stands for something else in the file.
fn no_section(document: &DocumentMut) -> Option<&'static str> {
    let other = |name: &&str| document.get(name).is_some_and(|item| !item.is_table_like());
    let ours = ["database", "lanes", "roles", "http", "auth", "erasure", "tenants", "backup"];
    ours.into_iter().find(other)
}

/// Puts what `up` decides into the file's text.
fn decide(document: &mut DocumentMut, decided: &Decided) -> anyhow::Result<()> {
    let former_admin = text(document, "database", "direct_url").and_then(|url| password_of(&url));
    let admin_password = former_admin.map_or_else(random, Ok)?;
    let Decided { http_port, postgres_port, replica_ports, pgbouncer_port, database, .. } = decided;
    let prefix = text(document, "roles", "prefix").unwrap_or_else(|| "tenantry".to_owned());
    let pooler = format!("postgresql://127.0.0.1:{pgbouncer_port}/{database}");
    let admin = format!(
        "postgresql://{prefix}_admin:{admin_password}@127.0.0.1:{postgres_port}/{database}"
    );
    let replicas = || (1..).map(Server::Replica).zip(replica_ports);
    let pooled: toml_edit::Array = replicas()
        .map(|(replica, _)| pooler_entry(database, replica))
        .map(|entry| format!("postgresql://127.0.0.1:{pgbouncer_port}/{entry}"))
        .collect();
    let direct: toml_edit::Array =
        replicas().map(|(_, port)| format!("postgresql://127.0.0.1:{port}/{database}")).collect();

    set(document, "database", "url", value(pooler));
    set(document, "database", "direct_url", value(admin));
    set(document, "database", "replica_urls", value(pooled));
    set(document, "database", "replica_direct_urls", value(direct));
    set(document, "http", "port", value(i64::from(*http_port)));
    // Beside the servers' data, and not in it: `up --reset` takes both, a restored database neither.
    if text(document, "erasure", "ledger_dir").is_none() {
        set(document, "erasure", "ledger_dir", value("erasure"));
    }
    // Tokens that are checked with public keys need no secret, and may not have one beside them.
    let public = ["public_key_file", "jwks_file", "jwks_url"];
    let public =
        public.iter().any(|key| text(document, "auth", key).is_some_and(|t| !t.is_empty()));
    for section in if public { &["lanes"][..] } else { &["lanes", "auth"] } {
        let former = text(document, section, "secret").filter(|secret| !secret.is_empty());
        let secret = former.map_or_else(random, Ok)?;
        set(document, section, "secret", value(secret));
    }
    if let Some(ready) = decided.ready_pool {
        set(document, "tenants", "ready_pool", value(i64::from(ready)));
    }
    decide_backups(document, decided.backup_sockets.as_deref())?;
    decided.lanes.map_or(Ok(()), |lanes| decide_lanes(document, lanes))
}

/// Where the server is, is ours to say. Where the backups go, how often and for how long, the user's.
fn decide_backups(document: &mut DocumentMut, sockets: Option<&Path>) -> anyhow::Result<()> {
    const BACKUP: &str = "backup";
    set(document, BACKUP, "enabled", value(sockets.is_some()));
    let Some(sockets) = sockets else { return Ok(()) };
    set(document, BACKUP, "local", value(true));
    for (key, place) in
        [("dir", "backup"), ("pg_data_dir", "primary"), ("pg_password_file", "backup/pgpass")]
    {
        set(document, BACKUP, key, value(place));
    }
    set(document, BACKUP, "pg_socket_dir", value(sockets.display().to_string()));
    set(document, BACKUP, "pg_user", value("postgres"));
    let bucket = document.get(BACKUP).and_then(|it| it.get("s3")?.get("bucket")?.as_str());
    let has_place = text(document, BACKUP, "repository").is_some() || bucket.is_some();
    if !has_place {
        set(document, BACKUP, "repository", value("backup/repository"));
        // Only with a repository of our own choice: another one may have a passphrase, or none, already.
        if text(document, BACKUP, "secret").is_none() {
            set(document, BACKUP, "secret", value(random()?));
        }
    }
    Ok(())
}

/// The budget follows the lanes: these servers are ours alone.
fn decide_lanes(document: &mut DocumentMut, lanes: u8) -> anyhow::Result<()> {
    let default_pool_size = i64::from(Config::from_layers(Layers::defaults())?.lanes.pool_size);
    set(document, "lanes", "count", value(i64::from(lanes)));
    let number = |key: &str| document.get("lanes")?.get(key)?.as_integer();
    let needed = i64::from(lanes) * number("pool_size").unwrap_or(default_pool_size);
    if needed > number("server_connections").unwrap_or(0) {
        set(document, "lanes", "server_connections", value(needed));
    }
    Ok(())
}

fn text(document: &DocumentMut, section: &str, key: &str) -> Option<String> {
    Some(document.get(section)?.get(key)?.as_str()?.to_owned())
}

fn set(document: &mut DocumentMut, section: &str, key: &str, value: Item) {
    let table = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
    table[key] = value;
}

fn password_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (login, _) = rest.rsplit_once('@')?;
    let (_, password) = login.split_once(':')?;
    Some(password.to_owned())
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("can't get random bytes: {e}"))?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Through a temporary file, so that a full disk leaves the former one as it was.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("toml.new");
    let _ = std::fs::remove_file(&temporary);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
