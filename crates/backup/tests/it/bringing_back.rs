//! One tenant brought back alone: what it has then, what others notice, what is left behind.

mod breaking_off;
pub(crate) mod past;
mod staying;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tenantry_backup::{
    Error, TenantAim, TenantRestore, TenantRestored, TenantStep, When, restore_tenant,
    undo_restore_tenant,
};
use tenantry_db::lifecycle::{delete_tenant, drop_what_is_nobodys, hold_tenant, suspend_tenant};
use tenantry_db::migrate::{
    Migrations, Rollout, RolloutOptions, Stop, fingerprint, fleet_status, template,
};
use tenantry_db::models::tenants::{Status, Tenant, get_tenant};
use tenantry_db::{ErrorKind, TenantDb, TenantRef};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use self::past::Past;
use crate::world::{World, until};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Somebody who writes without a pause. Yields the numbers that were acknowledged.
fn write(db: TenantDb, stop: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut written = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let name = format!("w{:05}", written.len());
            let add = "INSERT INTO teams (name) VALUES ($1)";
            db.execute(add, &[(&name, Type::TEXT)]).await.unwrap();
            written.push(name);
            tokio::task::yield_now().await;
        }
        written
    })
}

#[tokio::test]
async fn one_comes_back_while_ten_others_and_itself_write() {
    let mut past = Past::new().await;
    let mut others = Vec::new();
    for n in 0..10 {
        others.push(past.world.db.tenant(&format!("other{n}")).await);
    }
    past.migrate_on().await;
    past.add("C").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for tenant in &others {
        writers.push(write(past.open(tenant).await, Arc::clone(&stop)));
    }
    let own = write(past.open(&past.acme).await, Arc::clone(&stop));
    let schema = past.acme.schema();
    let before = fingerprint(&past.world.db.reader, schema).await.unwrap();
    let deadlocks = "SELECT sum(deadlocks)::text FROM pg_stat_database";
    let restored = past.back().await.unwrap();
    let replaced = restored.replaced.unwrap();
    stop.store(true, Ordering::Relaxed);
    past.assert_wiped();

    // Nobody lost anything, nor was anybody refused.
    for (tenant, writer) in others.iter().zip(writers) {
        let written = writer.await.unwrap();
        assert!(!written.is_empty());
        let there = past.teams(&tenant.schema().to_string()).await;
        assert!(
            written.iter().all(|name| there.contains(name)) && there.len() == written.len() + 1
        );
    }
    assert_eq!(past.text(deadlocks).await, "0");
    // What it wrote itself is in the one or in the other.
    let (kept, live) = (past.teams(&replaced.kept_as).await, past.live().await);
    for name in own.await.unwrap() {
        assert!(kept.contains(&name) != live.contains(&name), "{name} is in one of both");
    }
    let of_old = |names: &[String]| {
        names.iter().filter(|it| !it.starts_with('w')).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_old(&live), ["A", "by a migration"]);
    assert_eq!(of_old(&kept), ["A", "B", "C", "by a migration"]);

    // As every other tenant, at head: the same schema as before, brought forward from its own rows.
    let now = fingerprint(&past.world.db.reader, schema).await.unwrap();
    assert_eq!(before.difference(&now), Vec::<String>::new());
    assert_eq!((replaced.from_version, replaced.version), (2, 101));
    let migrations = Migrations::load(&past.world.config.migrations).unwrap();
    let fleet = fleet_status(&past.world.db.reader, &migrations).await.unwrap();
    assert!(fleet.behind.is_empty(), "{fleet:?}");
    assert_eq!(past.ledger().await, "2,101");
    assert_eq!(past.text(&format!("SELECT teams::text FROM {schema}.later")).await, "1");
    past.assert_all_is_there().await;
    // Also what a migration's trigger wrote, was in the copy.
    let notes = format!(
        "SELECT count(*)::text FROM {}.notes WHERE what = 'by a migration'",
        replaced.kept_as
    );
    assert_eq!(past.text(&notes).await, "1", "the copy's migration wrote nothing here");

    // It can write at once, also to what comes later; no number is given twice.
    let acme = past.open(&past.acme).await;
    let add = "INSERT INTO content (title) VALUES ('new') RETURNING number";
    let number: i64 = acme.query_one(add, &[]).await.unwrap().get(0);
    // After a recovery a sequence may have gone on by itself.
    assert!(number > 3, "A, B and C had 1 to 3: {number}");
    acme.execute("INSERT INTO later (teams) VALUES (7)", &[]).await.unwrap();
    let table =
        format!("SET ROLE shared_owner; CREATE TABLE {schema}.tomorrow (n int); RESET ROLE");
    past.client.batch_execute(&table).await.unwrap();
    acme.execute("INSERT INTO tomorrow VALUES (1)", &[]).await.unwrap();
    past.world.stop().await;
}

