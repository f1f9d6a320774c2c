//! What is refused, and whether the refusal says what to do.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tenantry_stack::{Error, Server, Stack, StackOptions, down, status};

use crate::place::{Place, is_root, links_to};

#[tokio::test]
async fn busy_ports_are_all_named_with_their_flags() {
    let place = Place::new();
    let options = place.options();
    let hold = |port| TcpListener::bind(("127.0.0.1", port)).unwrap();
    let held = [hold(options.ports.replica), hold(options.ports.pgbouncer)];
    let error = Stack::open(options.clone()).await.unwrap_err();
    let Error::PortInUse { ports } = &error else { panic!("{error:?}") };
    let servers: Vec<Server> = ports.iter().map(|busy| busy.server).collect();
    assert_eq!(servers, [Server::Replica(1), Server::Pooler]);
    assert!(error.to_string().contains(&options.ports.replica.to_string()));
    let hint = error.hint().unwrap();
    assert!(hint.contains("--replica-port") && hint.contains("--pgbouncer-port"), "{hint}");
    drop(held);
    Stack::open(options).await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_at_the_last_moment_is_reported_by_the_server() {
    let place = Place::new();
    let options = place.without_replica();
    let mut stack = Stack::open(options.clone()).await.unwrap();
    let _held = TcpListener::bind(("127.0.0.1", options.ports.postgres)).unwrap();
    let error = stack.start_primary().await.unwrap_err();
    assert!(matches!(error, Error::StartFailed { server: Server::Primary, .. }), "{error:?}");
    assert!(error.to_string().contains("Address already in use"), "{error}");
    let _held = TcpListener::bind(("127.0.0.1", options.ports.pgbouncer)).unwrap();
    let error = stack.start_pooler(&crate::place::settings()).await.unwrap_err();
    assert!(error.to_string().contains("Address already in use"), "{error}");
    place.expect_no_processes().await;
}

#[tokio::test]
async fn a_setting_that_postgresql_refuses_is_quoted() {
    let place = Place::new();
    let wrong = ("work_mem".to_owned(), "much".to_owned());
    let options = StackOptions { settings: vec![wrong], ..place.without_replica() };
    let mut stack = Stack::open(options).await.unwrap();
    let message = stack.start_primary().await.unwrap_err().to_string();
    assert!(message.contains("work_mem"), "{message}");
    assert!(message.contains("logs/primary.log"), "{message}");
}

#[tokio::test]
async fn one_directory_has_one_stack() {
    let place = Place::new();
    let first = Stack::open(place.options()).await.unwrap();
    let error = Stack::open(place.options()).await.unwrap_err();
    let me = std::process::id();
    assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == me), "{error:?}");
    drop(first);
    Stack::open(place.options()).await.unwrap();
}

#[tokio::test]
async fn a_foreign_directory_is_never_touched() {
    let place = Place::new();
    fs::create_dir(place.data_dir()).unwrap();
    fs::write(place.data_dir().join("thesis.tex"), "years of work").unwrap();
    for refused in [
        Stack::open(place.options()).await.map(drop),
        down(&place.data_dir()).await.map(drop),
        status(&place.data_dir()).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::NotADataDir { .. })), "{refused:?}");
    }
    assert_eq!(fs::read_dir(place.data_dir()).unwrap().count(), 1);
}

#[tokio::test]
async fn missing_programs_are_named() {
    let place = Place::new();
    let bin = place.data_dir().with_file_name("bin");
    links_to(&["postgres", "initdb", "pgbouncer"], &bin);
    let only_there = |bin: &Path| StackOptions {
        search_path: Some(bin.as_os_str().to_owned()),
        ..place.options()
    };
    let error = Stack::open(only_there(&bin)).await.unwrap_err();
    assert_eq!(error.to_string(), "`pg_basebackup` not found");
    assert!(error.hint().unwrap().contains("install"));

    links_to(&["pg_basebackup"], &bin);
    Stack::open(only_there(&bin)).await.unwrap();
    fs::remove_file(bin.join("pgbouncer")).unwrap();
    let error = Stack::open(only_there(&bin)).await.unwrap_err();
    assert_eq!(error.to_string(), "`pgbouncer` not found");
}

#[tokio::test]
async fn another_version_than_the_datas_is_refused() {
    let place = Place::new();
    let stack = Stack::open(place.options()).await.unwrap();
    let primary = stack.data_dir().join("primary");
    drop(stack);
    fs::create_dir(&primary).unwrap();
    fs::write(primary.join("PG_VERSION"), "99\n").unwrap();
    if is_root() {
        let error = Stack::open(place.options()).await.unwrap_err();
        assert!(matches!(error, Error::WrongOwner { owner: 0, .. }), "{error:?}");
        let changed = Command::new("chown").arg("postgres").arg(&primary).status().unwrap();
        assert!(changed.success());
    }
    let error = Stack::open(place.options()).await.unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { .. }), "{error:?}");
    assert!(error.to_string().contains("and 99, which made the existing data, is needed"));
}

#[tokio::test]
async fn a_closed_parent_is_named() {
    if !is_root() {
        eprintln!("skipped: only root runs the servers as another user");
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let options = StackOptions::new(closed.path().join("data"));
    let error = Stack::open(options).await.unwrap_err();
    let Error::Unreachable { path, user } = &error else { panic!("{error:?}") };
    assert_eq!((path.as_path(), user.as_str()), (closed.path(), "postgres"));
    assert!(!closed.path().join("data").exists());
}

#[tokio::test]
async fn a_lost_password_is_told_at_once() {
    let place = Place::new();
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    stack.start_primary().await.unwrap();
    stack.stop().await.unwrap();
    fs::remove_file(stack.data_dir().join("secrets/superuser")).unwrap();
    drop(stack);
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    let error = stack.start_primary().await.unwrap_err();
    assert_eq!(error.to_string(), "could not log in as the superuser on the primary");
    assert!(error.hint().unwrap().contains("secrets/"));
    place.expect_no_processes().await;
}

/// A file system of a few megabytes, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, megabytes: u32) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let size = format!("size={megabytes}m,mode=711");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        None
    }

    /// Leaves not one byte free.
    fn fill(&self) {
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.0.join("ballast"));
        let file = file.as_mut().unwrap();
        for chunk in [vec![0; 1024 * 1024], vec![0; 4096]] {
            while file.write_all(&chunk).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that fails may have left something open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn too_small_a_disk_is_refused_before_anything_is_made() {
    let place = Place::new();
    let Some(_disk) = SmallDisk::mount(place.data_dir(), 64) else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let error = Stack::open(place.options()).await.unwrap_err();
    let Error::NotEnoughSpace { free_bytes, needed_bytes, .. } = error else { panic!("{error:?}") };
    assert!(free_bytes <= 64 << 20);
    assert_eq!(needed_bytes, 768 << 20);
}

#[tokio::test]
async fn a_full_disk_is_called_that() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.data_dir(), 520) else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    stack.start_primary().await.unwrap();
    stack.stop().await.unwrap();
    disk.fill();
    let error = stack.start_primary().await.unwrap_err();
    assert!(error.to_string().contains("no space left on the disk"), "{error}");
    assert!(error.hint().unwrap().contains("free some space"));

    fs::remove_file(disk.0.join("ballast")).unwrap();
    stack.start_primary().await.unwrap();
    stack.stop().await.unwrap();
}
