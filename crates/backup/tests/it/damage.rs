//! Repositories in which something is wrong: seen, named, and not mistaken for an empty one.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tenantry_backup::{BackupKind, Error};
use tenantry_db::doctor::Outcome;
use tenantry_db::models::backups::BackupCheck;

use crate::world::World;

async fn check(world: &World, name: &str) -> BackupCheck {
    let found = world.examine().await;
    found.report.checks.into_iter().find(|it| it.name == name).unwrap()
}

#[tokio::test]
async fn a_deleted_segment_is_named_and_a_new_backup_begins_a_new_window() {
    let world = World::backed_up().await;
    world.segment().await;
    let lost = world.segment().await;
    world.segment().await;
    fs::remove_file(world.archived(&lost)).unwrap();
    // pgBackRest sees nothing of it.
    assert!(world.engine.verify().await.unwrap().ok);

    let found = world.examine().await;
    assert!(!found.is_continuous);
    let [gap] = &*found.recoverable.gaps else { panic!("{:?}", found.recoverable) };
    assert_eq!((gap.first.to_string(), gap.segments), (lost.clone(), 1));
    let continuity = check(&world, "continuity").await;
    assert_eq!(continuity.outcome, Outcome::Failed);
    assert!(continuity.detail.contains(&lost), "{}", continuity.detail);

    world.back_up().await;
    world.segment().await;
    let found = world.examine().await;
    assert!(found.is_continuous);
    let [before, after] = &*found.recoverable.windows else { panic!("{:?}", found.recoverable) };
    assert!(before.to < after.from);
    assert_eq!(check(&world, "continuity").await.outcome, Outcome::Warning);
    world.stop().await;
}

#[tokio::test]
async fn a_backup_that_lacks_its_own_segment_is_worthless() {
    let world = World::backed_up().await;
    let first = world.examine().await.backups[0].label.clone();
    let own = world.examine().await.recoverable.windows[0].last_segment.to_string();
    world.back_up().await;
    fs::remove_file(world.archived(&own)).unwrap();
    let found = world.examine().await;
    assert_eq!(found.recoverable.broken_backups, [first]);
    assert!(found.is_continuous);
    world.stop().await;
}

#[tokio::test]
async fn flipped_bytes_are_found_by_reading_and_forgiven_after_a_good_backup() {
    let world = World::backed_up().await;
    assert!(world.engine.verify().await.unwrap().ok);
    let label = world.examine().await.backups[0].label.clone();
    let bundle = flip(&world, &label);

    let verified = world.engine.verify().await.unwrap();
    assert!(!verified.ok, "one bit in {}", bundle.display());
    assert!(!verified.problems.is_empty());
    assert_eq!(check(&world, "verify").await.outcome, Outcome::Failed);
    world.stop().await;
}

#[tokio::test]
async fn a_truncated_index_is_damage_and_not_an_empty_repository() {
    let world = World::backed_up().await;
    let index = world.path("repository/backup/tenantry/backup.info");
    let copy = world.path("repository/backup/tenantry/backup.info.copy");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, &whole[..100]).unwrap();
    // It has a copy of it.
    assert_eq!(world.engine.repository().await.unwrap().backups.len(), 1);
    fs::write(&copy, &whole[..100]).unwrap();
    let error = world.engine.repository().await.unwrap_err();
    assert!(matches!(error, Error::Repository { .. }), "{error:?}");
    let repository = check(&world, "repository").await;
    assert_eq!(repository.outcome, Outcome::Failed);
    assert!(!repository.detail.contains('\n'), "{}", repository.detail);
    assert!(!world.engine.verify().await.unwrap().ok);
    // What was found before is still said, and nothing else is made up.
    let found = world.examine().await;
    let failed = found.report.checks.iter().filter(|it| it.outcome == Outcome::Failed);
    let failed: Vec<&str> = failed.map(|it| it.name.as_str()).collect();
    assert_eq!(failed, ["repository", "verify"]);
    let numbers = &found.report.numbers;
    assert_eq!(numbers.get("repository_readable"), Some(&0.0));
    assert!(!numbers.contains_key("count"), "{numbers:?}");
    // No new backup is begun over it.
    let error =
        world.engine.back_up_now(&world.db.admin, BackupKind::Full, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Repository { .. }), "{error:?}");
    fs::write(&index, &whole).unwrap();
    assert_eq!(world.examine().await.worst(), Outcome::Failed, "the last verification was bad");
    assert!(world.engine.verify().await.unwrap().ok);
    assert_eq!(world.examine().await.worst(), Outcome::Ok);
    world.stop().await;
}

#[tokio::test]
async fn another_passphrase_reads_nothing() {
    let world = World::backed_up().await;
    let mut settings = world.engine.settings().clone();
    settings.secret = Some(tenantry_db::Secret::new("another passphrase"));
    let other = tenantry_backup::Engine::open(settings).await.unwrap();
    let error = other.repository().await.unwrap_err();
    assert!(matches!(error, Error::Repository { .. }), "{error:?}");
    let again = tenantry_backup::Engine::open(world.engine.settings().clone()).await.unwrap();
    assert_eq!(again.repository().await.unwrap().backups.len(), 1);
    world.stop().await;
}

/// Changes one bit in the middle of a backup's largest file.
pub(crate) fn flip(world: &World, label: &str) -> PathBuf {
    let bundle = largest(&world.path("repository/backup/tenantry").join(label));
    let file = OpenOptions::new().read(true).write(true).open(&bundle).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    bundle
}

fn largest(place: &Path) -> PathBuf {
    let mut found = Vec::new();
    let mut open = vec![place.to_owned()];
    while let Some(path) = open.pop() {
        let is = fs::symlink_metadata(&path).unwrap();
        if is.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
        } else if is.is_file() {
            found.push((is.len(), path));
        }
    }
    found.into_iter().max().unwrap().1
}
