//! The ready pool: handed out once each, never behind head, filled by one at a time, and whole or absent
//! like every tenant.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tenantry_db::lifecycle::{NewTenant, create_tenant, fill_ready_pool, suspend_tenant};
use tenantry_db::migrate::{RolloutOptions, Tenants, fingerprint, fleet_status};
use tenantry_db::models::ready::ready_stock;
use tenantry_db::models::tenants::{count_by_lane, find_tenant};
use tenantry_db::{Config, Error, Installation, Subdomain, TenantId, TenantRef};
use tenantry_testing::TestDatabase;

use crate::migrate::{files, roll};
use crate::texts;

/// An installation with so many ready.
pub(crate) async fn stocked(db: &TestDatabase, target: i64) -> Installation {
    let installation = installation(db, target, None);
    while fill_ready_pool(&installation).await.unwrap() > 0 {}
    installation
}

/// One that wants so many, with other migrations if they are given.
pub(crate) fn installation(
    db: &TestDatabase,
    target: i64,
    migrations: Option<&std::path::Path>,
) -> Installation {
    let mut layers = db.servers().layers(db.name(), "shared");
    layers = layers.flag("test", "tenants.ready_pool", target);
    if let Some(dir) = migrations {
        layers = layers.flag("test", "migrations.dir", dir.display().to_string());
    }
    Installation::new(Config::from_layers(layers).unwrap()).unwrap()
}

