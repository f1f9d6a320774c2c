//! The file outside the database, and what it shows that the database alone can't.

use std::fs;
use std::path::PathBuf;

use tenantry_db::audit::{
    Anchor, AuditError, FindingKind as Kind, anchor_head, continue_after_restore, keep_anchoring,
    keep_sealing,
};
use tenantry_db::{Config, Error};
use tenantry_testing::TestDatabase;

use super::{kinds, seal, verify, write};
use crate::deletion::delete;
use crate::purging::purge;
use crate::texts;

fn anchor(db: &TestDatabase) -> Anchor {
    Anchor::find(&db.config).unwrap()
}

async fn sealed(db: &TestDatabase, count: u32) {
    write(&db.admin_client().await, "a", count).await;
    seal(db).await;
}

/// A log of six entries, anchored at its third and at its last one.
async fn anchored() -> (TestDatabase, PathBuf) {
    let db = TestDatabase::new().await;
    for _ in 0..2 {
        sealed(&db, 3).await;
        anchor_head(&db.admin, &anchor(&db)).await.unwrap();
    }
    let file = anchor(&db).path();
    (db, file)
}

const TRUNCATE: &str = "
    ALTER TABLE public.audit_log DISABLE TRIGGER ALL; ALTER TABLE public.audit_seals DISABLE TRIGGER ALL;
    DELETE FROM public.audit_log WHERE id > 4; DELETE FROM public.audit_seals WHERE position > 4;
    ALTER TABLE public.audit_log ENABLE ALWAYS TRIGGER audit_log_queue";
const DISARM_ANCHORS: &str = "
    ALTER TABLE public.audit_anchors DISABLE TRIGGER ALL; DELETE FROM public.audit_anchors";

#[tokio::test]
async fn a_head_is_anchored_while_it_moves() {
    let db = TestDatabase::new().await;
    let to = anchor(&db);
    assert_eq!(anchor_head(&db.admin, &to).await.unwrap(), None, "there is no head");
    assert!(verify(&db).await.intact);
    sealed(&db, 2).await;
    assert_eq!(anchor_head(&db.admin, &to).await.unwrap(), Some(2));
    assert_eq!(anchor_head(&db.admin, &to).await.unwrap(), None, "it did not move");
    sealed(&db, 1).await;
    assert_eq!(anchor_head(&db.admin, &to).await.unwrap(), Some(3));
    let positions: Vec<i64> = to.heads().unwrap().iter().map(|head| head.position).collect();
    assert_eq!(positions, [2, 3]);
    let known = "SELECT sequence || ' ' || position FROM public.audit_anchors ORDER BY sequence";
    let superuser = db.superuser().await;
    assert_eq!(texts(&superuser, known).await, ["1 2", "2 3"]);
    let found = verify(&db).await;
    assert!(found.intact && found.anchored.unwrap().position == 3);
    // What a process wrote that was killed before it told the database.
    superuser.batch_execute(&format!("{DISARM_ANCHORS} WHERE sequence = 2")).await.unwrap();
    assert_eq!(anchor_head(&db.admin, &to).await.unwrap(), None);
    assert_eq!(texts(&superuser, known).await, ["1 2", "2 3"]);
}

#[tokio::test]
async fn a_tail_that_was_cut_is_seen_by_the_anchor_only() {
    let (mut db, _) = anchored().await;
    db.superuser().await.batch_execute(TRUNCATE).await.unwrap();
    let found = verify(&db).await;
    assert_eq!(kinds(&found), [(Kind::LogTruncated, Some(6), None)]);
    assert!(found.findings[0].message.contains("ends at position 4, but position 6"), "{found:?}");
    let refused = anchor_head(&db.admin, &anchor(&db)).await.unwrap_err();
    assert!(
        matches!(refused, Error::Audit(AuditError::Rewritten { position: 6, .. })),
        "{refused}"
    );
    // Other entries in the same places: then the seal differs.
    sealed(&db, 3).await;
    assert_eq!(kinds(&verify(&db).await), [(Kind::LogRewritten, Some(6), None)]);
    let refused = anchor_head(&db.admin, &anchor(&db)).await.unwrap_err();
    assert!(
        matches!(refused, Error::Audit(AuditError::Rewritten { position: 6, .. })),
        "{refused}"
    );
    // Without an anchor nothing is to be seen, and it says what it did not look at.
    let layers = db.servers().layers(db.name(), "shared").flag("test", "erasure.ledger_dir", "");
    db.config = Config::from_layers(layers).unwrap();
    let found = verify(&db).await;
    assert!(found.intact, "{found:?}");
    assert!(found.notes[0].starts_with("not anchored: `erasure.ledger_dir`"), "{found:?}");
}

