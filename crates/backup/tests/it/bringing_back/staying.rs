//! What is kept: for how long, and that a purge takes it.

use tenantry_db::lifecycle::{Authority, Deletion, get_certificate, purge_tenant};

use super::*;

#[tokio::test]
async fn it_goes_after_its_time_but_not_by_one_clock_nor_under_a_hold() {
    let past = Past::new().await;
    let db = &past.world.db;
    // A suspended one stays so.
    suspend_tenant(&db.admin, past.acme.id, &db.actor()).await.unwrap();
    let kept = past.back().await.unwrap().replaced.unwrap();
    let row = get_tenant(&db.reader, &TenantRef::Id(past.acme.id)).await.unwrap();
    assert_eq!((row.status, past.live().await), (Status::Suspended, vec!["A".to_owned()]));
    let due =
        async |host_now| drop_what_is_nobodys(&db.admin, host_now, &db.actor()).await.unwrap();
    let later = Timestamp::now() + Duration::from_secs(30 * 24 * 3600);
    assert_eq!(due(later).await, 0, "the server's clock says no");
    let expire = "UPDATE public.kept_schemas SET keep_until = now() - interval '1 minute'";
    past.client.batch_execute(expire).await.unwrap();
    let earlier = Timestamp::now() - Duration::from_secs(3600);
    assert_eq!(due(earlier).await, 0, "this machine's clock says no");
    hold_tenant(&db.admin, past.acme.id, true, &db.actor()).await.unwrap();
    assert_eq!(due(later).await, 0, "a hold keeps it");
    hold_tenant(&db.admin, past.acme.id, false, &db.actor()).await.unwrap();
    assert_eq!(past.copies().await, [kept.kept_as]);
    assert_eq!(due(later).await, 1);
    assert_eq!(past.copies().await, Vec::<String>::new());
    assert_eq!(past.live().await, ["A"]);
    let nothing = past.undo().await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::NotFound, "{nothing}");
    let entry = "SELECT count(*)::text FROM public.audit_log WHERE action = 'tenant.kept_dropped'";
    assert_eq!(past.text(entry).await, "1");
    past.world.stop().await;
}

#[tokio::test]
async fn a_purge_takes_what_is_kept_and_its_certificate_says_so() {
    let past = Past::new().await;
    let db = &past.world.db;
    past.back().await.unwrap();
    past.undo().await.unwrap();
    // And what somebody left who was killed.
    let left =
        format!("CREATE SCHEMA {}__restoring AUTHORIZATION shared_owner", past.acme.schema());
    past.client.batch_execute(&left).await.unwrap();
    assert_eq!(past.copies().await.len(), 2);
    let (confirm, actor, ledger) = (Some("acme"), db.actor(), db.ledger());
    let deletion = Deletion { confirm, retention: None };
    delete_tenant(&db.admin, &db.config, past.acme.id, deletion, &actor).await.unwrap();
    let authority = Authority::Confirmed { confirm, now: true };
    let report =
        purge_tenant(&db.admin, &ledger, past.acme.id, authority, &actor, |_| {}).await.unwrap();
    assert_eq!(report.existed["copies"], 2, "{report:?}");
    assert_eq!(past.copies().await, Vec::<String>::new());
    assert_eq!(past.text("SELECT count(*)::text FROM public.kept_schemas").await, "0");
    let certificate = get_certificate(&db.reader, past.acme.id).await.unwrap();
    let text = format!("{certificate:?}");
    assert!(text.contains("kept_schemas"), "{text}");
    past.world.stop().await;
}

#[tokio::test]
async fn a_damaged_backup_does_not_keep_a_tenant_from_coming_back() {
    let past = Past::with(|_| String::new()).await;
    let older = past.world.engine.repository().await.unwrap().newest().unwrap().label.clone();
    let damaged = past.world.back_up().await.label;
    crate::damage::flip(&past.world, &damaged);
    let restored = past.go(When::Now, TenantAim::New("acme-now")).await.unwrap();
    assert_eq!(restored.backup, older);
    assert!(restored.notes.iter().any(|note| note.contains(&damaged)), "{:?}", restored.notes);
    let made = restored.made.unwrap();
    assert_eq!(past.teams(&made.tenant.schema().to_string()).await, ["A", "B"]);
    past.assert_wiped();
    past.world.stop().await;
}
