//! A segment of the log that is there and is not what it was. PostgreSQL would take it for the end of the log.

use std::fs;

use tenantry_backup::TenantAim;

use super::*;
use crate::bringing_back::past::Past;

/// Whoever reads it is refused, and told of the segment. Yields the last moment before it.
fn broken(error: &Error, segment: &str) -> Timestamp {
    let Error::BrokenLog { segment: named, last: Some(last), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((named.to_string().as_str(), error.kind()), (segment, ErrorKind::Refused));
    let text = error.to_string();
    assert!(text.contains(segment) && text.ends_with(&last.to_string()), "{text}");
    assert!(!text.contains('\n'), "{text}");
    *last
}

fn assert_nothing_is_left(world: &World) {
    assert!(!world.path("never").exists() && !world.path(".never.restoring").exists());
}

#[tokio::test]
#[ignore = "takes more than a minute: part of `script/test --full`"]
async fn nothing_behind_a_damaged_segment_is_restored_and_the_last_moment_before_it_is_named() {
    let (world, client, _) = around().await;
    let before = world.segment().await;
    write(&client, "C").await;
    let fill =
        "CREATE TABLE public.fill AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n";
    client.batch_execute(fill).await.unwrap();
    let damaged = world.segment().await;
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    write(&client, "D").await;
    let behind = moment(&client).await;
    write(&client, "E").await;
    world.segment().await;

    let file = world.archived(&damaged);
    let whole = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    // It is another one altogether; some of its rows are others; it can't be unpacked.
    let other = fs::read(world.archived(&before)).unwrap();
    for bytes in [other, flipped(whole.len() / 2), flipped(20)] {
        fs::write(&file, bytes).unwrap();
        let error = beside(&world, When::At(behind), "never").await.unwrap_err();
        let last = broken(&error, &damaged);
        assert!(last < behind);
        let error = beside(&world, When::Now, "never").await.unwrap_err();
        assert_eq!(broken(&error, &damaged), last);
        assert_nothing_is_left(&world);
    }
    // The moment that was named can be had, and it is said that it is not the end.
    let last = broken(&beside(&world, When::Now, "never").await.unwrap_err(), &damaged);
    let restored = beside(&world, When::At(last), "last").await.unwrap();
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B"]);
    let said = restored.notes.join("\n");
    assert!(said.contains(&damaged) && said.contains("can't be had"), "{said}");
    let drilled = world.engine.drill(&world.config, |_| {}).await.unwrap();
    assert!(!drilled.ok && drilled.problems().contains(&damaged), "{}", drilled.problems());

    // With a backup behind it, nothing rests on it.
    world.back_up().await;
    until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
    write(&client, "F").await;
    let later = moment(&client).await;
    write(&client, "G").await;
    let restored = beside(&world, When::At(later), "later").await.unwrap();
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B", "C", "D", "E", "F"]);
    assert_eq!(restored.notes, Vec::<String>::new());
    world.stop().await;
}

/// Half of it is applied, nothing behind it would be missing, and the server is away. Only its checksum tells.
#[tokio::test]
async fn a_damaged_last_segment_is_not_the_end_of_the_log() {
    // In such a repository a segment may lie as it is.
    let world = World::with(|_| vec![("backup.secret", String::new())]).await;
    let (mut world, client, _) = around_in(world).await;
    world.segment().await;
    write(&client, "C").await;
    let here = "SELECT file_offset FROM pg_walfile_name_offset(pg_current_wal_insert_lsn())";
    let here: i32 = client.query_typed_one(here, &[]).await.unwrap().get(0);
    write(&client, "D").await;
    let last = world.segment().await;
    let whole = fs::read(world.path("data/primary/pg_wal").join(&last)).unwrap();
    drop(client);
    world.stack.stop_server(Server::Primary).await.unwrap();
    let found = world.examine().await;
    assert_eq!(found.recoverable.newest().unwrap().last_segment.to_string(), last);
    let packed = world.archived(&last);
    let plain = packed.with_extension("");
    fs::remove_file(packed).unwrap();
    let mut bytes = whole.clone();
    // The checksum of the next record.
    bytes[usize::try_from(here).unwrap() + 20] ^= 1;
    fs::write(&plain, bytes).unwrap();
    let error = world.restore(When::Now, Destination::InPlace).await.unwrap_err();
    broken(&error, &last);
    assert!(error.to_string().contains("not what was archived"), "{error}");
    let primary = world.path("data/primary");
    assert_eq!(rows(&world, &primary, PROBE).await, ["A", "B", "C", "D"], "it is what it was");
    fs::write(&plain, whole).unwrap();
    let restored = world.restore(When::Now, Destination::InPlace).await.unwrap();
    assert_eq!(rows(&world, &restored.data_dir, PROBE).await, ["A", "B", "C", "D"]);
    world.stop().await;
}

#[tokio::test]
async fn a_tenant_is_not_taken_back_to_the_wrong_side_of_a_damaged_segment() {
    let past = Past::with(|_| String::new()).await;
    past.world.segment().await;
    past.add("C").await;
    let damaged = past.world.segment().await;
    past.add("D").await;
    let file = past.world.archived(&damaged);
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, bytes).unwrap();
    for aim in [TenantAim::Replace, TenantAim::New("acme-now")] {
        let error = past.go(When::Now, aim).await.unwrap_err();
        broken(&error, &damaged);
        assert_eq!(past.live().await, ["A", "B", "C", "D"]);
        assert_eq!(past.copies().await, Vec::<String>::new());
        past.assert_wiped();
    }
    past.back().await.unwrap();
    assert_eq!(past.live().await, ["A"], "before it, all is well");
    past.world.stop().await;
}
