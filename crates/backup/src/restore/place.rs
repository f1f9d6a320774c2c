//! Where the restored server is made, and how it comes to its name.
//!
//! Owns the directories. Refuses to remove one that is not its own: the old one gets another name.

use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tenantry_stack::{Scratch, canonical, files, running_server};

use super::Destination;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::health::Disk;

/// Where it is made, and where it goes.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) target: PathBuf,
    /// On the same disk, so that a name is all that changes in the end.
    pub(super) scratch: PathBuf,
    in_place: bool,
}

impl Place {
    /// Finds it.
    ///
    /// # Errors
    /// [`Error::ServerRuns`], [`Error::TargetTaken`], [`Error::Io`].
    pub(super) fn find(engine: &Engine, destination: &Destination) -> Result<Self> {
        let in_place = *destination == Destination::InPlace;
        let target = match destination {
            Destination::InPlace => engine.settings().server.data_dir.clone(),
            Destination::Beside(path) => {
                std::path::absolute(path).map_err(Error::io("find", path))?
            }
        };
        let above = target.parent().unwrap_or(Path::new("/"));
        if in_place {
            // Of a lost server there may be nothing left. Elsewhere a missing one is a name that was mistyped.
            std::fs::create_dir_all(above).map_err(Error::io("create", above))?;
        }
        std::fs::read_dir(above).map_err(Error::io("look into", above))?;
        let target = canonical(above)?.join(target.file_name().unwrap_or_default());
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let scratch = target.with_file_name(format!(".{name}.restoring"));
        if !in_place {
            require_apart(engine, &target)?;
        }
        let place = Self { target, scratch, in_place };
        place.require_free()?;
        Ok(place)
    }

    fn require_free(&self) -> Result<()> {
        if self.in_place { self.require_stopped() } else { self.require_vacant() }
    }

    /// # Errors
    /// [`Error::ServerRuns`].
    pub(super) fn require_stopped(&self) -> Result<()> {
        match running_server(&self.target)? {
            Some(pid) => Err(Error::ServerRuns { path: self.target.clone(), pid }),
            None => Ok(()),
        }
    }

    fn require_vacant(&self) -> Result<()> {
        let taken = || Err(Error::TargetTaken { path: self.target.clone() });
        match std::fs::read_dir(&self.target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => taken(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(_) => taken(),
        }
    }

    /// # Errors
    /// [`Error::NoRoom`].
    pub(super) fn require_room(&self, size_bytes: u64) -> Result<()> {
        Disk::require_for_copy(self.target.parent().unwrap_or(Path::new("/")), size_bytes)
    }

    /// What the server that is given up could not archive any more: that is in no repository.
    pub(super) fn unarchived(&self) -> Option<String> {
        let status = self.target.join("pg_wal/archive_status");
        if !self.in_place {
            return None;
        }
        let waiting = std::fs::read_dir(status).ok()?.map_while(std::io::Result::ok);
        let waiting =
            waiting.filter(|entry| entry.path().extension().is_some_and(|it| it == "ready"));
        let count = waiting.count();
        (count > 0).then(|| {
            format!(
                "{count} pieces of the log were never archived: what is in them is only in the old directory"
            )
        })
    }

    /// Gives the restored server its name; yields where the old one lies now. The server must not run.
    ///
    /// # Errors
    /// [`Error::ServerRuns`], [`Error::TargetTaken`] if that changed meanwhile; [`Error::Io`].
    pub(super) fn take(
        &self,
        engine: &Engine,
        scratch: &Scratch,
        timeline: u32,
    ) -> Result<Option<PathBuf>> {
        let restored = scratch.data_dir();
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        self.move_tablespaces(engine, scratch, &stamp)?;
        if self.in_place {
            // The recovery archived nothing. Of all that it made only this is needed in the repository: without
            // it nobody can tell later where the new timeline comes from.
            let ready = format!("pg_wal/archive_status/{timeline:08X}.history.ready");
            files::write_private(&restored.join(ready), "", Some(engine.owner()))?;
        }
        self.require_free()?;
        let mut kept = None;
        if self.in_place && self.target.exists() {
            let name = self.target.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let aside = self.target.with_file_name(format!("{name}.before-{stamp}"));
            std::fs::rename(&self.target, &aside).map_err(Error::io("set aside", &self.target))?;
            kept = Some(aside);
        } else if self.target.exists() {
            std::fs::remove_dir(&self.target).map_err(Error::io("replace", &self.target))?;
        }
        if let Err(error) = files::publish_directory(&restored, &self.target) {
            if let Some(aside) = &kept {
                // Back to what it was.
                let _ = std::fs::rename(aside, &self.target);
            }
            return Err(error.into());
        }
        Ok(kept)
    }

    /// Tablespaces were restored beside the server's directory, and go with it.
    fn move_tablespaces(&self, engine: &Engine, scratch: &Scratch, stamp: &str) -> Result<()> {
        let from = scratch.root().join("tablespaces");
        let links = scratch.data_dir().join("pg_tblspc");
        let name = self.target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = self.target.with_file_name(format!("{name}.tablespaces-{stamp}"));
        let entries = std::fs::read_dir(&links).map_err(Error::io("read", &links))?;
        let mut any = false;
        for entry in entries {
            let link = entry.map_err(Error::io("read", &links))?.path();
            let Ok(inner) = std::fs::read_link(&link) else { continue };
            let Ok(inner) = inner.strip_prefix(&from) else { continue };
            std::fs::remove_file(&link).map_err(Error::io("replace", &link))?;
            symlink(to.join(inner), &link).map_err(Error::io("link", &link))?;
            let owner = engine.owner();
            if owner.is_other {
                lchown(&link, Some(owner.uid), Some(owner.gid))
                    .map_err(Error::io("hand over", &link))?;
            }
            any = true;
        }
        if any {
            std::fs::rename(&from, &to).map_err(Error::io("name", &to))?;
        }
        Ok(())
    }
}

/// A copy in what is backed up would be in the next backup, and one in the repository goes with it.
fn require_apart(engine: &Engine, target: &Path) -> Result<()> {
    let data_dir = engine.settings().server.data_dir.clone();
    for inside in [Some(data_dir), engine.repository_dir()].into_iter().flatten() {
        // What is not there yet has nothing inside.
        let Ok(inside) = canonical(&inside) else { continue };
        if target.starts_with(&inside) {
            return Err(Error::TargetInside { path: target.to_owned(), inside });
        }
    }
    Ok(())
}