#[tokio::test]
async fn a_log_that_was_sealed_anew_is_seen_by_the_anchor() {
    let (db, _) = anchored().await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "ALTER TABLE public.audit_log DISABLE TRIGGER ALL; ALTER TABLE public.audit_seals DISABLE TRIGGER ALL;
             UPDATE public.audit_log SET actor = 'nobody' WHERE id = 2;
             DELETE FROM public.audit_seals; INSERT INTO public.audit_unsealed SELECT id FROM public.audit_log",
        )
        .await
        .unwrap();
    assert_eq!(seal(&db).await, 6, "it seals whatever there is");
    let both = [3, 6].map(|n| (Kind::LogRewritten, Some(n), None));
    assert_eq!(kinds(&verify(&db).await), both);
}

#[tokio::test]
async fn whatever_is_done_to_the_file_is_seen() {
    let (db, file) = anchored().await;
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let first_edited = lines[0].replace("\"position\":3", "\"position\":2");
    let last_edited = lines[1].replace("\"position\":6", "\"position\":5");
    for (text, found) in [
        (format!("{first_edited}\n{}\n", lines[1]), vec![Kind::AnchorDamaged]),
        (format!("{}\n{}\n", lines[1], lines[0]), vec![Kind::AnchorDamaged]),
        (format!("{}\n", lines[1]), vec![Kind::AnchorDamaged]),
        // Its last line can be made to follow; but the database knows another one, and its seal.
        (
            format!("{}\n{last_edited}\n", lines[0]),
            vec![Kind::LogRewritten, Kind::AnchorIncomplete],
        ),
        (format!("{}\n", lines[0]), vec![Kind::AnchorIncomplete]),
        (String::new(), vec![Kind::AnchorIncomplete]),
    ] {
        fs::write(&file, &text).unwrap();
        let seen = verify(&db).await;
        let kinds: Vec<Kind> = seen.findings.iter().map(|f| f.kind).collect();
        assert_eq!(kinds, found, "{text}");
        // A head that moved is not written behind that.
        sealed(&db, 1).await;
        anchor_head(&db.admin, &anchor(&db)).await.unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(kinds(&verify(&db).await), [(Kind::AnchorIncomplete, None, None)]);
    fs::create_dir(&file).unwrap();
    let seen = verify(&db).await;
    assert_eq!(kinds(&seen), [(Kind::AnchorUnreadable, None, None)]);
    fs::remove_dir(&file).unwrap();
    // What a crash left of a line is none.
    fs::write(&file, format!("{whole}{{\"sequence\":3,\"re")).unwrap();
    assert!(verify(&db).await.intact);
    assert!(anchor_head(&db.admin, &anchor(&db)).await.unwrap().is_some());
    assert!(verify(&db).await.intact);
}

#[tokio::test]
async fn a_purge_is_sealed_and_anchored_at_once_and_its_ledger_is_looked_at() {
    let db = TestDatabase::new().await;
    for name in ["acme", "globex"] {
        let tenant = db.tenant(name).await;
        delete(&db, &tenant).await;
        purge(&db, &tenant).await.unwrap();
    }
    let found = verify(&db).await;
    assert!(found.intact && found.unsealed == 0, "{found:?}");
    let heads = anchor(&db).heads().unwrap();
    assert_eq!(heads.len(), 2);
    let purged = "SELECT position::text FROM public.audit_seals s JOIN public.audit_log l ON l.id = s.entry_id
                  WHERE action = 'tenant.purged' ORDER BY 1";
    let positions: Vec<String> = heads.iter().map(|head| head.position.to_string()).collect();
    assert_eq!(texts(&db.superuser().await, purged).await, positions);
    let ledger = db.config.erasure.ledger_dir.clone().unwrap().join("erasures.jsonl");
    let whole = fs::read_to_string(&ledger).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let other = uuid_like(lines[1]);
    for (text, words) in [
        (format!("{}\n{}\n", lines[1], lines[0]), "is damaged at line 1"),
        (format!("{}\n", lines[1]), "is damaged at line 1"),
        (format!("{}\n", lines[0]), "lacks entry 2"),
        (format!("{}\n{other}\n", lines[0]), "lacks entry 2"),
    ] {
        fs::write(&ledger, &text).unwrap();
        let found = verify(&db).await;
        assert_eq!(kinds(&found), [(Kind::LedgerBroken, None, None)]);
        assert!(found.findings[0].message.contains(words), "{found:?}");
    }
}

/// The line with another tenant in it.
fn uuid_like(line: &str) -> String {
    let (before, rest) = line.split_once("\"tenant_id\":\"").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}\"tenant_id\":\"11111111-2222-4333-8444-555555555555\"{after}")
}

