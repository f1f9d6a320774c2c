//! What `up` does so that its primary is backed up: settings before the start, a login afterwards.

use tenantry_backup::{Engine, Place, Settings};
use tenantry_db::Config;
use tenantry_stack::{Server, ServerUser, Stack, files};
use tokio::task::JoinHandle;

use crate::output::say;

/// Gives the primary what it needs to hand its log over. Without pgBackRest this fails, before anything
/// is started.
pub(super) fn prepare(stack: &mut Stack, config: &Config) -> anyhow::Result<Option<Settings>> {
    let settings = Settings::from_config(config)?;
    if !settings.enabled {
        return Ok(None);
    }
    stack.add_settings(Engine::server_settings(&settings)?)?;
    Ok(Some(settings))
}

/// The way of the primary's log into the repository.
pub(super) struct Archive {
    engine: Engine,
    stanza: JoinHandle<tenantry_backup::Result<()>>,
}

impl Archive {
    /// Opens it for a primary that runs, and goes on with that beside whatever else is started: the first
    /// segments wait for it, and if they have to be tried again, that is a minute later.
    pub(super) async fn open(stack: &Stack, settings: Settings) -> anyhow::Result<Self> {
        let password_file = settings.server.password_file.clone();
        let engine = Engine::open(settings).await?;
        if let Some(file) = password_file {
            let owner = ServerUser::owner_of(&stack.server_dir(Server::Primary))?;
            // A generated password needs no escaping.
            let line = format!("*:*:*:postgres:{}\n", stack.superuser_password());
            files::write_private(&file, &line, Some(&owner))?;
        }
        let stanza = tokio::spawn({
            let engine = engine.clone();
            async move { engine.create_stanza().await }
        });
        Ok(Self { engine, stanza })
    }

    /// Where the backups go and how far they reach back, in a line.
    pub(super) fn shown(&self) -> String {
        let settings = self.engine.settings();
        let place = match &settings.place {
            Place::Directory(path) => path.display().to_string(),
            Place::S3 { bucket, .. } => format!("bucket `{bucket}`"),
        };
        format!("{place}, {} days back; `tenantry backup list`", settings.retention_days)
    }

    /// When it is open. What stands against it (a bucket that is away) keeps nobody from being served: the
    /// scheduler tries again, and tells.
    pub(super) async fn ready(self) -> Engine {
        if let Ok(Err(error)) = self.stanza.await {
            say(&format!("warning: no backups yet: {error}"));
        }
        self.engine
    }
}
