//! pgBackRest's configuration file, rendered from ours.
//!
//! Owns its options. Refuses to log into files of its own: what it says is read here, and told.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::settings::{Place, Settings};

/// Where things lie in `backup.dir`.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.root.join("pgbackrest.conf")
    }

    /// pgBackRest's default is shared by all servers of a machine.
    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Held by whoever decides about backups.
    pub(crate) fn schedule_lock(&self) -> PathBuf {
        self.root.join("schedule.lock")
    }

    /// How the last drill ended.
    pub(crate) fn drilled(&self) -> PathBuf {
        self.root.join("drilled.json")
    }

    /// How the last `verify` ended.
    pub(crate) fn verified(&self) -> PathBuf {
        self.root.join("verified.json")
    }
}

/// The file's text. It holds the secrets.
pub(crate) fn render(settings: &Settings, layout: &Layout) -> String {
    let mut text = String::from("# Written by tenantry; changes here are lost.\n[global]\n");
    let mut put = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{key}={value}");
    };
    match &settings.place {
        Place::Directory(path) => put("repo1-path", &path.display()),
        Place::S3 { bucket, endpoint, region, prefix, key, secret, in_path, ca_file } => {
            put("repo1-type", &"s3");
            put("repo1-path", prefix);
            put("repo1-s3-bucket", bucket);
            put("repo1-s3-endpoint", endpoint);
            put("repo1-s3-region", region);
            put("repo1-s3-key", key);
            put("repo1-s3-key-secret", &secret.expose());
            put("repo1-s3-uri-style", &if *in_path { "path" } else { "host" });
            if let Some(file) = ca_file {
                put("repo1-storage-ca-file", &file.display());
            }
        }
    }
    if let Some(secret) = &settings.secret {
        put("repo1-cipher-type", &"aes-256-cbc");
        put("repo1-cipher-pass", &secret.expose());
    }
    put("repo1-retention-full-type", &"time");
    put("repo1-retention-full", &settings.retention_days);
    // Thousands of small files, nine tables for each tenant, are one object.
    put("repo1-bundle", &"y");
    put("compress-type", &"zst");
    put("compress-level", &settings.compress_level);
    put("process-max", &settings.process_max);
    put("start-fast", &"y");
    // A queue limit would drop WAL, and `archived_count` would go on rising.
    put("archive-async", &"n");
    put("lock-path", &layout.locks().display());
    put("log-level-file", &"off");
    put("log-level-console", &"off");
    put("log-timestamp", &"n");
    let server = &settings.server;
    let _ = writeln!(text, "\n[{}]", settings.stanza);
    let _ = writeln!(text, "pg1-path={}", server.data_dir.display());
    let _ = writeln!(text, "pg1-socket-path={}", server.socket_dir.display());
    let _ = writeln!(text, "pg1-port={}", server.port);
    let _ = writeln!(text, "pg1-user={}", server.user);
    text
}

/// A word for `sh`, which PostgreSQL runs `archive_command` with. `%` has a meaning to PostgreSQL itself.
pub(crate) fn shell_word(text: &str) -> String {
    let text = text.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_to_the_shell_and_to_postgresql() {
        assert_eq!(shell_word("/a/b-c.conf"), "/a/b-c.conf");
        assert_eq!(shell_word("/a b/it's %p"), r"'/a b/it'\''s %%p'");
        assert_eq!(shell_word("/a;reboot"), "'/a;reboot'");
    }
}
