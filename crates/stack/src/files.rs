//! Writing files and directories so that they are whole, private, and their reader's own.
//!
//! Owns the pattern "new file beside it, then rename". Refuses to follow a link at the place that
//! it writes to: as root it writes into directories that belong to the servers' user.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::Path;

use crate::error::{Error, Result};
use crate::user::ServerUser;

/// Writes a file that only its owner reads: `owner`, or this process's user. A reader sees the old
/// contents or the new, and a crash leaves one of them.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`].
pub fn write_private(path: &Path, contents: &str, owner: Option<&ServerUser>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    remove_file(&beside)?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        if let Some(owner) = owner.filter(|owner| owner.is_other) {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        file.write_all(contents.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(Error::io("write", path))
}

/// Makes a directory, or takes the one that is there, with this mode and owner.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`].
pub fn ensure_directory(path: &Path, mode: u32, owner: Option<&ServerUser>) -> Result<()> {
    let make = || -> io::Result<()> {
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(path)?.is_dir() {
                    return Err(error);
                }
            }
            made => made?,
        }
        if let Some(owner) = owner.filter(|owner| owner.is_other) {
            lchown(path, Some(owner.uid), Some(owner.gid))?;
        }
        // The mode given at creation was cut by the umask.
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    make().map_err(Error::io("prepare the directory", path))
}

/// An empty directory, whatever was there before.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`].
pub fn replace_directory(path: &Path, mode: u32, owner: &ServerUser) -> Result<()> {
    remove_directory(path)?;
    ensure_directory(path, mode, Some(owner))
}

/// Removes a directory with all that is in it; it may be gone already.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`].
pub fn remove_directory(path: &Path) -> Result<()> {
    absent_is_fine(fs::remove_dir_all(path)).map_err(Error::io("remove", path))
}

/// Removes a file; it may be gone already.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`].
pub fn remove_file(path: &Path) -> Result<()> {
    absent_is_fine(fs::remove_file(path)).map_err(Error::io("remove", path))
}

/// Gives a finished directory its name, so that nobody ever sees a half-made one under it.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`].
pub fn publish_directory(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::io("rename to", to))?;
    let parent = to.parent().unwrap_or(to);
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("flush to disk", parent))
}

/// The text of a file, or `None` where there is no file.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`].
pub fn read_if_present(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_private_file_replaces_a_link_and_never_writes_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("secret"));
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, &path).unwrap();
        symlink(&victim, dir.path().join("secret.new")).unwrap();

        write_private(&path, "new", None).unwrap();

        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_link_is_not_taken_for_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink(dir.path(), &link).unwrap();
        assert!(ensure_directory(&link, 0o700, None).is_err());
    }
}
