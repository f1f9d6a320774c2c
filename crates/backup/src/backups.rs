//! What pgBackRest says of a repository: `info --output=json`.
//!
//! Owns the reading of it. Refuses to believe its exit code, which is 0 for a damaged repository, too.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, in_a_line};
use crate::wal::{Lsn, SegmentName};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// Everything.
    Full,
    /// What changed since the last full one.
    Diff,
    /// What changed since the last one of any kind.
    Incr,
}

impl BackupKind {
    /// pgBackRest's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Diff => "diff",
            Self::Incr => "incr",
        }
    }
}

/// One backup.
#[derive(Debug, Clone, Serialize)]
pub struct Backup {
    /// Its name.
    pub label: String,
    /// What it holds.
    pub kind: BackupKind,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was complete: the earliest moment that it can be restored to.
    pub stopped_at: Timestamp,
    /// Bytes of the server's files.
    pub size_bytes: u64,
    /// Bytes that it added to the repository.
    pub repository_bytes: u64,
    /// Whether pages failed their checksums while they were copied.
    pub damaged: bool,
    /// Where in the log it begins and where it is consistent.
    #[serde(skip)]
    pub(crate) lsn: (Lsn, Lsn),
    /// The first and the last segment without which it can't be restored.
    #[serde(skip)]
    pub(crate) segments: (SegmentName, SegmentName),
    /// Which archive holds its log, as in `15-1`.
    #[serde(skip)]
    pub(crate) archive_id: String,
}

/// What the repository holds of this server.
#[derive(Debug, Clone)]
pub struct Repository {
    /// The backups, oldest first.
    pub backups: Vec<Backup>,
    /// The archives, oldest first: one, and a further one for each upgrade of the server.
    pub archive_ids: Vec<String>,
    /// Whether a backup is under way.
    pub is_busy: bool,
}

/// What `info` writes, as far as we need it.
#[derive(Deserialize)]
struct Stanza {
    name: String,
    #[serde(default)]
    archive: Vec<ArchiveEntry>,
    #[serde(default)]
    backup: Vec<BackupEntry>,
    status: Status,
    #[serde(default)]
    repo: Vec<RepoEntry>,
}

#[derive(Deserialize)]
struct RepoEntry {
    status: Status,
}

#[derive(Deserialize)]
struct ArchiveEntry {
    id: String,
    database: DatabaseId,
}

#[derive(Deserialize, PartialEq)]
struct DatabaseId {
    id: u64,
    #[serde(rename = "repo-key")]
    repo_key: u64,
}

#[derive(Deserialize)]
struct BackupEntry {
    label: String,
    #[serde(rename = "type")]
    kind: BackupKind,
    timestamp: Span<i64>,
    lsn: Span<String>,
    archive: Span<String>,
    database: DatabaseId,
    info: Sizes,
    #[serde(default)]
    error: bool,
}

#[derive(Deserialize)]
struct Span<T> {
    start: T,
    stop: T,
}

#[derive(Deserialize)]
struct Sizes {
    size: u64,
    repository: RepositorySizes,
}

#[derive(Deserialize)]
struct RepositorySizes {
    delta: u64,
}

#[derive(Deserialize)]
struct Status {
    code: i64,
    message: String,
    #[serde(default)]
    lock: Option<Locks>,
}

#[derive(Deserialize)]
struct Locks {
    backup: Lock,
}

#[derive(Deserialize)]
struct Lock {
    held: bool,
}

const OK: i64 = 0;
/// The stanza's directory is missing, or its files are.
const NOTHING_YET: [i64; 2] = [1, 3];
/// Made, and without a backup.
const NO_BACKUP: i64 = 2;

impl Repository {
    /// Reads `info --output=json`.
    pub(crate) fn parse(text: &str, stanza: &str) -> Result<Self> {
        let odd = |reason: String| Error::Unintelligible { command: "info", reason };
        // It quotes what it could not decrypt as it is. Between the values a space means nothing.
        let text = text.replace(char::is_control, " ");
        let all: Vec<Stanza> = serde_json::from_str(&text).map_err(|e| odd(e.to_string()))?;
        let found = all.into_iter().find(|it| it.name == stanza).ok_or(Error::NoStanza)?;
        // With several repositories the stanza's status is «mixed»; ours has one.
        let status = found.repo.first().map_or(&found.status, |repo| &repo.status);
        match status.code {
            OK | NO_BACKUP => {}
            code if NOTHING_YET.contains(&code) => return Err(Error::NoStanza),
            _ => return Err(Error::Repository { message: in_a_line(&status.message) }),
        }
        let archive_of = |database: &DatabaseId| {
            found.archive.iter().find(|it| it.database == *database).map(|it| it.id.clone())
        };
        let mut backups = Vec::new();
        for entry in &found.backup {
            let archive_id = archive_of(&entry.database).unwrap_or_default();
            let label = entry.label.clone();
            let read = entry.read(archive_id);
            backups.push(read.ok_or_else(|| odd(format!("the backup `{label}` has odd fields")))?);
        }
        backups.sort_by_key(|backup| backup.stopped_at);
        Ok(Self {
            backups,
            archive_ids: found.archive.into_iter().map(|it| it.id).collect(),
            is_busy: found.status.lock.is_some_and(|lock| lock.backup.held),
        })
    }

