//! A superuser at work, with every trigger off: each change is named where it is.

use tenantry_db::audit::FindingKind as Kind;
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use super::{kinds, seal, verify, write};

const ENTRIES: u32 = 8;

/// Nothing refuses anything.
async fn disarm(superuser: &Client) {
    superuser
        .batch_execute(
            "ALTER TABLE public.audit_log DISABLE TRIGGER ALL;
             ALTER TABLE public.audit_seals DISABLE TRIGGER ALL;
             ALTER TABLE public.audit_anchors DISABLE TRIGGER ALL;
             ALTER TABLE public.audit_log ALTER COLUMN id DROP IDENTITY",
        )
        .await
        .unwrap();
}

/// A database of eight sealed entries, spoiled.
async fn found(spoil: &str) -> Vec<(Kind, Option<i64>, Option<i64>)> {
    let db = TestDatabase::new().await;
    write(&db.admin_client().await, "a", ENTRIES).await;
    seal(&db).await;
    let superuser = db.superuser().await;
    disarm(&superuser).await;
    assert!(verify(&db).await.intact);
    superuser.batch_execute(spoil).await.unwrap();
    let found = verify(&db).await;
    assert!(!found.intact, "{spoil}");
    kinds(&found)
}

#[tokio::test]
async fn an_edited_entry_is_named_whatever_was_edited() {
    for set in [
        "actor = 'somebody else'",
        "action = 'tenant.held'",
        "details = '{}'",
        "tenant_id = gen_random_uuid()",
        "request_id = 'r'",
        "recorded_at = recorded_at + interval '1 microsecond'",
        "recorded_at = 'infinity'",
    ] {
        let edited = found(&format!("UPDATE public.audit_log SET {set} WHERE id = 3")).await;
        assert_eq!(edited, [(Kind::EntryChanged, Some(3), Some(3))], "{set}");
    }
}

#[tokio::test]
async fn deleted_entries_are_named() {
    let deleted = found("DELETE FROM public.audit_log WHERE id IN (3, 8)").await;
    let named = [3, 8].map(|n| (Kind::EntryDeleted, Some(n), Some(n)));
    assert_eq!(deleted, named);
}

#[tokio::test]
async fn exchanged_entries_are_named_with_both() {
    let contents = found(
        "UPDATE public.audit_log SET id = -2 WHERE id = 2;
         UPDATE public.audit_log SET id = 2 WHERE id = 5; UPDATE public.audit_log SET id = 5 WHERE id = -2",
    )
    .await;
    assert_eq!(contents, [2, 5].map(|n| (Kind::EntriesExchanged, Some(n), Some(n))));
    let entries = found(
        "UPDATE public.audit_seals SET entry_id = -2 WHERE position = 2;
         UPDATE public.audit_seals SET entry_id = 2 WHERE position = 5;
         UPDATE public.audit_seals SET entry_id = 5 WHERE position = 2",
    )
    .await;
    assert_eq!(entries, [(2, 5), (5, 2)].map(|(n, m)| (Kind::EntriesExchanged, Some(n), Some(m))));
    let seals = found(
        "UPDATE public.audit_seals SET position = 99 WHERE position = 2;
         UPDATE public.audit_seals SET position = 2 WHERE position = 3;
         UPDATE public.audit_seals SET position = 3 WHERE position = 99",
    )
    .await;
    let first = [(2, 3), (3, 2)].map(|(n, m)| (Kind::EntriesExchanged, Some(n), Some(m)));
    assert_eq!(seals[..2], first, "{seals:?}");
}

#[tokio::test]
async fn removed_and_inserted_seals_are_named() {
    let removed = found("DELETE FROM public.audit_seals WHERE position IN (4, 5)").await;
    assert_eq!(
        removed,
        [
            (Kind::SealsMissing, Some(4), None),
            (Kind::SealRemoved, None, Some(4)),
            (Kind::SealRemoved, None, Some(5)),
        ]
    );
    // Both together, and what follows moved up: the hash binds the place.
    let moved = found(
        "DELETE FROM public.audit_seals WHERE position = 7; DELETE FROM public.audit_log WHERE id = 7;
         UPDATE public.audit_seals SET position = 7 WHERE position = 8",
    )
    .await;
    assert_eq!(moved, [(Kind::EntryChanged, Some(7), Some(8))]);
    let forged = found(
        "INSERT INTO public.audit_log (id, actor, action) VALUES (9, 'x', 'x');
         INSERT INTO public.audit_seals VALUES (9, 9, decode(repeat('ab', 32), 'hex'), now())",
    )
    .await;
    assert_eq!(forged, [(Kind::EntryChanged, Some(9), Some(9))]);
    let planted =
        found("INSERT INTO public.audit_log (id, actor, action) VALUES (-5, 'x', 'x')").await;
    assert_eq!(planted, [(Kind::SealRemoved, None, Some(-5))]);
    let backdated = found(
        "UPDATE public.audit_seals SET sealed_at = now() - interval '1 year' WHERE position = 2",
    )
    .await;
    assert_eq!(backdated, [(Kind::EntryChanged, Some(2), Some(2))]);
}

#[tokio::test]
async fn what_is_not_sealed_yet_leaves_a_trace_when_it_goes_and_is_told_of_when_nobody_seals_it() {
    let db = TestDatabase::new().await;
    let writer = db.admin_client().await;
    write(&writer, "a", 3).await;
    let superuser = db.superuser().await;
    disarm(&superuser).await;
    superuser.batch_execute("DELETE FROM public.audit_log WHERE id = 2").await.unwrap();
    assert_eq!(kinds(&verify(&db).await), [(Kind::UnsealedDeleted, None, Some(2))]);
    assert_eq!(seal(&db).await, 2, "the others get their seals");
    assert_eq!(kinds(&verify(&db).await), [(Kind::UnsealedDeleted, None, Some(2))]);
    // Whoever puts a sealed entry in the queue again stops nobody.
    superuser
        .batch_execute(
            "DELETE FROM public.audit_unsealed; INSERT INTO public.audit_unsealed VALUES (1);
             INSERT INTO public.audit_log (id, recorded_at, actor, action)
                 VALUES (9, now() - interval '2 minutes', 'x', 'x'), (10, now(), 'x', 'x');
             INSERT INTO public.audit_unsealed VALUES (9), (10)",
        )
        .await
        .unwrap();
    let found = verify(&db).await;
    assert_eq!((kinds(&found), found.unsealed), (vec![(Kind::NotSealed, None, None)], 2));
    assert!(found.findings[0].message.starts_with("1 entries are not sealed"), "{found:?}");
    assert_eq!(seal(&db).await, 2);
    assert!(verify(&db).await.intact);
}
