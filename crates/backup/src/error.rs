//! Everything that can go wrong with backups, named for the caller.
//!
//! Owns what pgBackRest's exit codes mean. Refuses to carry secrets: pgBackRest hides its own.

use std::io;
use std::path::{Path, PathBuf};

use tenantry_db::ErrorKind;

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
    /// The installation's database, or its configuration.
    #[error(transparent)]
    Database(#[from] tenantry_db::Error),
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    /// What the error means to somebody who does not know its details.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disabled => ErrorKind::Invalid,
            Self::Busy => ErrorKind::Busy,
            Self::ServerAway { .. } | Self::ArchiveTimeout { .. } => ErrorKind::Unavailable,
            Self::NoStanza => ErrorKind::NotFound,
            Self::UnsupportedVersion { .. } => ErrorKind::Refused,
            Self::MissingProgram
            | Self::NotArchiving { .. }
            | Self::RepositoryFull { .. }
            | Self::Repository { .. }
            | Self::Interrupted { .. }
            | Self::Engine { .. }
            | Self::Unintelligible { .. }
            | Self::Io { .. }
            | Self::Place(_) => ErrorKind::Internal,
            Self::Database(error) => error.kind(),
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Disabled => {
                "`tenantry up` makes backups unless it is given `--no-backup`; elsewhere set \
                 `backup.enabled` and the settings below it"
            }
            Self::MissingProgram => {
                "install it, on Debian and Ubuntu with `apt-get install pgbackrest`; `tenantry up \
                 --no-backup` does without"
            }
            Self::UnsupportedVersion { .. } => "upgrade it",
            Self::Busy => "wait for it to end, then try again",
            Self::ServerAway { .. } => {
                "is it running? `backup.pg_socket_dir`, `backup.pg_user` and the port in \
                 `database.direct_url` say where it is asked"
            }
            Self::NotArchiving { .. } => {
                "`tenantry backup check` prints the settings that the server needs"
            }
            Self::ArchiveTimeout { .. } => {
                "its log has lines of `archive_command` that say why; `tenantry backup check` tells \
                 whether it works again"
            }
            Self::RepositoryFull { .. } => {
                "make room there: WAL waits on the server's own disk meanwhile, and is sent on by itself"
            }
            Self::NoStanza => "the first backup makes what is missing: `tenantry backup run`",
            Self::Repository { .. } => {
                "is `backup.secret` the one that it was made with? `docs/runbooks/backup-repository.md` goes on"
            }
            Self::Place(error) => return error.hint(),
            Self::Database(error) => return error.hint(),
            Self::Interrupted { .. }
            | Self::Engine { .. }
            | Self::Unintelligible { .. }
            | Self::Io { .. } => return None,
        };
        Some(hint.to_owned())
    }

    /// For `map_err`: the operating system's error while trying to `action` the `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// What an exit code of pgBackRest means. `message` is what it said.
    pub(crate) fn of_exit(command: &'static str, code: i32, message: String) -> Self {
        const CONFIG: i32 = 27;
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
        if message.contains("No space left on device") || message.contains("Disk quota exceeded") {
            return Self::RepositoryFull { message };
        }
        match code {
            LOCK_ACQUIRE => Self::Busy,
            DB_CONNECT => Self::ServerAway { message },
            CONFIG if message.contains("no database found") => Self::ServerAway { message },
            FILE_MISSING if message.contains("stanza-create") => Self::NoStanza,
            TERM => Self::Interrupted { command },
            ARCHIVE_COMMAND_INVALID | ARCHIVE_DISABLED => Self::NotArchiving { message },
            ARCHIVE_TIMEOUT => Self::ArchiveTimeout { message },
            code if REPOSITORY.contains(&code) => Self::Repository { message },
            code => Self::Engine { command, how: format!("code {code}"), message },
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(kind(95, "unable to flush"), Error::Repository { .. }));
        let other = kind(41, "unable to open file");
        assert_eq!(other.to_string(), "`pgbackrest backup` failed (code 41): unable to open file");
        assert_eq!(kind(50, "").kind(), ErrorKind::Busy);
    }
}
