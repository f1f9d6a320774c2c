//! What an error means to somebody who does not know its details, and what to do about it.

use jiff::Timestamp;
use tenantry_db::ErrorKind;

use super::Error;

/// What can be had where nothing is behind a moment. `now` may be on another timeline.
fn instead(last: Option<Timestamp>, timeline: u32) -> String {
    match last {
        Some(last) => format!("`--to {last}` restores everything that timeline {timeline} has"),
        None => "nothing was committed there since the backup; `tenantry backup list` shows the other windows"
            .to_owned(),
    }
}

const DAMAGED: &str = "no other backup reaches this moment: restore to one in a window of `tenantry backup list` that \
     an older backup has, and see docs/runbooks/backup-repository.md for what is damaged";
const BROKEN_LOG: &str = "nothing was changed; `--to` that moment restores everything before the segment. A later \
     moment can be had once a backup is behind it: see `tenantry backup list`, and \
     docs/runbooks/backup-repository.md for what is damaged";
const NO_ROOM: &str = "make room there. A copy of the server can be made on another disk: `backup restore` with \
     `--target-dir` (without it the old directory is kept, so there must be room for two), `restore-tenant` and drills \
     with `backup.scratch_dir`";
const UNPROVEN: &str = "nothing was changed; `tenantry backup list` shows the timelines, `tenantry backup check \
     --verify` whether the repository is whole";

impl Error {
    /// What the error means to somebody who does not know its details.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Disabled | Self::InvalidTime { .. } => ErrorKind::Invalid,
            Self::Busy => ErrorKind::Busy,
            Self::ServerAway { .. } | Self::ArchiveTimeout { .. } => ErrorKind::Unavailable,
            Self::NoStanza => ErrorKind::NotFound,
            Self::UnsupportedVersion { .. }
            | Self::NotRecoverable { .. }
            | Self::NothingBehind { .. }
            | Self::BrokenLog { .. }
            | Self::ServerRuns { .. }
            | Self::TargetTaken { .. }
            | Self::TargetInside { .. }
            | Self::NoRoom { .. } => ErrorKind::Refused,
            Self::MissingProgram
            | Self::NotArchiving { .. }
            | Self::RepositoryFull { .. }
            | Self::Repository { .. }
            | Self::DamagedBackup { .. }
            | Self::Interrupted { .. }
            | Self::Engine { .. }
            | Self::Unintelligible { .. }
            | Self::Io { .. }
            | Self::NotRecovered(_)
            | Self::Unproven { .. }
            | Self::StillErased { .. }
            | Self::Scratch { .. } => ErrorKind::Internal,
            // Somebody else restores into the same directory.
            Self::Place(tenantry_stack::Error::Locked { .. }) => ErrorKind::Busy,
            Self::Place(_) => ErrorKind::Internal,
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
            Self::DamagedBackup { .. } => DAMAGED,
            Self::InvalidTime { .. } => {
                "write it with its offset from UTC, as 2026-11-24T14:32:00+01:00 or 2026-11-24T13:32:00Z; \
                 `now` is the newest that there is"
            }
            Self::NotRecoverable { .. } => {
                "`tenantry backup list` shows windows and gaps; `--to now` restores the newest that there is"
            }
            Self::NothingBehind { last, timeline, .. } => return Some(instead(*last, *timeline)),
            Self::BrokenLog { .. } => BROKEN_LOG,
            Self::ServerRuns { .. } => {
                "stop it, and whatever starts it again; or restore beside it with `--target-dir`"
            }
            Self::TargetInside { .. } => "name a directory elsewhere",
            Self::TargetTaken { .. } => "name a directory that is not there yet",
            Self::NoRoom { .. } => NO_ROOM,
            Self::NotRecovered(error) => return error.hint(),
            Self::Unproven { .. } => UNPROVEN,
            Self::StillErased { .. } => {
                "nothing was changed; mend what stands against it and restore again"
            }
            Self::Place(tenantry_stack::Error::Locked { .. }) => {
                "another restore or a drill is under way there: wait until it has ended"
            }
            Self::Place(tenantry_stack::Error::NotADataDir { .. }) => {
                "`backup.scratch_dir` must be empty, not there, or what an earlier one left"
            }
            Self::Place(error) => return error.hint(),
            Self::Database(error) => return error.hint(),
            Self::Interrupted { .. }
            | Self::Engine { .. }
            | Self::Unintelligible { .. }
            | Self::Scratch { .. }
            | Self::Io { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
