//! The section `[backup]`: where the server is, where the repository, how often and for how long.
//!
//! Owns the rules between its settings. Refuses values that pgBackRest's configuration can't express.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use tenantry_db::config::Reader;
use tenantry_db::{Config, Secret};

use crate::error::{Error, Result};

const DAY: Duration = Duration::from_secs(86_400);
const SECRET_MIN_CHARS: usize = 16;
const DEFAULT_PORT: u16 = 5432;

/// How the installation is backed up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether it is at all.
    pub enabled: bool,
    /// Whether the running service makes the backups itself.
    pub local: bool,
    /// pgBackRest's name for the server.
    pub stanza: String,
    /// Where the backups go.
    pub place: Place,
    /// What the repository is encrypted with.
    pub secret: Option<Secret>,
    /// Our own files: configuration, locks, what is remembered.
    pub dir: PathBuf,
    /// The server, as its own machine sees it.
    pub server: Server,
    /// How far back one can go, in days.
    pub retention_days: u16,
    /// How often everything is copied.
    pub full_every: Duration,
    /// How often the difference to that is, if ever.
    pub diff_every: Option<Duration>,
    /// How often it is looked whether all is well.
    pub check_every: Duration,
    /// How often the whole repository is read, if ever.
    pub verify_every: Option<Duration>,
    /// How often the newest backup is restored to a scratch server, if ever.
    pub drill_every: Option<Duration>,
    /// How long what a tenant had is kept when the tenant alone is taken back.
    pub keep_replaced: Duration,
    /// Where scratch servers lie.
    pub scratch_dir: PathBuf,
    /// zstd's level.
    pub compress_level: u16,
    /// Processes that compress and copy.
    pub process_max: u16,
    /// The share of free space below which a disk is warned of.
    pub free_space_percent: u16,
}

/// Where the repository lies.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a directory.
    Directory(PathBuf),
    /// In an S3 bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// The server.
        endpoint: String,
        /// The region.
        region: String,
        /// The path in the bucket.
        prefix: String,
        /// The access key.
        key: String,
        /// The secret to it.
        secret: Secret,
        /// Whether the bucket stands in the path.
        in_path: bool,
        /// Who vouches for the server.
        ca_file: Option<PathBuf>,
    },
}

/// The server, as its own machine sees it.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where its Unix socket is.
    pub socket_dir: PathBuf,
    /// Its port.
    pub port: u16,
    /// Whom pgBackRest logs in as.
    pub user: String,
    /// Where the password stands, if one is asked for.
    pub password_file: Option<PathBuf>,
}

/// As a difference of two moments has it.
pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Settings {
    /// How often at least there should be a new backup.
    pub(crate) fn interval(&self) -> SignedDuration {
        signed(self.diff_every.unwrap_or(self.full_every).min(self.full_every))
    }

    /// Reads the section.
    ///
    /// # Errors
    /// [`tenantry_db::Error::Config`] with every problem found. What is missing is a problem only where the
    /// backups are made by the service itself.
    pub fn from_config(config: &Config) -> Result<Self> {
        Self::read(config, false)
    }

    /// As [`from_config`](Self::from_config), for work on the database's host.
    ///
    /// # Errors
    /// Also [`Error::Disabled`] where backups are not turned on, and whatever is missing.
    pub fn of_host(config: &Config) -> Result<Self> {
        let settings = Self::read(config, true)?;
        if settings.enabled { Ok(settings) } else { Err(Error::Disabled) }
    }

    fn read(config: &Config, on_host: bool) -> Result<Self> {
        let port = config.database.direct().ok().and_then(|url| url.get_ports().first().copied());
        Ok(config.section(|reader| read(reader, port.unwrap_or(DEFAULT_PORT), on_host))?)
    }
}