#[tokio::test]
async fn after_a_restore_to_an_earlier_time_the_chain_goes_on_and_says_so() {
    let (db, _) = anchored().await;
    let superuser = db.superuser().await;
    // As a restore to the time when there were four.
    superuser
        .batch_execute(&format!("{TRUNCATE}; {DISARM_ANCHORS} WHERE sequence = 2"))
        .await
        .unwrap();
    assert_eq!(kinds(&verify(&db).await), [(Kind::LogTruncated, Some(6), None)]);
    assert_eq!(continue_after_restore(&db.admin, &anchor(&db)).await.unwrap(), 4);
    sealed(&db, 3).await;
    assert_eq!(anchor_head(&db.admin, &anchor(&db)).await.unwrap(), Some(7));
    let found = verify(&db).await;
    assert!(found.intact, "{found:?}");
    assert!(found.notes[0].contains("went on at position 4, and 1 anchored heads"), "{found:?}");
    // What was anchored before stays anchored.
    superuser.batch_execute("UPDATE public.audit_seals SET hash = decode(repeat('ab', 32), 'hex') WHERE position = 3").await.unwrap();
    assert!(kinds(&verify(&db).await).contains(&(Kind::LogRewritten, Some(3), None)));
}

#[tokio::test]
async fn a_service_seals_and_anchors_by_itself_also_when_the_file_was_away() {
    let db = TestDatabase::new().await;
    let dir = db.config.erasure.ledger_dir.clone().unwrap();
    fs::write(&dir, "a file where its directory should be").unwrap();
    write(&db.admin_client().await, "a", 3).await;
    let jobs = [
        tokio::spawn(keep_sealing(db.installation(), std::future::pending())),
        tokio::spawn(keep_sealing(db.installation(), std::future::pending())),
    ];
    let superuser = db.superuser().await;
    let waiting = "SELECT count(*)::text FROM public.audit_unsealed";
    until(async || texts(&superuser, waiting).await == ["0"]).await;
    let failing = anchor_head(&db.admin, &anchor(&db)).await.unwrap_err();
    assert!(failing.to_string().starts_with("can't"), "{failing}");
    fs::remove_file(&dir).unwrap();
    let anchoring = tokio::spawn(keep_anchoring(db.installation(), std::future::pending()));
    let anchored = "SELECT coalesce(max(position), 0)::text FROM public.audit_anchors";
    until(async || texts(&superuser, anchored).await == ["3"]).await;
    assert!(verify(&db).await.intact);
    jobs.iter().chain([&anchoring]).for_each(tokio::task::JoinHandle::abort);
}

async fn until(condition: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("it did not come true within 10 s");
}
