//! Where the straight way to a moment is not there: a damaged backup, a gap, the end of a timeline.

use super::*;
use crate::damage::flip;

/// The newest of two backups is damaged: the older one leads to the same moment, and that is said.
#[tokio::test]
#[ignore = "takes more than a minute: part of `script/test --full`"]
async fn a_damaged_backup_is_passed_over_for_an_older_one_and_named() {
    let (world, client, between) = around().await;
    let older = world.engine.repository().await.unwrap().backups[0].label.clone();
    let damaged = world.back_up().await;
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    let behind = moment(&client).await;
    write(&client, "C").await;
    flip(&world, &damaged.label);

    let restored = beside(&world, When::Now, "now").await.unwrap();
    assert_eq!(restored.backup, older);
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B", "C"]);
    let said = restored.notes.join("\n");
    assert!(said.contains(&damaged.label) && said.contains(&older), "{said}");
    let restored = beside(&world, When::At(behind), "behind").await.unwrap();
    assert_eq!(restored.backup, older);
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B"]);
    // Where the way does not lead by it, nobody hears of it.
    let restored = beside(&world, When::At(between), "between").await.unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());

    // Without a good one it is refused, in a line that names both.
    flip(&world, &older);
    let error = beside(&world, When::Now, "never").await.unwrap_err();
    let Error::DamagedBackup { labels, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*labels, [damaged.label, older]);
    assert!(!error.to_string().contains('\n'), "{error}");
    assert!(error.hint().unwrap().contains("backup list"));
    assert!(!world.path("never").exists() && !world.path(".never.restoring").exists());
    world.stop().await;
}

#[tokio::test]
async fn now_across_a_gap_says_what_is_missing() {
    let (world, client, _) = around().await;
    world.segment().await;
    write(&client, "lost").await;
    let lost = world.segment().await;
    write(&client, "lost, too").await;
    world.segment().await;
    std::fs::remove_file(world.archived(&lost)).unwrap();
    let restored = beside(&world, When::Now, "now").await.unwrap();
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B"]);
    let last = restored.last_commit.unwrap().to_string();
    let [note] = &*restored.notes else { panic!("{:?}", restored.notes) };
    assert!(
        note.contains("NOT the newest") && note.contains(&lost) && note.contains(&last),
        "{note}"
    );
    // With a backup behind the gap nothing of now is missing.
    world.back_up().await;
    let restored = beside(&world, When::Now, "later").await.unwrap();
    assert_eq!(restored.notes, Vec::<String>::new());
    world.stop().await;
}

/// Between the last commit of a timeline and its end there is nothing, and nobody can know so: what is refused
/// there names the commit, and that one can be had.
#[tokio::test]
async fn the_end_of_a_timeline_that_was_left_can_be_had_by_its_last_commit() {
    let (mut world, client, between) = around().await;
    world.segment().await;
    drop(client);
    world.stack.stop_server(Server::Primary).await.unwrap();
    let left = Timestamp::now();
    world.restore(When::At(between), Destination::InPlace).await.unwrap();
    world.stack.start_primary().await.unwrap();
    let client = world.db.superuser().await;
    write(&client, "D").await;
    world.segment().await;

    let error = beside(&world, When::At(left), "end").await.unwrap_err();
    let Error::NothingBehind { last: Some(last), timeline: 1, .. } = &error else {
        panic!("{error:?}")
    };
    let hint = error.hint().unwrap();
    assert_eq!(hint, format!("`--to {last}` restores everything that timeline 1 has"));
    // As it is written there.
    let when: When = last.to_string().parse().unwrap();
    let restored = beside(&world, when, "end").await.unwrap();
    assert_eq!((restored.from_timeline, restored.last_commit), (1, Some(*last)));
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B"]);
    let said = restored.notes.join("\n");
    assert!(said.contains("the end of timeline 1"), "{said}");
    world.stop().await;
}
