//! Changing a tenant's name, subdomain, tier and settings.

use futures_util::future::join_all;
use serde_json::{Map, json};
use tenantry_db::lifecycle::{TenantChange, suspend_tenant, update_tenant};
use tenantry_db::{Error, ErrorKind, Subdomain};
use tenantry_testing::TestDatabase;

use crate::provisioning::until;
use crate::texts;

fn renamed(db: &TestDatabase, subdomain: &str) -> TenantChange {
    TenantChange::new(&db.config, None, Some(subdomain), None, None).unwrap()
}

#[tokio::test]
async fn what_is_named_changes_and_the_audit_log_says_which_without_values() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let settings: Map<_, _> = json!({"a": "hush"}).as_object().unwrap().clone();
    let change = TenantChange::new(
        &db.config,
        Some(" Acme Two "),
        Some("acme-two"),
        Some("pro"),
        Some(settings.clone()),
    )
    .unwrap();
    let updated = update_tenant(&db.admin, acme.id, &change, &db.actor()).await.unwrap();
    assert_eq!(updated.before.subdomain.as_deref(), Some("acme"));
    let now = updated.now;
    assert_eq!(
        (now.name.as_str(), now.subdomain.as_deref(), now.tier.as_str(), now.settings),
        ("Acme Two", Some("acme-two"), "pro", json!({"a": "hush"}))
    );
    assert!(now.updated_at > acme.updated_at && now.created_at == acme.created_at);
    // The same again changes nothing and is not recorded.
    let again = update_tenant(&db.admin, acme.id, &change, &db.actor()).await.unwrap();
    assert_eq!(again.now.updated_at, now.updated_at);
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    let change = TenantChange::new(&db.config, Some("Three"), None, None, Some(settings)).unwrap();
    update_tenant(&db.admin, acme.id, &change, &db.actor()).await.unwrap();
    let audited =
        "SELECT details::text FROM public.audit_log WHERE action = 'tenant.changed' ORDER BY id";
    assert_eq!(
        texts(&db.superuser().await, audited).await,
        [r#"{"fields": ["name", "subdomain", "tier", "settings"]}"#, r#"{"fields": ["name"]}"#]
    );
}

#[tokio::test]
async fn a_change_is_announced_and_the_former_name_is_free() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let installation = db.installation();
    let directory = installation.directory().clone();
    let follow = tokio::spawn({
        let directory = directory.clone();
        async move { directory.follow().await }
    });
    let [former, next]: [Subdomain; 2] = ["acme", "next"].map(|name| name.parse().unwrap());
    while !directory.is_following() {
        tokio::task::yield_now().await;
    }
    assert!(directory.find_by_subdomain(&former).await.unwrap().is_some());
    assert!(directory.find_by_subdomain(&next).await.unwrap().is_none());
    update_tenant(&db.admin, acme.id, &renamed(&db, "next"), &db.actor()).await.unwrap();
    let heard = async || {
        directory.find_by_subdomain(&former).await.unwrap().is_none()
            && directory.find_by_subdomain(&next).await.unwrap().is_some()
    };
    for _ in 0..500 {
        if heard().await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(heard().await);
    assert_ne!(db.tenant("acme").await.id, acme.id);
    follow.abort();
}

#[tokio::test]
async fn only_what_is_unchanged_since_it_was_seen() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let names: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let changes = names.iter().map(|name| renamed(&db, name).if_unchanged_since(acme.updated_at));
    let changes: Vec<_> = changes.collect();
    let actor = db.actor();
    let updates = changes.iter().map(|change| update_tenant(&db.admin, acme.id, change, &actor));
    let done = join_all(updates).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "no update is lost");
    for error in done.into_iter().filter_map(Result::err) {
        assert!(matches!(error, Error::ChangedMeanwhile(_)), "{error}");
    }
}

#[tokio::test]
async fn what_is_taken_deleted_or_swapped_is_refused() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let actor = db.actor();
    let error = update_tenant(&db.admin, acme.id, &renamed(&db, "globex"), &actor).await;
    assert!(matches!(error, Err(Error::SubdomainTaken(_))), "{error:?}");
    // Each wants the other's name at once: none can have it, and nothing breaks.
    let (to_acme, to_globex) = (renamed(&db, "acme"), renamed(&db, "globex"));
    for _ in 0..10 {
        let (one, two) = tokio::join!(
            update_tenant(&db.admin, acme.id, &to_globex, &actor),
            update_tenant(&db.admin, globex.id, &to_acme, &actor)
        );
        for error in [one.unwrap_err(), two.unwrap_err()] {
            assert!(matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Busy), "{error}");
        }
    }
    let superuser = db.superuser().await;
    // Somebody gives up a name and then wants the row of whoever waits for it.
    superuser
        .batch_execute(
            "SET deadlock_timeout = '1min'; BEGIN;
             UPDATE public.tenants SET subdomain = 'given-up' WHERE subdomain = 'globex'",
        )
        .await
        .unwrap();
    let other = db.superuser().await;
    let waiting = "SELECT '' FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let (refused, held) =
        tokio::join!(update_tenant(&db.admin, acme.id, &to_globex, &actor), async {
            until(&other, waiting).await;
            superuser
                .batch_execute(
                    "UPDATE public.tenants SET name = name WHERE subdomain = 'acme'; ROLLBACK",
                )
                .await
        });
    held.unwrap();
    assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    for status in [
        "status = 'deleted', deleted_at = now(), purge_after = now()",
        "status = 'purging'",
        "status = 'purged', purged_at = now(), name = '', subdomain = NULL, settings = '{}'",
    ] {
        let update = format!("UPDATE public.tenants SET {status} WHERE id = '{}'", acme.id);
        superuser.batch_execute(&update).await.unwrap();
        let error =
            update_tenant(&db.admin, acme.id, &renamed(&db, "x"), &actor).await.unwrap_err();
        assert!(matches!(error, Error::InvalidState { .. }), "{error}");
    }
    let ready =
        "UPDATE public.tenants SET status = 'ready', subdomain = NULL WHERE subdomain = 'globex'";
    superuser.batch_execute(ready).await.unwrap();
    let error = update_tenant(&db.admin, globex.id, &renamed(&db, "x"), &actor).await.unwrap_err();
    assert!(matches!(error, Error::TenantNotFound(_)), "{error}");
}

#[tokio::test]
async fn bad_values_are_all_named() {
    let db = TestDatabase::new().await;
    let error =
        TenantChange::new(&db.config, Some(""), Some("WWW"), Some("gold"), None).unwrap_err();
    insta::assert_snapshot!(error, @"the name is empty; `WWW` is not a usable subdomain: only `a-z`, `0-9` and `-` may stand in it; `gold` is not a tier: there are `enterprise`, `free`, `pro`");
}