#[tokio::test]
async fn what_was_undone_is_as_before_and_no_lane_reaches_what_is_kept() {
    let mut past = Past::new().await;
    let before = fingerprint(&past.world.db.reader, past.acme.schema()).await.unwrap();
    let kept = past.back().await.unwrap().replaced.unwrap().kept_as;
    assert_eq!(past.live().await, ["A"]);
    past.add("after").await;
    let lane = past.world.db.lane_direct(past.acme.lane).await;
    let bind = format!("BEGIN; SET LOCAL ROLE {}", past.acme.schema());
    for table in ["teams", "notes"] {
        lane.batch_execute(&bind).await.unwrap();
        let refused = lane.batch_execute(&format!("SELECT FROM {kept}.{table}")).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501");
        lane.batch_execute("ROLLBACK").await.unwrap();
    }

    let undone = past.undo().await.unwrap();
    assert_eq!(past.live().await, ["A", "B"]);
    assert_eq!(past.teams(&undone.kept_as).await, ["A", "after"]);
    assert_eq!(past.copies().await, std::slice::from_ref(&undone.kept_as));
    let now = fingerprint(&past.world.db.reader, past.acme.schema()).await.unwrap();
    assert_eq!(before.difference(&now), Vec::<String>::new());
    // A number that was given in the meantime is not given again.
    let acme = past.open(&past.acme).await;
    let add = "INSERT INTO content (title) VALUES ('new') RETURNING number";
    let number: i64 = acme.query_one(add, &[]).await.unwrap().get(0);
    let given = format!("SELECT max(number)::text FROM {}.content", undone.kept_as);
    assert!(number > past.text(&given).await.parse().unwrap(), "{number}");
    past.undo().await.unwrap();
    assert_eq!(past.live().await, ["A", "after"]);
    let entries = format!(
        "SELECT action FROM public.audit_log WHERE tenant_id = '{}' AND action LIKE 'tenant.rew%' ORDER BY id",
        past.acme.id
    );
    assert_eq!(
        past.texts(&entries).await,
        ["tenant.rewound", "tenant.rewind_undone", "tenant.rewind_undone"]
    );
    // Who was migrated in the meantime is at its former version again, and says so.
    past.undo().await.unwrap();
    past.undo().await.unwrap();
    past.migrate_on().await;
    let undone = past.undo().await.unwrap();
    assert_eq!((undone.former_version, undone.version), (101, 2));
    assert_eq!(past.ledger().await, "2");
    let row = get_tenant(&past.world.db.reader, &TenantRef::Id(past.acme.id)).await.unwrap();
    assert_eq!(row.schema_version, 2);
    past.migrate_on().await;
    assert_eq!(past.ledger().await, "2,101");
    past.world.stop().await;
}

#[tokio::test]
async fn as_another_tenant_it_is_there_to_be_looked_at() {
    let past = Past::with(|_| String::new()).await;
    let aim = TenantAim::New("acme-then");
    let restored = past.go(When::At(past.moment), aim).await.unwrap();
    let made = restored.made.unwrap();
    assert_eq!((made.tenant.subdomain.as_deref(), made.source), (Some("acme-then"), past.acme.id));
    assert_eq!(past.teams(&made.tenant.schema().to_string()).await, ["A"]);
    assert_eq!(past.live().await, ["A", "B"], "the tenant itself is left alone");
    let new = past.open(&made.tenant).await;
    new.execute("INSERT INTO teams (name) VALUES ('x')", &[]).await.unwrap();
    let entry = format!(
        "SELECT details->>'source_tenant_id' FROM public.audit_log WHERE tenant_id = '{}' AND action = 'tenant.rewound'",
        made.tenant.id
    );
    assert_eq!(past.text(&entry).await, past.acme.id.to_string());
    past.assert_wiped();
    let taken = past.go(When::At(past.moment), aim).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict, "{taken}");
    let odd = past.go(When::At(past.moment), TenantAim::New("No Name")).await.unwrap_err();
    assert_eq!(odd.kind(), ErrorKind::Invalid, "{odd}");
    past.world.stop().await;
}
