//! A primary that archives, a database on it, and an engine that was not used yet.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tenantry_backup::health::Examination;
use tenantry_backup::{
    Backup, BackupKind, Destination, Engine, Error, Restore, Restored, Settings, When, restore,
};
use tenantry_db::{Config, Installation};
use tenantry_stack::{ServerUser, Stack, StackOptions, files};
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::Client;

pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) db: TestDatabase,
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    // Dropped last.
    dir: tempfile::TempDir,
}

impl World {
    /// Takes the whole server to a moment, as the command does.
    pub(crate) async fn restore(
        &self,
        when: When,
        destination: Destination,
    ) -> Result<Restored, Error> {
        let (engine, config, actor) = (&self.engine, &self.config, self.db.actor());
        let wish =
            Restore { engine, config, actor: &actor, when, destination, decide_again: false };
        restore(&wish, |_| {}).await
    }

    pub(crate) async fn new() -> Self {
        Self::with(|_| Vec::new()).await
    }

    /// With settings of `[backup]` changed, which may lie in the directory.
    pub(crate) async fn with(change: impl FnOnce(&Path) -> Vec<(&'static str, String)>) -> Self {
        Self::on_servers(change, |_| {}).await
    }

    /// With a replica, which is not started yet.
    pub(crate) async fn with_replica() -> Self {
        Self::on_servers(|_| Vec::new(), |options| options.replicas = 1).await
    }

    async fn on_servers(
        change: impl FnOnce(&Path) -> Vec<(&'static str, String)>,
        change_servers: impl FnOnce(&mut StackOptions),
    ) -> Self {
        let dir = temp_dir().unwrap();
        let root = dir.path();
        let own = |name: &str| root.join(name).display().to_string();
        let mut settings = vec![
            ("backup.dir", own("backup")),
            ("backup.repository", own("repository")),
            ("backup.secret", "a passphrase of a test".to_owned()),
            ("backup.pg_data_dir", own("data/primary")),
            ("backup.pg_password_file", own("pgpass")),
        ];
        settings.extend(change(root));
        // What the server needs is known before there is one.
        let read = |layers: tenantry_db::config::Layers| {
            let layers = settings
                .iter()
                .fold(layers, |layers, (key, value)| layers.flag("test", key, value.clone()));
            // The machine's own room is not what is tried.
            let layers = layers.flag("test", "backup.free_space_percent", 1);
            Config::from_layers(layers.flag("test", "backup.enabled", true)).unwrap()
        };
        let early = read(tenantry_db::config::Layers::defaults());
        let archiving = Engine::server_settings(&Settings::of_host(&early).unwrap()).unwrap();
        let (stack, servers) = Servers::start_with(&root.join("data"), 2, |options| {
            options.settings.extend(archiving.map(|(name, value)| (name.to_owned(), value)));
            change_servers(options);
        })
        .await
        .unwrap();
        let password = format!("*:*:*:postgres:{}\n", stack.superuser_password());
        let owner = ServerUser::owner_of(&root.join("data/primary")).unwrap();
        files::write_private(&root.join("pgpass"), &password, Some(&owner)).unwrap();
        let db = TestDatabase::on(servers).await;
        let socket_dir = stack.socket_dir().display().to_string();
        let layers = db.servers().layers(db.name(), "shared");
        let config = read(layers.flag("test", "backup.pg_socket_dir", socket_dir));
        let engine = Engine::open(Settings::of_host(&config).unwrap()).await.unwrap();
        Self { stack, db, config, engine, dir }
    }

    /// With a first full backup.
    pub(crate) async fn backed_up() -> Self {
        let world = Self::new().await;
        world.back_up().await;
        world
    }

    pub(crate) async fn back_up(&self) -> Backup {
        self.engine.back_up_now(&self.db.admin, BackupKind::Full, |_| {}).await.unwrap()
    }

    pub(crate) async fn examine(&self) -> Examination {
        self.engine.examine(&self.db.admin).await.unwrap()
    }

    pub(crate) fn installation(&self) -> Installation {
        Installation::new(self.config.clone()).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Commits something, ends the segment, and waits until it is archived. Yields its name.
    pub(crate) async fn segment(&self) -> String {
        let client = self.db.superuser().await;
        // Nothing waits for the disk in tests, so the position of the inserts counts. At a segment's beginning the function would name the one before.
        client.batch_execute("SELECT txid_current()").await.unwrap();
        let name: String = client
            .query_typed_one("SELECT pg_walfile_name(pg_current_wal_insert_lsn())", &[])
            .await
            .unwrap()
            .get(0);
        client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        until(&client, &format!("SELECT last_archived_wal >= '{name}' FROM pg_stat_archiver"))
            .await;
        name
    }

    /// The file of a segment in the repository.
    pub(crate) fn archived(&self, segment: &str) -> PathBuf {
        let place = self.path("repository/archive/tenantry/15-1").join(&segment[..16]);
        let place = if place.exists() { place } else { self.any_archive().join(&segment[..16]) };
        let files = std::fs::read_dir(place).unwrap().map(|it| it.unwrap().path());
        let is_it = |path: &PathBuf| {
            path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{segment}-"))
        };
        files.into_iter().find(is_it).unwrap()
    }

    fn any_archive(&self) -> PathBuf {
        let places = std::fs::read_dir(self.path("repository/archive/tenantry")).unwrap();
        places.map(|it| it.unwrap().path()).find(|it| it.is_dir()).unwrap()
    }

    /// The processes of pgBackRest that work for this one.
    pub(crate) fn pgbackrests(&self) -> Vec<i32> {
        let conf = format!("--config={}", self.path("backup/pgbackrest.conf").display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
            let pid = entry.file_name().to_string_lossy().parse::<i32>();
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_it = line.split(|byte| *byte == 0).any(|part| part == conf.as_bytes());
            found.extend(pid.ok().filter(|_| is_it));
        }
        found
    }

    pub(crate) async fn stop(mut self) {
        self.stack.stop().await.unwrap();
    }

    /// Every file below, with the id of its owner.
    pub(crate) fn owners(&self, name: &str) -> Vec<(PathBuf, u32)> {
        let mut found = Vec::new();
        let mut open = vec![self.path(name)];
        while let Some(path) = open.pop() {
            let is = std::fs::symlink_metadata(&path).unwrap();
            if is.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
            }
            found.push((path, is.uid()));
        }
        found
    }
}

/// Waits until a query says yes, 30 seconds at most.
pub(crate) async fn until(client: &Client, query: &str) {
    for _ in 0..1500 {
        let row = client.query_typed_one(query, &[]).await.unwrap();
        if row.get::<_, Option<bool>>(0) == Some(true) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("`{query}` did not become true within 30 s");
}
