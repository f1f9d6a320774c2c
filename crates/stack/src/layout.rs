//! Where everything lies in a data directory, and the mark that says the directory is ours.
//!
//! Owns the paths, their modes and owners. Refuses a directory with files in it that this crate
//! did not make. Files that it does not know (`tenantry.toml`) stay as they are.
//!
//! ```text
//! .tenantry-layout      the mark, with the layout's version
//! up.lock               held by the process that runs the stack
//! primary/  replica/    the clusters, further ones in replica_2/ …; `*.tmp` while they are made
//! pgbouncer/            pgbouncer.ini, userlist.txt
//! logs/                 one for each server and tool
//! secrets/              generated passwords; ours alone
//! run/                  who runs: pid files; and in `run/pg` the servers' Unix sockets
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::data_dir::{PASSABLE, short_hash};
use crate::error::{Error, Result};
use crate::files;
use crate::server::{MAX_REPLICAS, Server};
use crate::user::ServerUser;

const MARK: &str = ".tenantry-layout";
const VERSION: u32 = 1;

const PRIVATE: u32 = 0o700;

/// A socket's path must fit in `sockaddr_un`: 108 bytes on Linux, 104 on macOS, with a final NUL.
const SOCKET_PATH_LIMIT_BYTES: usize = 103;
/// The longest name that PostgreSQL gives a socket.
const LONGEST_SOCKET_NAME: &str = "/.s.PGSQL.65535";

/// The paths in one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    user: ServerUser,
}

