//! pgBackRest behind one boundary: everything that is asked of it is a function here.
//!
//! Owns its configuration file and the directories beside it, which belong to the user who owns the
//! server's files. Refuses versions that were not tried.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tenantry_stack::{Scratch, ServerUser, files};

use crate::archive::Archive;
use crate::backups::{Backup, BackupKind, Repository};
use crate::command::{self, Program};
use crate::conf::{self, Layout};
use crate::error::{Error, Result};
use crate::lock::ScheduleLock;
use crate::progress::Progress;
use crate::settings::{Place, Settings};
use crate::verify::Verified;
use crate::wal::{History, SegmentName};
use crate::windows::Recoverable;

const PRIVATE: u32 = 0o700;

/// pgBackRest's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// The oldest that was tried. It has everything that is asked of it here.
    const OLDEST: Self = Self { major: 2, minor: 45 };
    const OLDEST_TEXT: &str = "2.45";

    /// Reads `pgBackRest 2.45`, or `pgBackRest 2.55.1` and `2.46dev`.
    fn parse(text: &str) -> Option<Self> {
        let number = text.split_whitespace().nth(1)?;
        let mut parts = number.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        Some(Self { major: parts.next()??, minor: parts.next()?? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// pgBackRest, ready for one server.
#[derive(Debug, Clone)]
pub struct Engine {
    settings: Settings,
    layout: Layout,
    program: Program,
    version: Version,
}

impl Engine {
    /// Finds pgBackRest and writes its configuration. Does not ask the server.
    ///
    /// # Errors
    /// [`Error::MissingProgram`], [`Error::UnsupportedVersion`]; [`Error::Place`] if the server's files are
    /// another user's and we are not root.
    pub async fn open(settings: Settings) -> Result<Self> {
        let path = command::find()?;
        let owner = owner(&settings)?;
        let layout = Layout::new(settings.dir.clone());
        prepare(&settings, &layout, &owner)?;
        let password_file = settings.server.password_file.clone();
        let program = Program { path, owner, directory: layout.root().to_owned(), password_file };
        let said = program.run("version", ["version"], |_| {}).await?;
        let found = said.trim();
        let version = Version::parse(found).filter(|version| *version >= Version::OLDEST);
        let Some(version) = version else {
            let found = found.to_owned();
            return Err(Error::UnsupportedVersion { found, needed: Version::OLDEST_TEXT });
        };
        Ok(Self { settings, layout, program, version })
    }

    /// How the installation is backed up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// pgBackRest's version.
    pub fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn owner(&self) -> &ServerUser {
        &self.program.owner
    }

    /// What the server needs in its configuration so that its log reaches the repository.
    ///
    /// # Errors
    /// [`Error::MissingProgram`].
    pub fn server_settings(settings: &Settings) -> Result<[(&'static str, String); 3]> {
        /// What is lost at most, where the server's machine is.
        const ARCHIVE_TIMEOUT: &str = "60s";
        let word = |path: &Path| conf::shell_word(&path.display().to_string());
        let command = format!(
            "{} --config={} --stanza={} archive-push %p",
            word(&command::find()?),
            word(&Layout::new(settings.dir.clone()).conf()),
            settings.stanza,
        );
        Ok([
            ("archive_mode", "on".to_owned()),
            ("archive_command", command),
            ("archive_timeout", ARCHIVE_TIMEOUT.to_owned()),
        ])
    }

    /// Keeps others away who decide about backups on this machine, until it is dropped.
    pub(crate) fn lock(&self) -> Result<ScheduleLock> {
        ScheduleLock::acquire(&self.layout, self.owner())
    }

    /// Makes the stanza, if it is not there.
    ///
    /// # Errors
    /// [`Error::ServerAway`]; [`Error::Repository`] if it is there and another server's.
    pub async fn create_stanza(&self) -> Result<()> {
        self.run("stanza-create", &[], |_| {}).await.map(drop)
    }

    /// Sends one segment through to the repository, and waits until it is there.
    ///
    /// # Errors
    /// [`Error::NotArchiving`], [`Error::ArchiveTimeout`], [`Error::ServerAway`].
    pub async fn check(&self) -> Result<()> {
        self.run("check", &[], |_| {}).await.map(drop)
    }

    /// Makes a backup, and removes what is older than the retention. Without a full one, it is full.
    ///
    /// Dropped, it ends; what was copied is used by the next one.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::ServerAway`], [`Error::ArchiveTimeout`], [`Error::RepositoryFull`].
    pub async fn back_up(
        &self,
        kind: BackupKind,
        mut progress: impl FnMut(Progress),
    ) -> Result<Backup> {
        let kind = format!("--type={}", kind.as_str());
        let arguments = [kind.as_str(), "--log-level-stderr=detail"];
        let mut label = None;
        let said = |line: &str| {
            if let Some((_, name)) = line.split_once("new backup label = ") {
                label = Some(name.trim().to_owned());
            }
            if let Some(now) = Progress::of_line(line) {
                progress(now);
            }
        };
        self.run("backup", &arguments, said).await.map_err(|error| self.or_full(error))?;
        let odd =
            |reason: &str| Error::Unintelligible { command: "backup", reason: reason.to_owned() };
        let label = label.ok_or_else(|| odd("it names no new backup"))?;
        let made = self.repository().await?.backups.into_iter().find(|it| it.label == label);
        made.ok_or_else(|| odd("the new backup is not in the repository"))
    }

    /// What the repository holds.
    ///
    /// # Errors
    /// [`Error::NoStanza`], [`Error::Repository`].
    pub async fn repository(&self) -> Result<Repository> {
        let text = self.run("info", &["--output=json"], |_| {}).await?;
        Repository::parse(&text, &self.settings.stanza)
    }

    /// The log of one archive, with the history of its timelines.
    ///
    /// # Errors
    /// [`Error::Unintelligible`] and those of the repository.
    pub async fn archive(&self, id: &str) -> Result<Archive> {
        let place = format!("archive/{}/{id}", self.settings.stanza);
        let listing = ["--output=json", "--recurse", place.as_str()];
        let text = self.run("repo-ls", &listing, |_| {}).await?;
        let mut archive = Archive::parse(&text)?;
        for (timeline, branch) in &mut archive.timelines {
            let file = format!("{place}/{timeline:08X}.history");
            let text = self.run("repo-get", &[file.as_str()], |_| {}).await?;
            branch.history = History::parse(&text).ok_or_else(|| Error::Unintelligible {
                command: "repo-get",
                reason: format!("`{file}` is no history of a timeline"),
            })?;
        }
        Ok(archive)
    }

    /// All archives of a repository, each with its id.
    ///
    /// # Errors
    /// As [`archive`](Self::archive).
    pub async fn archives(&self, repository: &Repository) -> Result<Vec<(String, Archive)>> {
        let mut archives = Vec::new();
        for id in &repository.archive_ids {
            archives.push((id.clone(), self.archive(id).await?));
        }
        Ok(archives)
    }

    /// Which moments can be recovered.
    ///
    /// # Errors
    /// As [`archive`](Self::archive).
    pub async fn recoverable(&self, repository: &Repository) -> Result<Recoverable> {
        let archives = self.archives(repository).await?;
        Ok(Recoverable::find(&repository.backups, &archives))
    }

    /// Restores the files of a backup into a scratch directory, as they were copied: not yet consistent.
    ///
    /// # Errors
    /// [`Error::DamagedBackup`], [`Error::Engine`]. What was restored until then is wiped with the directory.
    pub(crate) async fn restore_files(
        &self,
        label: &str,
        scratch: &Scratch,
        mut progress: impl FnMut(Progress),
    ) -> Result<()> {
        let conf = format!("--config={}", self.layout.conf().display());
        let stanza = format!("--stanza={}", self.settings.stanza);
        let arguments = [
            conf,
            stanza,
            format!("--pg1-path={}", scratch.data_dir().display()),
            // Links to where the server has them would be written through.
            format!("--tablespace-map-all={}", scratch.root().join("tablespaces").display()),
            format!("--set={label}"),
            // Where the recovery ends is said on the server's command line: nothing of it is left behind in
            // `postgresql.auto.conf`, where the next replica would find it.
            "--type=none".to_owned(),
            "--log-level-stderr=detail".to_owned(),
            "restore".to_owned(),
        ];
        let said = |line: &str| {
            if let Some(now) = Progress::of_line(line) {
                progress(now);
            }
        };
        let begun = |pid| Ok(scratch.note_tool(pid)?);
        let restored = self.program.run_noted("restore", arguments, said, begun).await;
        restored.map(drop).map_err(|error| match error {
            // The repository itself could be read a moment ago.
            Error::Repository { message } => {
                Error::DamagedBackup { labels: vec![label.to_owned()], message }
            }
            other => other,
        })
    }

    /// How a server that lies in `directory` gets its log from the repository: one that recovers, or a
    /// replica that needs what the primary no longer has.
    pub fn restore_command(&self, directory: &Path) -> String {
        let word = |path: &Path| conf::shell_word(&path.display().to_string());
        format!(
            "{} --config={} --stanza={} --pg1-path={} archive-get %f \"%p\"",
            word(&self.program.path),
            word(&self.layout.conf()),
            self.settings.stanza,
            word(directory),
        )
    }

    /// Puts a segment of the log into `file`, for a server that lies in `directory`.
    ///
    /// # Errors
    /// [`Error::Engine`] if it is not there, or can't be unpacked. That it is unpacked does not mean that it is whole.
    pub(crate) async fn fetch_segment(
        &self,
        directory: &Path,
        segment: SegmentName,
        file: &Path,
    ) -> Result<()> {
        let place = format!("--pg1-path={}", directory.display());
        let (segment, file) = (segment.to_string(), file.display().to_string());
        self.run("archive-get", &[&place, &segment, &file], |_| {}).await.map(drop)
    }

    /// Reads every file of the repository, and remembers what came of it.
    ///
    /// # Errors
    /// [`Error::Unintelligible`] and those of the repository. Damage is no error, but in the answer.
    pub async fn verify(&self) -> Result<Verified> {
        let text = self.run("verify", &["--output=text", "--verbose"], |_| {}).await?;
        let verified = Verified::parse(&text, Timestamp::now())?;
        let remembered = serde_json::to_string(&verified).unwrap_or_default();
        files::write_private(&self.layout.verified(), &remembered, Some(self.owner()))?;
        Ok(verified)
    }

    /// What came of the last verification, if there was one.
    pub fn last_verified(&self) -> Option<Verified> {
        let text = files::read_if_present(&self.layout.verified()).ok()??;
        serde_json::from_str(&text).ok()
    }

    /// The repository's directory, if it is one.
    pub(crate) fn repository_dir(&self) -> Option<PathBuf> {
        match &self.settings.place {
            Place::Directory(path) => Some(path.clone()),
            Place::S3 { .. } => None,
        }
    }

    async fn run(
        &self,
        command: &'static str,
        arguments: &[&str],
        said: impl FnMut(&str),
    ) -> Result<String> {
        let conf = format!("--config={}", self.layout.conf().display());
        let stanza = format!("--stanza={}", self.settings.stanza);
        let (options, named) = split_positional(command, arguments);
        let all = [conf.as_str(), stanza.as_str()].into_iter().chain(options.iter().copied());
        self.program.run(command, all.chain([command]).chain(named.iter().copied()), said).await
    }
}

/// What these commands take behind their names: the last arguments.
fn split_positional<'a>(command: &str, arguments: &'a [&'a str]) -> (&'a [&'a str], &'a [&'a str]) {
    let named = match command {
        "repo-ls" | "repo-get" => 1,
        "archive-get" => 2,
        _ => 0,
    };
    arguments.split_at(arguments.len() - named)
}

/// Who owns the server's files; where they are lost, who owned ours.
fn owner(settings: &Settings) -> Result<ServerUser> {
    let places = [&settings.server.data_dir, &settings.dir];
    match places.into_iter().find(|place| place.exists()) {
        Some(place) => Ok(ServerUser::owner_of(place)?),
        None => Ok(ServerUser::find()?),
    }
}

/// Makes our directory, and writes the configuration if it is another one than before.
fn prepare(settings: &Settings, layout: &Layout, owner: &ServerUser) -> Result<()> {
    if let Some(above) = layout.root().parent() {
        std::fs::create_dir_all(above).map_err(Error::io("create", above))?;
    }
    files::ensure_directory(layout.root(), PRIVATE, Some(owner))?;
    files::ensure_directory(&layout.locks(), PRIVATE, Some(owner))?;
    if let Place::Directory(repository) = &settings.place
        && !repository.exists()
        && repository.parent().is_some_and(Path::exists)
    {
        files::ensure_directory(repository, PRIVATE, Some(owner))?;
    }
    let (text, conf) = (conf::render(settings, layout), layout.conf());
    if files::read_if_present(&conf)?.as_deref() != Some(&text) {
        files::write_private(&conf, &text, Some(owner))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let version = |text| Version::parse(text);
        assert_eq!(version("pgBackRest 2.45"), Some(Version::OLDEST));
        assert!(version("pgBackRest 2.9").unwrap() < Version::OLDEST);
        assert!(version("pgBackRest 2.55.1").unwrap() > Version::OLDEST);
        assert!(version("pgBackRest 2.46dev").unwrap() > Version::OLDEST);
        assert!(version("pgBackRest 3.0").unwrap() > Version::OLDEST);
        assert_eq!(version("pgBackRest"), None);
        assert_eq!(version(""), None);
    }
}
