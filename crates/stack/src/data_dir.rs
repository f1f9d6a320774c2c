//! Which directory a requested data directory really is.
//!
//! Owns the way out for root: a project under `/root` is closed to the user that the servers run
//! as, so the default data directory moves to `/var/lib/tenantry` and a link stays in its place.
//! Refuses to move a directory that somebody named, or one that exists already.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::user::ServerUser;

/// Where data goes that can't lie in its project.
const RELOCATED_ROOT: &str = "/var/lib/tenantry";

/// Everyone may pass through, nobody else may list.
pub(crate) const PASSABLE: u32 = 0o711;

/// A data directory that the servers can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    /// Its absolute path, without links.
    pub path: PathBuf,
    /// What the person at the terminal should know about it.
    pub note: Option<String>,
}

/// Finds the place for a data directory that was asked for, or that is the default one.
///
/// Usually that is the place itself. If this process is root and the servers' user may not enter
/// a directory above it (`/root/project/.tenantry`), the default one is put below
/// `/var/lib/tenantry`, with a symbolic link where it was looked for.
///
/// # Errors
/// [`Error::Unreachable`] if the servers' user can't get there and the directory was named by
/// the user or exists already.
pub fn resolve_data_dir(requested: &Path, is_default: bool) -> Result<DataDir> {
    resolve(requested, is_default, &ServerUser::find()?, Path::new(RELOCATED_ROOT))
}

fn resolve(
    requested: &Path,
    is_default: bool,
    user: &ServerUser,
    relocated_root: &Path,
) -> Result<DataDir> {
    let absolute =
        std::path::absolute(requested).map_err(Error::io("find the directory", requested))?;
    // Somebody emptied `/var/lib/tenantry`, and the link now leads nowhere: fill it again.
    if user.is_other
        && let Ok(target) = fs::read_link(&absolute)
        && target.starts_with(relocated_root)
    {
        make_relocated(relocated_root, &target)?;
    }
    let path = canonical(&absolute)?;
    let Some(closed) = user.first_closed_directory(path.parent().unwrap_or(&path)) else {
        return Ok(DataDir { path, note: None });
    };
    if !is_default || fs::symlink_metadata(&path).is_ok() {
        return Err(Error::Unreachable { path: closed, user: user.name.clone() });
    }
    let target = relocated_root.join(relocated_name(&path));
    make_relocated(relocated_root, &target)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    symlink(&target, &path).map_err(Error::io("create the link", &path))?;
    let note = format!(
        "the data is in `{}`, because the servers run as `{}`, which may not enter `{}`",
        target.display(),
        user.name,
        closed.display()
    );
    Ok(DataDir { path: target, note: Some(note) })
}

/// The path without links, also where its last parts do not exist yet.
///
/// # Errors
/// [`Error::Io`] if a directory on the way is closed to us.
pub fn canonical(absolute: &Path) -> Result<PathBuf> {
    match fs::canonicalize(absolute) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => Ok(canonical(parent)?.join(name)),
                _ => Err(Error::io("find the directory", absolute)(error)),
            }
        }
        found => found.map_err(Error::io("find the directory", absolute)),
    }
}

fn make_relocated(root: &Path, target: &Path) -> Result<()> {
    for directory in [root, target] {
        files::ensure_directory(directory, PASSABLE, None)?;
    }
    Ok(())
}

/// The project's name for people, and a hash of the whole path to keep namesakes apart.
fn relocated_name(path: &Path) -> String {
    let project = path.parent().and_then(Path::file_name).unwrap_or(OsStr::new("data"));
    let hash = short_hash(path) & 0xffff_ffff;
    format!("{}-{hash:08x}", project.to_string_lossy())
}

/// Tells paths apart in names. The link remembers the name, so another hash function in a later
/// Rust does no harm.
pub(crate) fn short_hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Closed {
        _dir: tempfile::TempDir,
        requested: PathBuf,
        root: PathBuf,
        stranger: ServerUser,
    }

    /// A project in a directory that is closed to everybody else.
    fn closed_project() -> Closed {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o711)).unwrap();
        let project = base.join("closed/shop");
        fs::create_dir_all(&project).unwrap();
        fs::set_permissions(base.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        let stranger =
            ServerUser { name: "x".to_owned(), uid: 4_000_000, gid: 4_000_000, is_other: true };
        Closed { requested: project.join(".tenantry"), root: base.join("var"), stranger, _dir: dir }
    }

    #[test]
    fn the_default_moves_out_of_a_closed_directory_and_leaves_a_link() {
        let Closed { requested, root, stranger, _dir } = closed_project();
        let first = resolve(&requested, true, &stranger, &root).unwrap();
        assert!(first.path.starts_with(&root));
        assert!(first.note.unwrap().contains("may not enter"));
        assert_eq!(fs::canonicalize(&requested).unwrap(), first.path);

        let second = resolve(&requested, true, &stranger, &root).unwrap();
        assert_eq!(second, DataDir { path: first.path.clone(), note: None });

        fs::remove_dir_all(&root).unwrap();
        let third = resolve(&requested, true, &stranger, &root).unwrap();
        assert_eq!(third.path, first.path);
        assert!(third.path.is_dir());
    }

    #[test]
    fn a_named_directory_is_refused_and_not_moved() {
        let Closed { requested, root, stranger, _dir } = closed_project();
        let error = resolve(&requested, false, &stranger, &root).unwrap_err();
        assert!(matches!(&error, Error::Unreachable { path, .. } if path.ends_with("closed")));
        assert!(error.hint().unwrap().contains("--data-dir"));
        assert!(!root.exists());
    }
}