fn read(reader: &mut Reader<'_>, port: u16, on_host: bool) -> Settings {
    let (enabled, local) = (reader.truth("backup.enabled"), reader.truth("backup.local"));
    let is_needed = enabled && (local || on_host);
    let mut settings = Settings {
        enabled,
        local,
        stanza: stanza(reader),
        place: place(reader, is_needed),
        secret: secret(reader),
        dir: absolute(reader, "backup.dir"),
        server: Server {
            data_dir: absolute(reader, "backup.pg_data_dir"),
            socket_dir: absolute(reader, "backup.pg_socket_dir"),
            port,
            user: line(reader, "backup.pg_user"),
            password_file: some(absolute(reader, "backup.pg_password_file")),
        },
        retention_days: retention_days(reader),
        full_every: interval(reader, "backup.full_every").unwrap_or(DAY),
        diff_every: interval(reader, "backup.diff_every"),
        check_every: reader.duration("backup.check_every"),
        verify_every: interval(reader, "backup.verify_every"),
        drill_every: interval(reader, "backup.drill_every"),
        keep_replaced: reader.retention("backup.keep_replaced").unwrap_or(DAY),
        scratch_dir: absolute(reader, "backup.scratch_dir"),
        compress_level: reader.integer("backup.compress_level", 1..=19),
        process_max: reader.integer("backup.process_max", 1..=128),
        free_space_percent: reader.integer("backup.free_space_percent", 1..=90),
    };
    if settings.scratch_dir.as_os_str().is_empty() {
        settings.scratch_dir = settings.dir.join("scratch");
    }
    rules(reader, &settings, is_needed);
    settings
}

fn rules(reader: &mut Reader<'_>, settings: &Settings, is_needed: bool) {
    if reader.text("backup.full_every").is_empty() {
        reader.problem("backup.full_every", "must not be empty");
    }
    if settings.diff_every.is_some_and(|every| every >= settings.full_every) {
        reader.problem("backup.diff_every", "must be shorter than `backup.full_every`");
    }
    if !is_needed {
        return;
    }
    let Settings { dir, server, .. } = settings;
    for (key, path) in [("backup.dir", dir), ("backup.pg_data_dir", &server.data_dir)] {
        if path.as_os_str().is_empty() {
            reader.problem(key, "must be set on the host where backups are made");
        }
    }
    let data_dir = &server.data_dir;
    let inside = |path: &Path| !data_dir.as_os_str().is_empty() && path.starts_with(data_dir);
    if inside(&settings.scratch_dir) {
        reader.problem("backup.scratch_dir", "must not lie in `backup.pg_data_dir`");
    }
    if inside(dir) {
        reader.problem("backup.dir", "must not lie in `backup.pg_data_dir`");
    }
    if let Place::Directory(repository) = &settings.place
        && inside(repository)
    {
        reader.problem("backup.repository", "must not lie in `backup.pg_data_dir`");
    }
}

fn stanza(reader: &mut Reader<'_>) -> String {
    let text = reader.text("backup.stanza");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.is_empty() || text.len() > 63 || !text.chars().all(plain) {
        reader.problem("backup.stanza", "takes 1 to 63 letters, digits, `_` or `-`");
    }
    text
}

fn place(reader: &mut Reader<'_>, is_needed: bool) -> Place {
    let directory = absolute(reader, "backup.repository");
    let bucket = line(reader, "backup.s3.bucket");
    let in_path = match reader.text("backup.s3.uri_style").as_str() {
        "host" => false,
        "path" => true,
        _ => {
            reader.problem("backup.s3.uri_style", "takes \"host\" or \"path\"");
            false
        }
    };
    if bucket.is_empty() {
        if is_needed && directory.as_os_str().is_empty() {
            reader.problem("backup.repository", "must be set, or `backup.s3.bucket`");
        }
        return Place::Directory(directory);
    }
    if !directory.as_os_str().is_empty() {
        reader.problem("backup.repository", "can't stand beside `backup.s3.bucket`");
    }
    let mut needed = |key: &str| {
        let text = line(reader, key);
        if text.is_empty() {
            reader.problem(key, "must be set where `backup.s3.bucket` is");
        }
        text
    };
    let (endpoint, region) = (needed("backup.s3.endpoint"), needed("backup.s3.region"));
    let (key, secret) = (needed("backup.s3.key"), Secret::new(needed("backup.s3.secret")));
    let prefix = line(reader, "backup.s3.prefix");
    if !prefix.starts_with('/') {
        reader.problem("backup.s3.prefix", "must begin with `/`");
    }
    let ca_file = some(absolute(reader, "backup.s3.ca_file"));
    Place::S3 { bucket, endpoint, region, prefix, key, secret, in_path, ca_file }
}

fn secret(reader: &mut Reader<'_>) -> Option<Secret> {
    let text = line(reader, "backup.secret");
    if !text.is_empty() && text.chars().count() < SECRET_MIN_CHARS {
        let rule = format!("needs at least {SECRET_MIN_CHARS} characters");
        reader.problem("backup.secret", &rule);
    }
    (!text.is_empty()).then(|| Secret::new(text))
}

