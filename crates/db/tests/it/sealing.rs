//! The audit log's seals: one chain whatever happens, and every change is named.

mod anchoring;
mod tampering;

use std::sync::Arc;

use tenantry_db::audit::{
    self, Anchor, FindingKind, Sealed, Verification, anchor_head, seal_entries,
};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::{refusal, texts};

pub(crate) async fn verify(db: &TestDatabase) -> Verification {
    audit::verify(&db.reader, &db.config, &db.migrations, |_, _| {}).await.unwrap()
}

pub(crate) async fn seal(db: &TestDatabase) -> usize {
    seal_entries(&db.admin).await.unwrap().entries
}

/// What was found, by kind and place.
pub(crate) fn kinds(found: &Verification) -> Vec<(FindingKind, Option<i64>, Option<i64>)> {
    found.findings.iter().map(|f| (f.kind, f.position, f.entry_id)).collect()
}

pub(crate) async fn write(client: &Client, actor: &str, count: u32) {
    let insert = format!(
        "INSERT INTO public.audit_log (actor, action, details)
         SELECT '{actor}', 'test.done', jsonb_build_object('n', n) FROM generate_series(1, {count}) n"
    );
    client.batch_execute(&insert).await.unwrap();
}

async fn chain(client: &Client) -> Vec<String> {
    texts(client, "SELECT position || ' ' || entry_id FROM public.audit_seals ORDER BY position")
        .await
}

#[tokio::test]
async fn entries_are_sealed_once_in_the_order_in_which_they_appear() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    db.tenant("acme").await;
    assert_eq!(verify(&db).await.unsealed, 1);
    assert_eq!(seal_entries(&db.admin).await.unwrap(), Sealed { entries: 1, elsewhere: false });
    assert_eq!(seal_entries(&db.admin).await.unwrap(), Sealed::default(), "nothing is left to do");
    // The transaction that began first commits last.
    let (slow, quick) = (db.admin_client().await, db.admin_client().await);
    slow.batch_execute("BEGIN").await.unwrap();
    write(&slow, "slow", 1).await;
    write(&quick, "quick", 2).await;
    assert_eq!(seal(&db).await, 2);
    slow.batch_execute("COMMIT").await.unwrap();
    // Another that never commits leaves a number that nobody has.
    quick.batch_execute("BEGIN").await.unwrap();
    write(&quick, "never", 1).await;
    quick.batch_execute("ROLLBACK").await.unwrap();
    write(&quick, "quick", 1).await;
    assert_eq!(seal(&db).await, 2);
    assert_eq!(chain(&superuser).await, ["1 1", "2 3", "3 4", "4 2", "5 6"]);
    let found = verify(&db).await;
    assert!(found.intact, "{found:?}");
    assert_eq!((found.sealed, found.unsealed), (5, 0));
    assert_eq!(found.head.unwrap().position, 5);
    assert_eq!(texts(&superuser, "SELECT 'x' FROM public.audit_unsealed").await, [""; 0]);
}

