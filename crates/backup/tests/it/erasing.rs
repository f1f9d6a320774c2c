//! Until when the repository holds whom a purge has removed, and what the certificate says of it.

use std::os::unix::process::CommandExt as _;

use jiff::{SignedDuration, Timestamp};
use tenantry_db::lifecycle::{
    Certificate, check_certificate, get_certificate, look_at_certificates, refresh_certificate,
    rewrite_statistics,
};
use tenantry_db::models::tenants::Tenant;
use tenantry_stack::ServerUser;

use crate::world::{World, until};

async fn pause(world: &World) {
    until(&world.db.superuser().await, "SELECT pg_sleep(1.1) IS NOT NULL").await;
}

async fn refreshed(world: &World, tenant: &Tenant) -> Certificate {
    refresh_certificate(&world.db.admin, tenant.id, &world.db.actor()).await.unwrap()
}

/// pgBackRest removes everything but the newest full backup, and the log before the newest `logs` ones.
async fn expire(world: &World, logs: u32) {
    let owner = ServerUser::owner_of(&world.path("data/primary")).unwrap();
    let done = std::process::Command::new("pgbackrest")
        .arg(format!("--config={}", world.path("backup/pgbackrest.conf").display()))
        .args([
            "--stanza=tenantry",
            "--repo1-retention-full-type=count",
            "--repo1-retention-full=1",
        ])
        .arg(format!("--repo1-retention-archive={logs}"))
        .args(["--repo1-retention-archive-type=full", "expire"])
        .uid(owner.uid)
        .gid(owner.gid)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    world.engine.report(&world.db.admin).await.unwrap();
}

#[tokio::test]
async fn a_purged_tenant_is_erased_when_the_repository_was_seen_without_it() {
    let world = World::new().await;
    let (gone, younger) = (world.db.tenant("gone").await, world.db.tenant("younger").await);
    let first = world.back_up().await;
    world.db.purge(&gone).await;
    rewrite_statistics(&world.db.admin).await.unwrap();
    let certificate = refreshed(&world, &gone).await;
    let complete = certificate.document().clone();
    assert!(certificate.is_complete() && !certificate.is_erased(), "{certificate}");
    let until_at: Timestamp =
        complete["backups"]["hold"]["until"].as_str().unwrap().parse().unwrap();
    let rewritten = complete["seen"]["statistics_rewritten_at"].as_str().unwrap();
    let rewritten: Timestamp = rewritten.parse().unwrap();
    // A full interval, the retention, and one more backup.
    assert_eq!(until_at.duration_since(rewritten), SignedDuration::from_hours(24 * 16));
    assert!(certificate.to_string().contains("hold the tenant's data until"), "{certificate}");

    pause(&world).await;
    let second = world.back_up().await;
    let still = refreshed(&world, &gone).await;
    assert_eq!(still.document(), &complete, "`{}` holds it still", first.label);
    // Without the first backup, but with the log of before: one that is in the log could be brought back.
    expire(&world, 99).await;
    let labels: Vec<String> =
        world.engine.repository().await.unwrap().backups.into_iter().map(|it| it.label).collect();
    assert_eq!(labels, std::slice::from_ref(&second.label));
    assert_eq!(refreshed(&world, &gone).await.document(), &complete);
    // One that is purged only now is in the backup that is left.
    world.db.purge(&younger).await;
    rewrite_statistics(&world.db.admin).await.unwrap();
    assert!(refreshed(&world, &younger).await.is_complete());

    expire(&world, 1).await;
    // What a service does now and then.
    assert_eq!(look_at_certificates(&world.db.admin, &world.db.actor()).await.unwrap(), 0);
    let erased = get_certificate(&world.db.reader, gone.id).await.unwrap();
    assert!(erased.is_erased() && erased.is_complete(), "{erased}");
    let document = erased.document();
    assert_eq!(document["supersedes_sha256"], certificate.sha256());
    assert!(document["backups"]["hold"]["gone"].is_string(), "{document}");
    assert_eq!(document["backups"]["newest_backup"], second.label);
    assert!(!refreshed(&world, &younger).await.is_erased());
    // It is said once, and looking again says the same.
    assert_eq!(refreshed(&world, &gone).await.sha256(), erased.sha256());
    let said = "SELECT count(*) FROM public.audit_log WHERE action = 'tenant.erased'";
    let client = world.db.superuser().await;
    assert_eq!(client.query_typed_one(said, &[]).await.unwrap().get::<_, i64>(0), 1);
    // Both that may have been filed are known.
    for (filed, words) in [(&certificate, "get the newest"), (&erased, "seen without")] {
        let filed = serde_json::to_value(filed).unwrap();
        let checks =
            check_certificate(&filed, Some(&world.db.ledger()), Some(&world.db.reader)).await;
        let checks = checks.unwrap();
        assert!(checks.iter().all(|check| check.holds == Some(true)), "{checks:?}");
        assert!(checks[2].detail.contains(words), "{checks:?}");
    }
    let mut forged = serde_json::to_value(&certificate).unwrap();
    forged["erased"] = true.into();
    let checks = check_certificate(&forged, None, Some(&world.db.reader)).await.unwrap();
    assert_eq!(checks[0].holds, Some(false));
    drop(client);
    world.stop().await;
}

/// Somebody moves the repository, or what is mounted there is away and another one is begun.
#[tokio::test]
async fn a_repository_that_was_begun_anew_says_nothing_of_the_one_before() {
    let world = World::new().await;
    let gone = world.db.tenant("gone").await;
    world.back_up().await;
    world.db.purge(&gone).await;
    rewrite_statistics(&world.db.admin).await.unwrap();
    assert!(refreshed(&world, &gone).await.is_complete());
    std::fs::rename(world.path("repository"), world.path("away")).unwrap();
    let owner = ServerUser::owner_of(&world.path("data/primary")).unwrap();
    tenantry_stack::files::ensure_directory(&world.path("repository"), 0o700, Some(&owner))
        .unwrap();
    pause(&world).await;
    world.back_up().await;
    let certificate = refreshed(&world, &gone).await;
    assert!(!certificate.is_erased(), "{certificate}");
    let found = world.engine.report(&world.db.admin).await.unwrap();
    assert_eq!(found.report.holding.unwrap().former.len(), 1);
    world.stop().await;
}