/// A path that stands for itself, whatever directory we are in.
fn absolute(reader: &mut Reader<'_>, key: &str) -> PathBuf {
    let text = line(reader, key);
    if text.is_empty() {
        return PathBuf::new();
    }
    match std::path::absolute(&text) {
        // The server's user may not pass through a link that lies in somebody's project.
        Ok(path) => tenantry_stack::canonical(&path).unwrap_or(path),
        Err(_) => {
            reader.problem(key, "takes a path");
            PathBuf::new()
        }
    }
}

fn some(path: PathBuf) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then_some(path)
}

/// A value that stays on its line of pgBackRest's file, and is read there as it was written.
fn line(reader: &mut Reader<'_>, key: &str) -> String {
    let text = reader.text(key);
    if text.contains(char::is_control) || text.trim() != text {
        reader.problem(key, "must not have line breaks, or spaces at its ends");
    }
    text
}

fn retention_days(reader: &mut Reader<'_>) -> u16 {
    const KEY: &str = "backup.retention";
    let length = reader.retention(KEY).unwrap_or(DAY);
    let days = length.as_secs() / DAY.as_secs();
    if length.subsec_nanos() != 0
        || !length.as_secs().is_multiple_of(DAY.as_secs())
        || days == 0
        || days > 3650
    {
        reader.problem(KEY, "takes whole days, from \"1day\" to \"3650days\"");
    }
    u16::try_from(days).unwrap_or(1)
}

/// How often something is done: a minute at least; empty for never.
fn interval(reader: &mut Reader<'_>, key: &str) -> Option<Duration> {
    let every = reader.optional_retention(key)?;
    if every < Duration::from_secs(60) {
        reader.problem(key, "must be a minute at least");
    }
    Some(every)
}

#[cfg(test)]
mod tests {
    use tenantry_db::config::Layers;

    use super::*;

    fn read(changes: &[(&str, &str)]) -> Result<Settings> {
        let layers = changes
            .iter()
            .fold(Layers::defaults(), |layers, (key, value)| layers.flag("test", key, *value));
        Settings::from_config(&Config::from_layers(layers)?)
    }

    fn enabled(changes: &[(&str, &str)]) -> Result<Settings> {
        let layers = changes.iter().fold(
            Layers::defaults().flag("test", "backup.enabled", true),
            |layers, (key, value)| layers.flag("test", key, *value),
        );
        Settings::of_host(&Config::from_layers(layers)?)
    }

    #[test]
    fn the_defaults_are_right_and_off() {
        let settings = read(&[]).unwrap();
        assert!(!settings.enabled && !settings.local);
        assert_eq!(settings.retention_days, 14);
        assert_eq!((settings.full_every, settings.diff_every), (DAY, None));
        let config = Config::from_layers(Layers::defaults()).unwrap();
        assert!(matches!(Settings::of_host(&config), Err(Error::Disabled)));
    }

    #[test]
    fn what_is_missing_is_named_once_they_are_on() {
        let error = enabled(&[]).unwrap_err().to_string();
        for key in ["backup.repository", "backup.pg_data_dir"] {
            assert!(error.contains(key), "{error}");
        }
        let both = [("backup.repository", "/r"), ("backup.pg_data_dir", "/pg")];
        enabled(&both).unwrap();
    }

    #[test]
    fn contradictions_are_refused_together_and_no_secret_is_shown() {
        let error = enabled(&[
            ("backup.repository", "/pg/r"),
            ("backup.pg_data_dir", "/pg"),
            ("backup.s3.bucket", "b"),
            ("backup.s3.secret", "hunter2"),
            ("backup.s3.prefix", "p"),
            ("backup.retention", "36h"),
            ("backup.diff_every", "2days"),
            ("backup.secret", "tiny-one"),
            ("backup.stanza", "a b"),
            ("backup.dir", "/x\ny"),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "`backup.repository` can't stand beside `backup.s3.bucket`",
            "`backup.s3.endpoint` must be set",
            "`backup.s3.prefix` must begin with `/`",
            "`backup.retention` takes whole days",
            "`backup.diff_every` must be shorter",
            "`backup.secret` needs at least 16",
            "`backup.stanza` takes",
            "`backup.dir` must not have line breaks",
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
        assert!(!error.contains("hunter2") && !error.contains("tiny-one"), "{error}");
        let inside = [("backup.repository", "/pg/r"), ("backup.pg_data_dir", "/pg")];
        assert!(enabled(&inside).unwrap_err().to_string().contains("must not lie in"));
    }
}
