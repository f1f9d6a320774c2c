//! Disks without room: the repository's, the scratch server's, the server's own. Each is a small file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tenantry_backup::{BackupKind, Error, TenantAim, When, restore_tenant};
use tenantry_db::doctor::Outcome;
use tenantry_db::{ErrorKind, TenantRef};

use crate::bringing_back::past::Past;
use crate::world::{World, until};

const MIB: u64 = 1 << 20;

/// A small file system in a world's directory, until it is dropped: last, after the world.
struct Small {
    root: PathBuf,
    at: PathBuf,
}

impl Small {
    fn mount(root: &Path, name: &str, mib: u32) -> Self {
        let at = root.join(name);
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={mib}m,mode=0711");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&at)
            .status()
            .unwrap();
        assert!(done.success(), "only root may mount");
        Self { root: root.to_owned(), at }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        // The world could not, as long as this was mounted in it.
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[tokio::test]
#[ignore = "mounts a small file system, which takes root, and waits for pgBackRest's patience of a minute"]
async fn a_full_repository_is_said_to_be_and_mends_itself() {
    let mut small = None;
    let world = World::with(|root| {
        small = Some(Small::mount(root, "small", 24));
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
    assert!(matches!(error, Error::RepositoryFull { .. }), "{error:?}");
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

/// Both ways of bringing the tenant back end before anything is copied, for want of room on the disk of `path`.
async fn assert_no_room(past: &Past, path: &Path) {
    let (tenant, actor) = (TenantRef::Id(past.acme.id), past.world.db.actor());
    for aim in [TenantAim::Replace, TenantAim::New("acme-then")] {
        let wish = past.wish(&tenant, When::At(past.moment), aim, &actor);
        let error = restore_tenant(&wish, |step| panic!("{step:?}")).await.unwrap_err();
        let Error::NoRoom { path: full, free_bytes, needed_bytes } = &error else {
            panic!("{error:?}")
        };
        assert!(full == path && free_bytes < needed_bytes, "{error}");
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.hint().unwrap().contains("`backup.scratch_dir`"), "{:?}", error.hint());
        assert_nothing_is_left(past);
        assert_eq!(past.live().await, ["A", "B"]);
        assert_eq!(past.copies().await, Vec::<String>::new());
        let tenants = past.text("SELECT count(*)::text FROM public.tenants").await;
        assert_eq!(tenants, "1", "and no other one was made");
    }
}

fn assert_nothing_is_left(past: &Past) {
    let left = fs::read_dir(&past.world.engine.settings().scratch_dir).map(Iterator::count);
    assert_eq!(left.unwrap_or(0), 0, "nothing is left on the disk");
}

#[tokio::test]
#[ignore = "mounts a small file system, which takes root"]
async fn a_tenant_stays_as_it_is_where_a_copy_of_the_server_has_no_room() {
    let mut small = None;
    let world = World::with(|root| {
        small = Some(Small::mount(root, "small", 24));
        vec![("backup.scratch_dir", root.join("small").display().to_string())]
    })
    .await;
    let past = Past::of(world, |_| String::new()).await;
    let disk = past.world.path("small");
    assert_no_room(&past, &disk).await;

    let larger = ["-o", "remount,size=640m"];
    assert!(Command::new("mount").args(larger).arg(&disk).status().unwrap().success());
    past.back().await.unwrap();
    assert_eq!(past.live().await, ["A"], "it was the room alone");
    assert_nothing_is_left(&past);
    past.world.stop().await;
    drop(small);
}

#[tokio::test]
#[ignore = "mounts a small file system, which takes root"]
async fn a_tenant_stays_as_it_is_where_the_server_has_no_room_for_its_rows() {
    let mut small = None;
    let world = World::with(|root| {
        small = Some(Small::mount(root, "data", 640));
        Vec::new()
    })
    .await;
    let past = Past::of(world, |_| String::new()).await;
    let disk = rustix::fs::statvfs(past.world.path("data")).unwrap();
    // The server itself has enough to go on, and to look.
    let left_bytes = 64 * MIB;
    let bytes = usize::try_from(disk.f_bavail * disk.f_frsize - left_bytes).unwrap();
    let ballast = past.world.path("data/ballast");
    fs::write(&ballast, vec![1_u8; bytes]).unwrap();
    assert_no_room(&past, &past.world.path("data/primary")).await;

    fs::remove_file(&ballast).unwrap();
    past.back().await.unwrap();
    assert_eq!(past.live().await, ["A"], "it was the room alone");
    past.world.stop().await;
    drop(small);
}