    /// One that nothing was copied to yet.
    pub(crate) fn empty() -> Self {
        Self { backups: Vec::new(), archive_ids: Vec::new(), is_busy: false }
    }

    /// The newest backup.
    pub fn newest(&self) -> Option<&Backup> {
        self.backups.last()
    }
}

impl BackupEntry {
    fn read(&self, archive_id: String) -> Option<Backup> {
        let time = |seconds: i64| Timestamp::from_second(seconds).ok();
        Some(Backup {
            label: self.label.clone(),
            kind: self.kind,
            started_at: time(self.timestamp.start)?,
            stopped_at: time(self.timestamp.stop)?,
            size_bytes: self.info.size,
            repository_bytes: self.info.repository.delta,
            damaged: self.error,
            lsn: (self.lsn.start.parse().ok()?, self.lsn.stop.parse().ok()?),
            segments: (self.archive.start.parse().ok()?, self.archive.stop.parse().ok()?),
            archive_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 2.45 writes it, shortened.
    const GOOD: &str = r#"[{"archive":[{"database":{"id":1,"repo-key":1},"id":"15-1","max":"000000010000000000000003","min":"000000010000000000000001"}],"backup":[{"archive":{"start":"000000010000000000000002","stop":"000000010000000000000003"},"backrest":{"format":5,"version":"2.45"},"database":{"id":1,"repo-key":1},"error":false,"info":{"delta":22992556,"repository":{"delta":2828352,"size":2828352},"size":22992556},"label":"20261124-142052F","lsn":{"start":"0/2000028","stop":"0/3000050"},"prior":null,"reference":null,"timestamp":{"start":1795530052,"stop":1795530054},"type":"full"}],"cipher":"aes-256-cbc","db":[{"id":1,"repo-key":1,"system-id":7711742841787471983,"version":"15"}],"name":"tenantry","repo":[{"cipher":"aes-256-cbc","key":1,"status":{"code":0,"message":"ok"}}],"status":{"code":0,"lock":{"backup":{"held":true}},"message":"ok"}}]"#;

    #[test]
    fn a_backup_is_read() {
        let repository = Repository::parse(GOOD, "tenantry").unwrap();
        let backup = repository.newest().unwrap();
        assert_eq!((backup.label.as_str(), backup.kind), ("20261124-142052F", BackupKind::Full));
        assert_eq!(backup.stopped_at.as_second(), 1_795_530_054);
        assert_eq!(backup.archive_id, "15-1");
        assert!(repository.is_busy && !backup.damaged);
    }

    #[test]
    fn a_repository_with_an_error_is_not_an_empty_one() {
        let status = |code: i64, message: &str| {
            format!(
                r#"[{{"archive":[],"backup":[],"name":"t","repo":[{{"status":{{"code":{code},"message":"{message}"}}}}],"status":{{"code":{code},"message":"x"}}}}]"#
            )
        };
        let parse = |code, message| Repository::parse(&status(code, message), "t");
        let error =
            parse(99, "[CryptoError] unable to load info file 'f':\\nHINT: more").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the repository can't be used: [CryptoError] unable to load info file 'f'"
        );
        let garbage = parse(99, "[FormatError] \u{1} \u{b} odd").unwrap_err();
        assert!(matches!(garbage, Error::Repository { .. }), "{garbage:?}");
        assert!(matches!(parse(1, "missing stanza path"), Err(Error::NoStanza)));
        assert!(parse(2, "no valid backups").unwrap().backups.is_empty());
        assert!(matches!(Repository::parse("[]", "t"), Err(Error::NoStanza)));
        assert!(matches!(Repository::parse("{", "t"), Err(Error::Unintelligible { .. })));
    }
}
