//! Everything that can go wrong with backups, named for the caller.
//!
//! Owns what pgBackRest's exit codes mean. Refuses to carry secrets: pgBackRest hides its own.

mod meaning;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::wal::SegmentName;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a backup could not be made, looked at or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The installation has no backups.
    #[error("backups are not turned on")]
    Disabled,
    /// pgBackRest is not installed, or not where we look.
    #[error("`pgbackrest` not found")]
    MissingProgram,
    /// pgBackRest is older than what is needed.
    #[error("pgBackRest is version {found}, and {needed} or newer is needed")]
    UnsupportedVersion {
        /// Its own words.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// Another backup, or other work on the repository, is under way.
    #[error("another backup is under way")]
    Busy,
    /// The server does not answer pgBackRest.
    #[error("the server does not answer: {message}")]
    ServerAway {
        /// What pgBackRest said.
        message: String,
    },
    /// The server does not hand its log over, or not to this repository.
    #[error("the server does not archive its log here: {message}")]
    NotArchiving {
        /// What pgBackRest said.
        message: String,
    },
    /// The log did not reach the repository in time.
    #[error("the log did not reach the repository in time: {message}")]
    ArchiveTimeout {
        /// What pgBackRest said.
        message: String,
    },
    /// The repository has no room left.
    #[error("no space left in the repository: {message}")]
    RepositoryFull {
        /// What pgBackRest said.
        message: String,
    },
    /// The repository knows nothing of this server yet.
    #[error("the repository holds nothing of this server yet")]
    NoStanza,
    /// The repository can't be read: damaged, encrypted otherwise, or another server's.
    #[error("the repository can't be used: {message}")]
    Repository {
        /// What pgBackRest said.
        message: String,
    },
    /// These backups are not what they were, and no other one reaches the moment.
    #[error("damaged in the repository: backup `{}`; {message}", labels.join("`, `"))]
    DamagedBackup {
        /// Their names, in the order they were tried.
        labels: Vec<String>,
        /// What pgBackRest said of the last one.
        message: String,
    },
    /// A segment of the log is not what it was, or can't be had, and what was asked for lies behind it.
    #[error("segment `{segment}` of the log in the repository {fault}{}", reached(last.as_ref()))]
    BrokenLog {
        /// Its name.
        segment: SegmentName,
        /// What is wrong with it, as a verb phrase.
        fault: String,
        /// The last commit before it that the recovery came by, which can be restored to.
        last: Option<Timestamp>,
    },
    /// pgBackRest was told to end.
    #[error("`pgbackrest {command}` was ended")]
    Interrupted {
        /// Its command.
        command: &'static str,
    },
    /// pgBackRest failed for another reason.
    #[error("`pgbackrest {command}` failed ({how}){}", words(message))]
    Engine {
        /// Its command.
        command: &'static str,
        /// Its code, or how it ended.
        how: String,
        /// What it said.
        message: String,
    },
    /// pgBackRest said something that this program does not understand.
    #[error("can't understand what `pgbackrest {command}` says: {reason}")]
    Unintelligible {
        /// Its command.
        command: &'static str,
        /// What is odd.
        reason: String,
    },
    /// The operating system refused something.
    #[error("could not {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On which file, directory or program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory or file can't be had, or belongs to somebody else.
    #[error(transparent)]
    Place(#[from] tenantry_stack::Error),
    /// The moment was not given as one moment of the world's time.
    #[error("`{text}` is no moment that can be restored to: {reason}")]
    InvalidTime {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The moment lies where nothing can be recovered.
    #[error("{moment} can't be recovered: {reason}{}", in_lines(windows))]
    NotRecoverable {
        /// The moment.
        moment: String,
        /// Why not.
        reason: String,
        /// What can be recovered, each window in words.
        windows: Vec<String>,
    },
    /// Nothing was committed behind the moment, so nobody can tell whether it was reached.
    #[error("no commit behind {moment} is in the repository on timeline {timeline}{}", last_commit(last.as_ref()))]
    NothingBehind {
        /// The moment.
        moment: Timestamp,
        /// The timeline that it lies on.
        timeline: u32,
        /// The last commit of that timeline, which can be restored to.
        last: Option<Timestamp>,
    },
    /// The server runs, and its directory is to be replaced.
    #[error("the server in `{}` runs, as process {pid}", path.display())]
    ServerRuns {
        /// Its directory.
        path: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// There is something where the restored server is to be.
    #[error("`{}` is there, and not empty", path.display())]
    TargetTaken {
        /// The directory.
        path: PathBuf,
    },
    /// The restored server would lie in what is backed up, or in the backups.
    #[error("`{}` lies in `{}`, which holds the server or its backups", path.display(), inside.display())]
    TargetInside {
        /// The directory.
        path: PathBuf,
        /// What it lies in.
        inside: PathBuf,
    },
    /// The disk has too little room for the restored server.
    #[error("`{}` has {} MiB free, and {} MiB are needed", path.display(), free_bytes >> 20, needed_bytes >> 20)]
    NoRoom {
        /// A directory on the disk.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// The restored server does not recover, or not in time.
    #[error("the restored server did not recover")]
    NotRecovered(#[source] tenantry_stack::Error),
    /// The restored server could not be shown to be what was asked for. It was thrown away.
    #[error("the restored server is not what was asked for: {reason}")]
    Unproven {
        /// What is odd.
        reason: String,
    },
    /// The restored server has tenants that were erased, and not all of them could be erased again.
    #[error("the restored server has tenants that were erased: {}", left.join("; "))]
    StillErased {
        /// Each with why.
        left: Vec<String>,
    },
    /// The restored server could not be asked.
    #[error("could not {action} on the restored server")]
    Scratch {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// Why not.
        source: tokio_postgres::Error,
    },
    /// The installation's database, or its configuration.
    #[error(transparent)]
    Database(#[from] tenantry_db::Error),
}

fn in_lines(windows: &[String]) -> String {
    if windows.is_empty() {
        return "; there is no window of recoverability".to_owned();
    }
    format!("; every moment can be recovered between\n  {}", windows.join("\n  "))
}

fn last_commit(last: Option<&Timestamp>) -> String {
    last.map_or_else(String::new, |last| format!(", the last one was at {last}"))
}

fn reached(last: Option<&Timestamp>) -> String {
    last.map_or_else(String::new, |last| {
        format!("; the newest moment that can be reached before it is {last}")
    })
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    /// For `map_err`: the operating system's error while trying to `action` the `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// What an exit code of pgBackRest means. `message` is what it said.
    pub(crate) fn of_exit(command: &'static str, code: i32, message: String) -> Self {
        const CONFIG: i32 = 27;
        const FILE_READ: i32 = 42;
        const LOCK_ACQUIRE: i32 = 50;
        const FILE_MISSING: i32 = 55;
        const DB_CONNECT: i32 = 56;
        const TERM: i32 = 63;
        const ARCHIVE_COMMAND_INVALID: i32 = 68;
        const ARCHIVE_TIMEOUT: i32 = 82;
        const ARCHIVE_DISABLED: i32 = 87;
        const CRYPTO: i32 = 95;
        const FILE_INFO: i32 = 98;
        const REPOSITORY: [i32; 9] = [26, 28, 29, 44, 45, 51, CRYPTO, FILE_INFO, 103];
        let is_full =
            message.contains("No space left on device") || message.contains("Disk quota exceeded");
        // A restore writes elsewhere, and names the place.
        if is_full && command != "restore" {
            return Self::RepositoryFull { message: in_a_line(&message) };
        }
        // Hints tell one code's reasons apart, and are for whoever uses pgBackRest by itself.
        let (said, message) = (&message, in_a_line(&message));
        match code {
            LOCK_ACQUIRE => Self::Busy,
            DB_CONNECT => Self::ServerAway { message },
            CONFIG if said.contains("no database found") => Self::ServerAway { message },
            FILE_MISSING if said.contains("stanza-create") => Self::NoStanza,
            FILE_MISSING | FILE_READ if command == "restore" => Self::Repository { message },
            TERM => Self::Interrupted { command },
            ARCHIVE_COMMAND_INVALID | ARCHIVE_DISABLED => Self::NotArchiving { message },
            ARCHIVE_TIMEOUT => Self::ArchiveTimeout { message },
            code if REPOSITORY.contains(&code) => Self::Repository { message },
            code => Self::Engine { command, how: format!("code {code}"), message },
        }
    }
}

/// The first line of what pgBackRest says that is more than a note on one before, or the announcement of one that
/// follows; the rest repeats itself.
pub(crate) fn in_a_line(message: &str) -> String {
    let matters = |line: &&str| !line.contains("] on retry ") && !line.starts_with("HINT:");
    let lines = || message.lines().map(str::trim).filter(|line| !line.is_empty());
    let tells = |line: &&str| matters(line) && !line.ends_with(':');
    let line = lines().find(tells).or_else(|| lines().find(matters)).or_else(|| lines().next());
    line.unwrap_or_default().trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use tenantry_db::ErrorKind;

    use super::*;

    #[test]
    fn exit_codes_have_meanings() {
        let kind = |code, message: &str| Error::of_exit("backup", code, message.to_owned());
        assert!(matches!(kind(50, "unable to acquire lock"), Error::Busy));
        assert!(matches!(kind(56, "no"), Error::ServerAway { .. }));
        assert!(matches!(kind(27, "no database found"), Error::ServerAway { .. }));
        assert!(matches!(kind(27, "other"), Error::Engine { .. }));
        assert!(matches!(kind(82, ""), Error::ArchiveTimeout { .. }));
        assert!(matches!(kind(68, ""), Error::NotArchiving { .. }));
        assert!(matches!(kind(64, "No space left on device"), Error::RepositoryFull { .. }));
        let restore =
            Error::of_exit("restore", 41, "'/x': [28] No space left on device".to_owned());
        assert!(matches!(restore, Error::Engine { .. }), "{restore:?}");
        assert!(matches!(kind(95, "unable to flush"), Error::Repository { .. }));
        let other = kind(41, "unable to open file");
        assert_eq!(other.to_string(), "`pgbackrest backup` failed (code 41): unable to open file");
        assert_eq!(kind(50, "").kind(), ErrorKind::Busy);
        assert!(matches!(
            kind(55, "x\nHINT: has a stanza-create been performed?"),
            Error::NoStanza
        ));
        let several = kind(
            29,
            "[FormatError] on retry after 0ms\nzst error: bad:\n[FormatError] on retry after 9ms",
        );
        assert_eq!(several.to_string(), "the repository can't be used: zst error: bad");
    }
}