impl Layout {
    /// Names the paths; touches nothing.
    pub(crate) fn new(root: PathBuf, user: ServerUser) -> Self {
        Self { root, user }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn user(&self) -> &ServerUser {
        &self.user
    }

    /// The server's own directory, and its working directory.
    pub(crate) fn server(&self, server: Server) -> PathBuf {
        self.root.join(server.name())
    }

    /// Where a cluster is made before it gets its name.
    pub(crate) fn unfinished(&self, server: Server) -> PathBuf {
        self.root.join(format!("{}.tmp", server.name()))
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.root.join("secrets").join(name)
    }

    pub(crate) fn pid_file(&self, name: &str) -> PathBuf {
        self.root.join("run").join(format!("{name}.pid"))
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("up.lock")
    }

    /// The servers' sockets, in a directory that nobody else may enter. Below the system's
    /// temporary directory where a path in the data directory would be too long for a socket.
    pub(crate) fn sockets(&self) -> PathBuf {
        let own = self.root.join("run/pg");
        if own.as_os_str().len() + LONGEST_SOCKET_NAME.len() <= SOCKET_PATH_LIMIT_BYTES {
            return own;
        }
        std::env::temp_dir().join(format!("tenantry-{:016x}", short_hash(&self.root)))
    }

    /// Whether the directory bears our mark. A directory that does not exist, or is empty, doesn't.
    pub(crate) fn is_ours(&self) -> Result<bool> {
        let Some(found) = files::read_if_present(&self.root.join(MARK))? else {
            return if self.is_vacant()? {
                Ok(false)
            } else {
                Err(Error::NotADataDir { path: self.root.clone() })
            };
        };
        let found = found.trim();
        if found == VERSION.to_string() {
            return Ok(true);
        }
        let path = self.root.clone();
        Err(Error::UnsupportedLayout { path, found: found.to_owned(), supported: VERSION })
    }

    /// Makes the directory ours if it is vacant, else checks that it is.
    pub(crate) fn claim(&self) -> Result<()> {
        if self.is_ours()? {
            return Ok(());
        }
        self.create_root()?;
        files::write_private(&self.root.join(MARK), &format!("{VERSION}\n"), None)
    }

    /// The servers' user must get through to it, whatever the umask of whoever starts them.
    fn create_root(&self) -> Result<()> {
        if !self.user.is_other {
            return fs::create_dir_all(&self.root).map_err(Error::io("create", &self.root));
        }
        let missing: Vec<_> = self.root.ancestors().take_while(|dir| !dir.exists()).collect();
        missing.into_iter().rev().try_for_each(|dir| files::ensure_directory(dir, PASSABLE, None))
    }

    /// Makes what is missing inside, and checks that the clusters belong to the servers' user.
    /// Only for the holder of the lock.
    pub(crate) fn prepare(&self) -> Result<()> {
        for server in [Server::Primary].into_iter().chain(Server::replicas(MAX_REPLICAS)) {
            self.check_owner(&self.server(server))?;
        }
        let passable = if self.user.is_other { PASSABLE } else { PRIVATE };
        files::ensure_directory(&self.root, passable, None)?;
        files::ensure_directory(&self.root.join("run"), passable, None)?;
        files::ensure_directory(&self.root.join("logs"), PRIVATE, None)?;
        files::ensure_directory(&self.root.join("secrets"), PRIVATE, None)?;
        files::ensure_directory(&self.server(Server::Pooler), PRIVATE, Some(&self.user))?;
        let sockets = self.sockets();
        if !sockets.starts_with(&self.root) {
            // The name can be guessed, so somebody else may have taken it.
            self.check_foreign_owner(&sockets)?;
        }
        files::ensure_directory(&sockets, PRIVATE, Some(&self.user))
    }

    /// Deletes everything inside but the mark and the lock. Only for the holder of the lock.
    pub(crate) fn clear(&self) -> Result<()> {
        let entries =
            fs::read_dir(&self.root).map_err(Error::io("read the directory", &self.root))?;
        for entry in entries {
            let path = entry.map_err(Error::io("read the directory", &self.root))?.path();
            if path == self.root.join(MARK) || path == self.lock() {
                continue;
            }
            let is_directory = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            if is_directory {
                files::remove_directory(&path)?;
            } else {
                files::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the directory. The mark goes last, so that what is left of a removal that breaks off is still
    /// known to be ours. Only for the holder of the lock.
    pub(crate) fn remove(&self) -> Result<()> {
        if !self.root.exists() {
            return Ok(());
        }
        self.clear()?;
        files::remove_file(&self.lock())?;
        files::remove_file(&self.root.join(MARK))?;
        match files::remove_directory(&self.root) {
            // A disk of its own is mounted there. It is empty.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => Ok(()),
            removed => removed,
        }
    }

    /// The major version of the primary's cluster, if there is one.
    pub(crate) fn cluster_major(&self) -> Result<Option<u32>> {
        let text = files::read_if_present(&self.server(Server::Primary).join("PG_VERSION"))?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    pub(crate) fn has_cluster(&self, server: Server) -> bool {
        self.server(server).join("PG_VERSION").exists()
    }

    fn is_vacant(&self) -> Result<bool> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            entries => entries.map_err(Error::io("read the directory", &self.root))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::io("read the directory", &self.root))?.file_name();
            // Fresh file systems have `lost+found`; the other is what a crash in `claim` leaves.
            if name != "lost+found" && name.to_string_lossy() != format!("{MARK}.new") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_owner(&self, path: &Path) -> Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.uid() != self.user.uid => Err(Error::WrongOwner {
                path: path.to_owned(),
                owner: found.uid(),
                user: self.user.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn check_foreign_owner(&self, path: &Path) -> Result<()> {
        let ours = rustix::process::geteuid().as_raw();
        match fs::symlink_metadata(path) {
            // As root we may have been interrupted between making it and giving it away.
            Ok(found) if found.uid() == ours => Ok(()),
            _ => self.check_owner(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &Path) -> Layout {
        Layout::new(root.to_owned(), ServerUser::find().unwrap())
    }

    #[test]
    fn a_vacant_directory_becomes_ours_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir.path().join("new"));
        assert!(!layout.is_ours().unwrap());
        layout.claim().unwrap();
        assert!(layout.is_ours().unwrap());
        fs::write(layout.root().join("tenantry.toml"), "").unwrap();
        layout.claim().unwrap();
    }

    #[test]
    fn the_servers_user_gets_through_to_a_new_directory() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let stranger =
            ServerUser { name: "x".to_owned(), uid: 4_000_000, gid: 4_000_000, is_other: true };
        Layout::new(dir.path().join("a/b/c"), stranger).claim().unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            let mode = fs::metadata(dir.path().join(made)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PASSABLE, "{made}");
        }
    }

    #[test]
    fn a_foreign_directory_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = layout(dir.path()).claim().unwrap_err();
        assert!(matches!(error, Error::NotADataDir { .. }));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARK), "2\n").unwrap();
        let error = layout(dir.path()).claim().unwrap_err();
        assert!(matches!(error, Error::UnsupportedLayout { found, .. } if found == "2"));
    }

    /// Whoever is killed while it removes a directory has removed the first few of these, in this order.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_removal_that_was_killed_anywhere_is_finished_by_the_next_one() {
        use std::mem::MaybeUninit;

        use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir.path().join("scratch"));
        let root = layout.root();
        let fill = || {
            layout.claim().unwrap();
            layout.prepare().unwrap();
            for name in ["up.lock", "earlier.zip"] {
                fs::write(root.join(name), "x").unwrap();
            }
            fs::create_dir_all(root.join("primary/base")).unwrap();
        };
        fill();
        let watched = init(CreateFlags::NONBLOCK).unwrap();
        add_watch(&watched, root, WatchFlags::DELETE).unwrap();
        layout.remove().unwrap();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&watched, &mut buffer);
        let mut gone = Vec::new();
        while let Ok(event) = events.next() {
            gone.extend(event.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        assert!(gone.iter().any(|name| name == MARK) && gone.len() > 6, "{gone:?}");
        for killed_after in 0..=gone.len() {
            fill();
            for path in gone[..killed_after].iter().map(|name| root.join(name)) {
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
                    .unwrap();
            }
            // As whoever opens it next.
            layout
                .claim()
                .unwrap_or_else(|error| panic!("without {:?}: {error}", &gone[..killed_after]));
            layout.remove().unwrap();
            assert!(!root.exists());
        }
    }

    #[test]
    fn sockets_always_fit_their_paths() {
        let short = layout(Path::new("/srv/shop/.tenantry"));
        assert_eq!(short.sockets(), Path::new("/srv/shop/.tenantry/run/pg"));
        let long = layout(&Path::new("/srv").join("x".repeat(90)));
        assert!(long.sockets().starts_with(std::env::temp_dir()));
    }
}
