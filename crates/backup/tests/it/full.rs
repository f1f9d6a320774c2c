//! A repository without room, on a file system of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tenantry_backup::{BackupKind, Error};
use tenantry_db::doctor::Outcome;

use crate::world::{World, until};

/// A small file system, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0711", "tmpfs"])
            .arg(at)
            .status()
            .unwrap();
        assert!(done.success(), "only root may mount");
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
#[ignore = "mounts a small file system, which takes root, and waits for pgBackRest's patience of a minute"]
async fn a_full_repository_is_said_to_be_and_mends_itself() {
    let mut small = None;
    let world = World::with(|root| {
        small = Some(Small::mount(&root.join("small")));
        vec![("backup.repository", root.join("small/repository").display().to_string())]
    })
    .await;
    world.back_up().await;
    let client = world.db.superuser().await;
    let ballast = world.path("small/ballast");
    // To the last byte; the error is what says that it is full.
    let _ = fs::write(&ballast, vec![1_u8; 32 << 20]);
    client.batch_execute("SELECT txid_current(); SELECT pg_switch_wal()").await.unwrap();
    until(&client, "SELECT last_failed_time > last_archived_time FROM pg_stat_archiver").await;
    let error = world.engine.back_up(BackupKind::Full, |_| {}).await.unwrap_err();
    let is_said = matches!(error, Error::RepositoryFull { .. } | Error::ArchiveTimeout { .. });
    assert!(is_said, "{error:?}");
    let found = world.examine().await;
    let outcome =
        |name: &str| found.report.checks.iter().find(|it| it.name == name).unwrap().outcome;
    assert_eq!(outcome("repository_space"), Outcome::Failed);
    assert_ne!(outcome("archiver"), Outcome::Ok);
    assert_eq!(found.backups.len(), 1, "the former one is whole");

    fs::remove_file(&ballast).unwrap();
    client.batch_execute("SELECT txid_current(); SELECT pg_switch_wal()").await.unwrap();
    world.segment().await;
    world.back_up().await;
    let found = world.examine().await;
    assert_eq!(found.worst(), Outcome::Ok, "{:?}", found.report.checks);
    assert_eq!(found.recoverable.windows.len(), 1, "nothing was lost meanwhile");
    world.stop().await;
    drop(small);
}
