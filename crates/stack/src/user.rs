//! Who the servers run as: `postgres` when this process is root, else this process's own user.
//!
//! Owns the look-up and the question whether that user may enter a directory. Refuses to run a
//! server as root, as PostgreSQL does.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// The user that packages create for PostgreSQL.
const SERVER_USER: &str = "postgres";

/// The user and group that the servers run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUser {
    /// Its name, or what to call it.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// Its group's.
    pub gid: u32,
    /// Whether this is another user than ours, so that files and processes must be handed over.
    pub is_other: bool,
}

impl ServerUser {
    /// Looks it up.
    ///
    /// # Errors
    /// [`Error::NoServerUser`] for root where there is no such user.
    pub fn find() -> Result<Self> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            let gid = rustix::process::getegid();
            let (uid, gid) = (uid.as_raw(), gid.as_raw());
            return Ok(Self { name: format!("user id {uid}"), uid, gid, is_other: false });
        }
        // `id` also sees users that stand in a directory service and not in `/etc/passwd`.
        let (Some(uid), Some(gid)) = (ask_id("-u"), ask_id("-g")) else {
            return Err(Error::NoServerUser { user: SERVER_USER.to_owned() });
        };
        Ok(Self { name: SERVER_USER.to_owned(), uid, gid, is_other: true })
    }

    /// The owner of a file or directory that a server left.
    ///
    /// # Errors
    /// [`Error::WrongOwner`] if that is another user than ours, and we are not root; [`Error::Io`].
    pub fn owner_of(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(Error::io("look at", path))?;
        let ours = rustix::process::geteuid();
        let (uid, gid) = (found.uid(), found.gid());
        let is_other = uid != ours.as_raw();
        let name = format!("user id {uid}");
        if is_other && !ours.is_root() {
            let user = format!("user id {}", ours.as_raw());
            return Err(Error::WrongOwner { path: path.to_owned(), owner: uid, user });
        }
        Ok(Self { name, uid, gid, is_other })
    }

    /// The first directory on the way to `path`, itself included, that this user may not enter.
    /// What does not exist yet is no obstacle. Access-control lists are not looked at.
    pub(crate) fn first_closed_directory(&self, path: &Path) -> Option<PathBuf> {
        if !self.is_other {
            return None;
        }
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        let closed = |path: &&Path| fs::metadata(path).is_ok_and(|found| !self.may_enter(&found));
        ancestors.into_iter().find(closed).map(Path::to_owned)
    }

    fn may_enter(&self, directory: &Metadata) -> bool {
        let mode = directory.mode();
        let bit = if directory.uid() == self.uid {
            0o100
        } else if directory.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

fn ask_id(flag: &str) -> Option<u32> {
    let output = Command::new("id").args([flag, SERVER_USER]).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_closed_parent_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let stranger =
            ServerUser { name: "x".to_owned(), uid: 4_000_000, gid: 4_000_000, is_other: true };
        let set = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        set(0o700);
        assert_eq!(stranger.first_closed_directory(&inner).as_deref(), Some(dir.path()));
        set(0o711);
        assert_eq!(stranger.first_closed_directory(&inner.join("not/yet")), None);
    }
}