async fn ready(db: &TestDatabase) -> Vec<TenantId> {
    let ids = "SELECT id::text FROM public.tenants WHERE status = 'ready' ORDER BY created_at, id";
    texts(&db.superuser().await, ids).await.iter().map(|id| id.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_ready_one_is_whole_invisible_and_like_every_other_once_it_is_taken() {
    let db = TestDatabase::new().await;
    let installation = stocked(&db, 7).await;
    let pool = ready(&db).await;
    assert_eq!(pool.len(), 7);
    let made = db.tenant("made").await;
    assert_eq!(made.id, pool[0], "the oldest is taken first");
    let by_hand = NewTenant::new(&db.config, "Other", "other", None, Default::default()).unwrap();
    let empty = TestDatabase::new().await;
    let direct = create_tenant(&empty.admin, &empty.migrations, &by_hand, &empty.actor()).await;
    let expected = fingerprint(&empty.reader, direct.unwrap().schema()).await.unwrap();
    for id in &pool {
        let found = fingerprint(&db.reader, id.schema()).await.unwrap();
        assert_eq!(expected.difference(&found), Vec::<String>::new());
    }
    for id in &pool[1..] {
        assert!(find_tenant(&db.reader, &TenantRef::Id(*id)).await.unwrap().is_none());
        assert!(installation.directory().find(*id).await.unwrap().is_none());
        let refused = suspend_tenant(&db.admin, *id, &db.actor()).await.unwrap_err();
        assert!(matches!(refused, Error::TenantNotFound(_)), "{refused}");
    }
    assert_eq!(count_by_lane(&db.reader).await.unwrap(), [(made.lane, 1)]);
    // The same row as one that was provisioned at once, with the moment of the sign-up.
    assert_eq!((made.status.as_str(), made.tier.as_str()), ("active", "free"));
    assert_eq!(made.created_at, made.updated_at);
    let superuser = db.superuser().await;
    let since = "SELECT (t.created_at > m.applied_at)::text FROM public.tenants t
                 JOIN public.migrations m ON m.schema_name = 'tenant_' || replace(t.id::text, '-', '')
                 WHERE t.status = 'active'";
    assert_eq!(texts(&superuser, since).await, ["true"]);
    let audited =
        "SELECT actor || ' ' || action || ' ' || tenant_id || ' ' || details FROM public.audit_log";
    let entry = format!(
        "test tenant.created {} {{\"tier\": \"free\", \"schema_version\": {}}}",
        made.id,
        db.migrations.tenant.head()
    );
    assert_eq!(texts(&superuser, audited).await, [entry]);
    // And it is served, by the lane that it was made for.
    let entry = installation.directory().find(made.id).await.unwrap().unwrap();
    let tenant = installation.tenant_db(entry).unwrap();
    tenant.execute("INSERT INTO teams (name) VALUES ('x')", &[]).await.unwrap();
    let checks = tenantry_db::doctor::examine(installation.config(), &db.migrations).await;
    let bad: Vec<_> =
        checks.iter().filter(|c| c.outcome != tenantry_db::doctor::Outcome::Ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[tokio::test]
async fn many_claimers_of_few_get_each_one_once_and_none_is_lost() {
    let db = TestDatabase::new().await;
    stocked(&db, 12).await;
    let pool: BTreeSet<_> = ready(&db).await.into_iter().collect();
    let names: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
    let created = join_all(names.iter().map(|name| db.create(name))).await;
    let created: Vec<_> = created.into_iter().map(Result::unwrap).collect();
    let ids: BTreeSet<_> = created.iter().map(|tenant| tenant.id).collect();
    assert_eq!(ids.len(), 40, "none was given to two");
    assert!(pool.is_subset(&ids), "none was left");
    assert!(ready(&db).await.is_empty());
    let superuser = db.superuser().await;
    let entries = "SELECT count(DISTINCT tenant_id)::text || ' ' || count(*) FROM public.audit_log
                   WHERE action = 'tenant.created'";
    assert_eq!(texts(&superuser, entries).await, ["40 40"]);
    for tenant in &created {
        fingerprint(&db.reader, tenant.schema()).await.unwrap();
    }
}

#[tokio::test]
async fn one_that_somebody_is_taking_is_passed_over_and_not_waited_for() {
    let db = TestDatabase::new().await;
    stocked(&db, 2).await;
    let pool = ready(&db).await;
    let mut holder = db.superuser().await;
    let tx = holder.transaction().await.unwrap();
    let hold = format!("SELECT FROM public.tenants WHERE id = '{}' FOR UPDATE", pool[0]);
    tx.batch_execute(&hold).await.unwrap();
    assert_eq!(db.tenant("second").await.id, pool[1]);
    let direct = db.tenant("direct").await;
    assert!(!pool.contains(&direct.id));
    tx.rollback().await.unwrap();
    assert_eq!(db.tenant("first").await.id, pool[0]);
}

#[tokio::test]
async fn a_taken_subdomain_takes_nothing_also_one_that_may_be_restored() {
    let db = TestDatabase::new().await;
    stocked(&db, 3).await;
    db.tenant("acme").await;
    let superuser = db.superuser().await;
    for status in [
        "",
        "UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now() WHERE subdomain = 'acme'",
    ] {
        superuser.batch_execute(status).await.unwrap();
        let error = db.create("acme").await.unwrap_err();
        assert!(matches!(error, Error::SubdomainTaken(_)), "{error}");
        assert_eq!(ready(&db).await.len(), 2);
    }
    for round in 0..5 {
        let name = format!("t{round}");
        let both = [db.create(&name), db.create(&name)];
        let made = join_all(both).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(made, 1);
    }
}

#[tokio::test]
async fn what_is_behind_head_waits_for_the_migration_and_is_not_handed_out() {
    let db = TestDatabase::new().await;
    stocked(&db, 2).await;
    let old = ready(&db).await;
    let dir = files(&[("tenant/9001_x.up.sql", "CREATE TABLE x (id bigint PRIMARY KEY);")]);
    let newer = installation(&db, 2, Some(dir.path()));
    let create = async |name: &str| {
        let new = NewTenant::new(&db.config, name, name, None, Default::default()).unwrap();
        create_tenant(newer.admin(), newer.migrations(), &new, &db.actor()).await.unwrap()
    };
    let direct = create("direct").await;
    assert_eq!((old.contains(&direct.id), direct.schema_version), (false, 9001));
    let stock = ready_stock(&db.reader, &newer.migrations().tenant).await.unwrap();
    assert_eq!((stock.claimable, stock.ahead, stock.all), (0, 0, 2));
    // The fleet's migration finds them like all others.
    let status = fleet_status(&db.reader, newer.migrations()).await.unwrap();
    let mut waiting: Vec<_> = status.behind.iter().map(|tenant| tenant.id).collect();
    waiting.sort();
    let mut expected = old.clone();
    expected.sort();
    assert_eq!(waiting, expected);
    // Nobody can have them, so as many are made; never more than twice the target.
    while fill_ready_pool(&newer).await.unwrap() > 0 {}
    let stock = ready_stock(&db.reader, &newer.migrations().tenant).await.unwrap();
    assert_eq!((stock.claimable, stock.all), (2, 4));
    // An older program does not take those, nor does it fill the pool with old ones.
    let stock = ready_stock(&db.reader, &db.migrations.tenant).await.unwrap();
    assert_eq!((stock.claimable, stock.ahead), (2, 2));
    assert_eq!(fill_ready_pool(&installation(&db, 3, None)).await.unwrap(), 0);
    let mut options = RolloutOptions::to_head(&db.config.migrations);
    (options.public, options.tenants) = (false, Tenants::Only(old.clone()));
    assert_eq!(roll(&db, newer.migrations(), &options).await.unwrap().tenants.done, 2);
    assert!(old.contains(&create("migrated").await.id), "the oldest, now at head");
    // What is left is above the head of this one: it makes its own.
    assert_eq!(db.tenant("old-program").await.schema_version, db.migrations.tenant.head());
}

#[tokio::test]
async fn what_has_an_older_edition_of_the_repeatable_files_is_behind_too() {
    let db = TestDatabase::new().await;
    stocked(&db, 1).await;
    let view = "CREATE OR REPLACE VIEW people AS SELECT id, name FROM users;";
    let dir = files(&[("tenant/repeatable/people.sql", view)]);
    let newer = installation(&db, 1, Some(dir.path()));
    let stock = ready_stock(&db.reader, &newer.migrations().tenant).await.unwrap();
    assert_eq!((stock.claimable, stock.all), (0, 1));
    let new = NewTenant::new(&db.config, "acme", "acme", None, Default::default()).unwrap();
    let made = create_tenant(newer.admin(), newer.migrations(), &new, &db.actor()).await.unwrap();
    assert!(!ready(&db).await.is_empty(), "it made its own");
    let people = format!("SELECT name FROM {}.people", made.schema());
    assert!(texts(&db.superuser().await, &people).await.is_empty());
}

#[tokio::test]
async fn nothing_is_handed_out_while_the_public_schema_is_behind() {
    let db = TestDatabase::new().await;
    stocked(&db, 1).await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "DELETE FROM public.migrations WHERE schema_name = 'public'
             AND version = (SELECT max(version) FROM public.migrations WHERE schema_name = 'public')",
        )
        .await
        .unwrap();
    let error = db.create("acme").await.unwrap_err();
    assert!(matches!(error, Error::Behind { .. }), "{error}");
    assert_eq!(ready(&db).await.len(), 1);
    superuser.batch_execute("DROP TABLE public.migrations").await.unwrap();
    for error in [
        db.create("acme").await.unwrap_err(),
        fill_ready_pool(&installation(&db, 5, None)).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Behind { found: 0, .. }), "{error}");
    }
}

#[tokio::test]
async fn several_instances_fill_it_at_once_and_never_beyond_the_target() {
    let db = TestDatabase::new().await;
    let instances: Vec<_> = (0..4).map(|_| installation(&db, 13, None)).collect();
    let fill = async |installation: &Installation| {
        // Until it is full, whoever filled it.
        while ready(&db).await.len() < 13 {
            fill_ready_pool(installation).await.unwrap();
        }
        fill_ready_pool(installation).await.unwrap()
    };
    let more = join_all(instances.iter().map(fill)).await;
    assert_eq!(more, [0; 4]);
    assert_eq!(ready(&db).await.len(), 13);
    // Taken away while they fill: still no more.
    let (_, filled) = tokio::join!(
        async {
            for n in 0..8 {
                db.tenant(&format!("t{n}")).await;
            }
        },
        join_all(instances.iter().map(async |i| {
            for _ in 0..6 {
                fill_ready_pool(i).await.unwrap();
                assert!(ready(&db).await.len() <= 13);
            }
        }))
    );
    drop(filled);
    // One that was told to keep none makes none, and takes none away.
    let before = ready(&db).await.len();
    assert_eq!(fill_ready_pool(&installation(&db, 0, None)).await.unwrap(), 0);
    assert_eq!(ready(&db).await.len(), before);
}

#[tokio::test]
async fn a_burst_empties_it_and_every_sign_up_succeeds_while_it_is_refilled() {
    let db = TestDatabase::new().await;
    let installation = stocked(&db, 5).await;
    let names: Vec<String> = (0..30).map(|i| format!("t{i}")).collect();
    let filling = async {
        for _ in 0..3 {
            fill_ready_pool(&installation).await.unwrap();
        }
    };
    let (created, ()) = tokio::join!(join_all(names.iter().map(|name| db.create(name))), filling);
    let ids: BTreeSet<_> = created.into_iter().map(|tenant| tenant.unwrap().id).collect();
    assert_eq!(ids.len(), 30);
    while fill_ready_pool(&installation).await.unwrap() > 0 {}
    let left = ready(&db).await;
    assert_eq!(left.len(), 5);
    assert!(left.iter().all(|id| !ids.contains(id)));
}

#[tokio::test]
async fn a_name_given_up_belongs_to_the_next_who_sees_nothing_of_the_former() {
    let db = TestDatabase::new().await;
    let installation = stocked(&db, 2).await;
    let former = db.tenant("acme").await;
    let entry = installation.directory().find(former.id).await.unwrap().unwrap();
    let tenant = installation.tenant_db(entry).unwrap();
    tenant.execute("INSERT INTO teams (name) VALUES ('secret')", &[]).await.unwrap();
    db.purge(&former).await;
    let next = db.tenant("acme").await;
    let name: Subdomain = "acme".parse().unwrap();
    installation.directory().learn(&next).await;
    let entry = installation.directory().find_by_subdomain(&name).await.unwrap().unwrap();
    assert_eq!(entry.id, next.id);
    let tenant = installation.tenant_db(entry).unwrap();
    assert!(tenant.query("SELECT name FROM teams", &[]).await.unwrap().is_empty());
    assert_ne!(next.id, former.id);
}

#[tokio::test]
async fn the_job_keeps_it_full_outlives_an_outage_and_ends_when_told() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let wants_three = installation(&db, 3, None);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let keep = tenantry_db::lifecycle::keep_ready_pool(wants_three, async {
        let _ = stopped.await;
    });
    let keep = tokio::spawn(keep);
    crate::provisioning::until(&superuser, "SELECT '' FROM public.tenants HAVING count(*) = 3")
        .await;
    // A sequence is not rolled back: it counts how often somebody tried.
    superuser
        .batch_execute(
            "CREATE SEQUENCE public.tried;
             CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                 AS $$ BEGIN PERFORM nextval('public.tried'); RAISE 'injected'; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON public.tenants EXECUTE FUNCTION public.fail()",
        )
        .await
        .unwrap();
    db.tenant("acme").await;
    let tried = "SELECT '' FROM public.tried WHERE last_value > 1";
    crate::provisioning::until(&superuser, tried).await;
    superuser
        .batch_execute(
            "DROP TRIGGER fail ON public.tenants;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
    crate::provisioning::until(&superuser, "SELECT '' FROM public.tenants HAVING count(*) = 4")
        .await;
    stop.send(()).unwrap();
    keep.await.unwrap();
    let off = installation(&db, 0, None);
    tenantry_db::lifecycle::keep_ready_pool(off, std::future::pending()).await;
}
