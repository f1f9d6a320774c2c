//! The log of who did what, when the server is taken back to an earlier moment.

use jiff::Timestamp;
use tenantry_backup::{Destination, When};
use tenantry_db::audit::{Anchor, Verification, anchor_head, seal_entries, verify};
use tenantry_db::{AdminDb, Config, ReaderDb};
use tenantry_stack::{Server, ServerUser};

use crate::world::{World, until};

async fn moment(world: &World) -> Timestamp {
    let client = world.db.superuser().await;
    client.query_typed_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0)
}

async fn pause(world: &World) {
    until(&world.db.superuser().await, "SELECT pg_sleep(1.1) IS NOT NULL").await;
}

/// As a new process would.
async fn verified(world: &World) -> Verification {
    let reader = ReaderDb::new(&world.config).unwrap();
    verify(&reader, &world.config, &world.db.migrations, |_, _| {}).await.unwrap()
}

async fn sealed_and_anchored(config: &Config) {
    let admin = AdminDb::new(config).unwrap();
    while seal_entries(&admin).await.unwrap().elsewhere {}
    anchor_head(&admin, &Anchor::find(config).unwrap()).await.unwrap();
}

#[tokio::test]
async fn the_log_of_a_restored_server_goes_on_and_says_what_was_lost() {
    let mut world = World::new().await;
    let anchor = Anchor::find(&world.config).unwrap();
    let gone = world.db.tenant("gone").await;
    world.back_up().await;
    pause(&world).await;
    sealed_and_anchored(&world.config).await;
    let before = moment(&world).await;
    world.db.tenant("later").await;
    world.db.purge(&gone).await;
    sealed_and_anchored(&world.config).await;
    let found = verified(&world).await;
    assert!(found.intact && found.notes.is_empty(), "{found:?}");
    let anchored = anchor.heads().unwrap();
    world.segment().await;

    // A copy beside the server says nothing in the server's file, though somebody was erased again in it.
    let beside =
        world.restore(When::At(before), Destination::Beside(world.path("beside"))).await.unwrap();
    assert_eq!(beside.erased_again, 1);
    assert_eq!(anchor.heads().unwrap(), anchored);
    assert!(verified(&world).await.notes.is_empty());

    world.stack.stop_server(Server::Primary).await.unwrap();
    let restored = world.restore(When::At(before), Destination::InPlace).await.unwrap();
    assert_eq!(restored.erased_again, 1);
    world.stack.start_primary().await.unwrap();
    let head = anchor.heads().unwrap().pop().unwrap();
    assert!(head.restored && head.position == anchored[0].position, "{head:?} {anchored:?}");
    // What a service does from now on, and what somebody asks then.
    sealed_and_anchored(&world.config).await;
    let found = verified(&world).await;
    assert!(found.intact && found.unsealed == 0, "{found:?}");
    assert_eq!(found.notes.len(), 1, "{found:?}");
    let (note, position) = (&found.notes[0], head.position);
    assert!(note.contains(&format!("went on at position {position}, and ")), "{note}");
    assert!(note.contains("anchored heads behind that are lost"), "{note}");
    let client = world.db.superuser().await;
    let rewound =
        "SELECT count(*) FROM public.audit_log l JOIN public.audit_seals s ON s.entry_id = l.id
                   WHERE action = 'installation.rewound' AND details->>'erased_again' = '1'";
    assert_eq!(client.query_typed_one(rewound, &[]).await.unwrap().get::<_, i64>(0), 1);
    // And what was sealed before the moment is held as before.
    let change = format!(
        "ALTER TABLE public.audit_seals DISABLE TRIGGER audit_seals_append_only;
         UPDATE public.audit_seals SET hash = sha256('x') WHERE position = {position}"
    );
    client.batch_execute(&change).await.unwrap();
    assert!(!verified(&world).await.intact);
    drop(client);
    world.stop().await;
}

/// A restore in place that was killed after it had told the file: the server is what it was, and its log, too.
#[tokio::test]
async fn the_log_of_a_server_that_was_not_restored_after_all_is_no_alarm() {
    let world = World::new().await;
    sealed_and_anchored(&world.config).await;
    let anchor = Anchor::find(&world.config).unwrap();
    let gone = world.db.tenant("gone").await;
    sealed_and_anchored(&world.config).await;
    world.back_up().await;
    pause(&world).await;
    let before = moment(&world).await;
    world.db.purge(&gone).await;
    sealed_and_anchored(&world.config).await;
    world.segment().await;
    let copy =
        world.restore(When::At(before), Destination::Beside(world.path("copy"))).await.unwrap();
    assert_eq!(copy.erased_again, 1);
    // The same that the restore in place does, on the copy.
    let owner = ServerUser::owner_of(&copy.data_dir).unwrap();
    let place = tenantry_stack::canonical(&world.path("")).unwrap().join("looking");
    let mut scratch = tenantry_stack::Scratch::open(&place, &owner).await.unwrap();
    let settings =
        [("max_connections", "400".into()), ("max_prepared_transactions", "1000".into())];
    let patience = std::time::Duration::from_secs(60);
    scratch.start(&copy.data_dir, &settings, patience).await.unwrap();
    let admin = AdminDb::new(&world.config.of_copy(scratch.socket()).unwrap()).unwrap();
    tenantry_db::audit::continue_after_restore(&admin, &anchor).await.unwrap();
    drop(admin);
    scratch.stop().await.unwrap();
    scratch.wipe().await.unwrap();
    assert!(anchor.heads().unwrap().pop().unwrap().restored);
    // The server that is still there goes on.
    world.db.tenant("latest").await;
    sealed_and_anchored(&world.config).await;
    let found = verified(&world).await;
    assert!(found.intact, "{found:?}");
    world.stop().await;
}