#[tokio::test]
async fn many_writers_and_several_sealers_make_one_chain_while_somebody_verifies() {
    const WRITERS: usize = 6;
    const ENTRIES: usize = 40;
    let db = Arc::new(TestDatabase::new().await);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..WRITERS {
        let client = db.admin_client().await;
        writers.spawn(async move {
            for m in 0..ENTRIES {
                // Every third one holds its number for a while; every seventh gives it back.
                client.batch_execute("BEGIN").await.unwrap();
                write(&client, &format!("w{n}"), 1).await;
                if m % 3 == 0 {
                    client.batch_execute("SELECT pg_sleep(0.01)").await.unwrap();
                }
                let end = if m % 7 == 0 { "ROLLBACK" } else { "COMMIT" };
                client.batch_execute(end).await.unwrap();
            }
        });
    }
    let mut sealers = tokio::task::JoinSet::new();
    let (done, _) = tokio::sync::watch::channel(false);
    for _ in 0..3 {
        let (db, done) = (Arc::clone(&db), done.subscribe());
        sealers.spawn(async move {
            let mut sealed = 0;
            while !*done.borrow() {
                sealed += seal(&db).await;
                tokio::task::yield_now().await;
            }
            sealed
        });
    }
    let anchorer = tokio::spawn({
        let (db, done) = (Arc::clone(&db), done.subscribe());
        async move {
            let anchor = Anchor::find(&db.config).unwrap();
            let mut anchored = 0;
            while !*done.borrow() {
                anchored += u32::from(anchor_head(&db.admin, &anchor).await.unwrap().is_some());
            }
            anchored
        }
    });
    let mut looks = 0;
    while !writers.is_empty() {
        let found = verify(&db).await;
        assert!(found.intact, "{found:?}");
        looks += 1;
        while let Some(ended) = writers.try_join_next() {
            ended.unwrap();
        }
    }
    done.send_replace(true);
    let mut sealed = 0;
    while let Some(by_one) = sealers.join_next().await {
        sealed += by_one.unwrap();
    }
    sealed += seal(&db).await;
    assert!(anchorer.await.unwrap() > 0);
    let kept = WRITERS * (0..ENTRIES).filter(|m| m % 7 != 0).count();
    let found = verify(&db).await;
    assert!(found.intact && looks > 0, "{found:?}");
    assert_eq!((sealed, found.sealed, found.unsealed), (kept, kept as i64, 0));
    let superuser = db.superuser().await;
    let gapless = "SELECT (max(position) = count(*) AND count(*) = (SELECT count(*) FROM public.audit_log))::text
                   FROM public.audit_seals";
    assert_eq!(texts(&superuser, gapless).await, ["true"]);
    // The test shows something only where ids and places went different ways.
    let late = "SELECT (count(*) > 0)::text FROM public.audit_seals a JOIN public.audit_seals b
                ON b.position = a.position + 1 WHERE b.entry_id < a.entry_id";
    assert_eq!(texts(&superuser, late).await, ["true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_moment_is_looked_at_whatever_comes_meanwhile() {
    let db = TestDatabase::new().await;
    let writer = db.admin_client().await;
    write(&writer, "a", 3).await;
    seal(&db).await;
    let mut looked = 0;
    // Called when the seals were read, and nothing else yet.
    let meanwhile = |_, _| {
        looked += 1;
        let come = async {
            write(&writer, "b", 2).await;
            seal(&db).await;
            anchor_head(&db.admin, &Anchor::find(&db.config).unwrap()).await.unwrap();
            write(&writer, "c", 1).await;
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(come));
    };
    let found = audit::verify(&db.reader, &db.config, &db.migrations, meanwhile).await.unwrap();
    assert!(found.intact && looked == 1, "{found:?}");
    assert_eq!((found.sealed, found.unsealed), (3, 0));
    let later = verify(&db).await;
    assert_eq!((later.intact, later.sealed, later.unsealed), (true, 5, 1));
}

#[tokio::test]
async fn a_sealer_that_is_killed_leaves_whole_batches_and_lets_the_next_one_go_on() {
    let db = TestDatabase::new().await;
    let (superuser, writer) = (db.superuser().await, db.admin_client().await);
    write(&writer, "a", 2500).await;
    superuser
        .batch_execute(
            "CREATE FUNCTION public.hook() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NEW; END $$;
             CREATE TRIGGER hook BEFORE INSERT ON public.audit_seals FOR EACH ROW
                 WHEN (NEW.position = 1500) EXECUTE FUNCTION public.hook()",
        )
        .await
        .unwrap();
    seal_entries(&db.admin).await.unwrap_err();
    let counted = "SELECT (SELECT count(*) FROM public.audit_seals) || ' ' || (SELECT count(*) FROM public.audit_unsealed)";
    assert_eq!(texts(&superuser, counted).await, ["1000 1500"]);
    superuser
        .batch_execute(
            "CREATE OR REPLACE FUNCTION public.hook() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE 'injected'; END $$;
             CREATE TRIGGER hook BEFORE DELETE ON public.audit_unsealed FOR EACH STATEMENT EXECUTE FUNCTION public.hook();
             DROP TRIGGER hook ON public.audit_seals",
        )
        .await
        .unwrap();
    seal_entries(&db.admin).await.unwrap_err();
    assert_eq!(texts(&superuser, counted).await, ["1000 1500"], "both or none");
    superuser.batch_execute("DROP TRIGGER hook ON public.audit_unsealed").await.unwrap();
    assert_eq!(seal(&db).await, 1500);
    let found = verify(&db).await;
    assert!(found.intact && found.sealed == 2500, "{found:?}");
}

#[tokio::test]
async fn who_seals_already_is_not_waited_for() {
    let db = TestDatabase::new().await;
    let (holder, writer) = (db.admin_client().await, db.admin_client().await);
    write(&writer, "a", 1).await;
    holder
        .batch_execute(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('shared:audit_seal', 0))",
        )
        .await
        .unwrap();
    assert_eq!(seal_entries(&db.admin).await.unwrap(), Sealed { entries: 0, elsewhere: true });
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(seal(&db).await, 1);
}

#[tokio::test]
async fn seals_can_only_grow_for_the_admin_the_owner_and_a_superuser() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    seal(&db).await;
    anchor_head(&db.admin, &Anchor::find(&db.config).unwrap()).await.unwrap();
    let (superuser, admin, owner) =
        (db.superuser().await, db.admin_client().await, db.admin_client().await);
    owner.batch_execute("SET ROLE shared_owner").await.unwrap();
    superuser.batch_execute("SET session_replication_role = replica").await.unwrap();
    for client in [&superuser, &admin, &owner] {
        for table in ["audit_log", "audit_seals", "audit_anchors"] {
            let column = if table == "audit_log" { "actor" } else { "position" };
            for change in [
                format!("UPDATE public.{table} SET {column} = {column}"),
                format!("DELETE FROM public.{table}"),
                format!("TRUNCATE public.{table}"),
            ] {
                assert_eq!(refusal(client, &change).await.code(), "55000", "{change}");
            }
        }
    }
    let reader = db.reader_client().await;
    for table in ["audit_seals", "audit_unsealed", "audit_anchors"] {
        let delete = format!("DELETE FROM public.{table}");
        assert_eq!(refusal(&reader, &delete).await, SqlState::INSUFFICIENT_PRIVILEGE);
    }
    // Nor does anybody write past the queue by this way.
    write(&superuser, "s", 1).await;
    assert_eq!(seal(&db).await, 1);
    assert!(verify(&db).await.intact);
}

/// As a database that is migrated today.
#[tokio::test]
async fn what_was_there_before_the_seals_is_sealed_first() {
    use tenantry_db::migrate::migrate_public;
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let public = &db.migrations.public;
    let downs: Vec<&str> = public
        .down_from(public.head(), 8)
        .map(|m| m.down.as_ref().unwrap().text.as_str())
        .collect();
    let back = format!(
        "SET search_path = public; {}; DELETE FROM migrations WHERE version >= 9",
        downs.join(";")
    );
    superuser.batch_execute(&back).await.unwrap();
    write(&db.admin_client().await, "old", 3).await;
    migrate_public(&db.admin, &db.migrations.public, None, |_| {}).await.unwrap();
    write(&db.admin_client().await, "new", 1).await;
    assert_eq!(seal(&db).await, 4);
    assert_eq!(chain(&superuser).await, ["1 1", "2 2", "3 3", "4 4"]);
    assert!(verify(&db).await.intact);
}
