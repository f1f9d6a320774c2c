//! After a restore: whom the erasure ledger names goes again, whatever happens meanwhile, and nobody is
//! served before.

use tenantry_db::lifecycle::{
    ErasureError, Reapplied, get_certificate, hold_tenant, reapply_ledger,
    require_erased_stay_erased, suspend_tenant,
};
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Error, TenantId};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use super::{assert_gone, purge};
use crate::deletion::delete;
use crate::texts;

/// As after a restore of a backup that is older than their purges: the tenants are there, the ledger names them,
/// and this database knows nothing of that. (The ledger is written by another database's purges.)
async fn restored(db: &TestDatabase, tenants: &[TenantId]) {
    let dir = db.config.erasure.ledger_dir.clone().unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let mut text = String::new();
    let mut previous = "0".repeat(64);
    for (n, tenant) in tenants.iter().enumerate() {
        let line = format!(
            r#"{{"sequence":{},"recorded_at":"2026-01-01T00:00:00Z","tenant_id":"{tenant}","previous":"{previous}"}}"#,
            n + 1
        );
        previous = hex(&line);
        text += &(line + "\n");
    }
    std::fs::write(dir.join("erasures.jsonl"), text).unwrap();
}

fn hex(line: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn reapply(db: &TestDatabase) -> Result<Reapplied, Error> {
    reapply_ledger(&db.admin, &db.ledger(), &db.actor(), |_, _| {}).await
}

fn ledger(db: &TestDatabase) -> Vec<u8> {
    std::fs::read(db.config.erasure.ledger_dir.clone().unwrap().join("erasures.jsonl")).unwrap()
}

/// In each state that a restore may bring back.
async fn in_every_state(db: &TestDatabase, superuser: &Client) -> Vec<Tenant> {
    let mut tenants = Vec::new();
    for name in ["active", "suspended", "deleted", "held", "purging", "ready"] {
        let tenant = db.tenant(name).await;
        let id = tenant.id;
        match name {
            "suspended" => drop(suspend_tenant(&db.admin, id, &db.actor()).await.unwrap()),
            "deleted" => drop(delete(db, &tenant).await),
            "held" => drop(hold_tenant(&db.admin, id, true, &db.actor()).await.unwrap()),
            "purging" => {
                delete(db, &tenant).await;
                let set = format!(
                    "UPDATE public.tenants SET status = 'purging' WHERE id = '{id}';
                     INSERT INTO public.purges (tenant_id, actor) VALUES ('{id}', 'x')"
                );
                superuser.batch_execute(&set).await.unwrap();
            }
            "ready" => {
                let set = format!(
                    "UPDATE public.tenants SET status = 'ready', name = '', subdomain = NULL WHERE id = '{id}'"
                );
                superuser.batch_execute(&set).await.unwrap();
            }
            _ => {}
        }
        tenants.push(tenant);
    }
    tenants
}

#[tokio::test]
async fn whatever_state_they_came_back_in_they_go_again_and_others_stay() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let other = db.tenant("other").await;
    let back = in_every_state(&db, &superuser).await;
    let unknown = TenantId::random();
    let ids: Vec<TenantId> = back.iter().map(|tenant| tenant.id).chain([unknown]).collect();
    restored(&db, &ids).await;
    let before = ledger(&db);
    let served = require_erased_stay_erased(&db.reader, &db.ledger()).await.unwrap_err();
    let Error::Erasure(ErasureError::ErasedBefore(served)) = served else { panic!("{served:?}") };
    assert_eq!(served.len(), 5, "all but the one that is being purged");
    let report = reapply(&db).await.unwrap();
    assert_eq!((report.entries, report.nothing_to_do), (7, 1));
    assert_eq!(report.failed, []);
    assert_eq!(report.purged, &ids[..6]);
    for tenant in &back {
        assert_gone(&db, &superuser, tenant).await;
    }
    assert_eq!(ledger(&db), before, "no new entries");
    let status = format!("SELECT status FROM public.tenants WHERE id = '{}'", other.id);
    assert_eq!(texts(&superuser, &status).await, ["active"]);
    let recorded = "SELECT concat_ws(' ', details->>'status', details->>'legal_hold', details->>'ledger_sequence')
                    FROM public.audit_log WHERE action = 'tenant.purged_again' ORDER BY id";
    assert_eq!(
        texts(&superuser, recorded).await,
        [
            "active false 1",
            "suspended false 2",
            "deleted false 3",
            "active true 4",
            "ready false 6"
        ]
    );
    let certificate = get_certificate(&db.reader, back[3].id).await.unwrap();
    assert_eq!(certificate.document()["purge"]["ground"], "ledger");
    assert_eq!(certificate.document()["ledger"]["sequence"], 4);
    require_erased_stay_erased(&db.reader, &db.ledger()).await.unwrap();
    let again = Reapplied { entries: 7, nothing_to_do: 7, ..Reapplied::default() };
    assert_eq!(reapply(&db).await.unwrap(), again, "and once more, nothing");
    // A later purge goes on with the same ledger.
    delete(&db, &other).await;
    assert_eq!(purge(&db, &other).await.unwrap().ledger_sequence, Some(8));
}

/// Purged, says the row; but somebody brought its schema or its role back.
#[tokio::test]
async fn what_came_back_without_its_row_goes_again() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    db.purge(&acme).await;
    db.purge(&globex).await;
    let certificate = get_certificate(&db.reader, acme.id).await.unwrap();
    superuser
        .batch_execute(&format!(
            "SET ROLE shared_owner; CREATE SCHEMA {0}; CREATE TABLE {0}.users (name text); RESET ROLE;
             CREATE SCHEMA {1}__old AUTHORIZATION shared_owner",
            acme.schema(),
            globex.schema()
        ))
        .await
        .unwrap();
    let report = reapply(&db).await.unwrap();
    assert_eq!((report.purged.len(), report.failed.len()), (2, 0), "{report:?}");
    assert_gone(&db, &superuser, &acme).await;
    assert_gone(&db, &superuser, &globex).await;
    let now = get_certificate(&db.reader, acme.id).await.unwrap();
    assert_eq!(
        now.document()["certificate_id"],
        certificate.document()["certificate_id"],
        "one for each tenant"
    );
    assert_eq!(reapply(&db).await.unwrap().nothing_to_do, 2);
}

#[tokio::test]
async fn a_ledger_that_is_not_whole_is_refused_before_anything_goes() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    db.purge(&globex).await;
    restored(&db, &[acme.id]).await;
    let lacking = reapply(&db).await.unwrap_err();
    assert!(
        matches!(lacking, Error::Erasure(ErasureError::LedgerIncomplete { .. })),
        "{lacking:?}"
    );
    let file = db.config.erasure.ledger_dir.clone().unwrap().join("erasures.jsonl");
    std::fs::write(&file, "{}\n").unwrap();
    let damaged = reapply(&db).await.unwrap_err();
    assert!(matches!(damaged, Error::Erasure(ErasureError::LedgerDamaged { .. })), "{damaged:?}");
    let status = format!("SELECT status FROM public.tenants WHERE id = '{}'", acme.id);
    assert_eq!(texts(&superuser, &status).await, ["active"]);
}

/// The backend dies at one step after another; each time the next call does the rest.
#[tokio::test]
async fn killed_at_any_step_the_next_call_does_the_rest() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "CREATE FUNCTION public.hook() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;
             GRANT EXECUTE ON FUNCTION public.hook() TO PUBLIC",
        )
        .await
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(db.tenant(&format!("t{n}")).await.id);
    }
    restored(&db, &ids).await;
    let hooks = [
        ("tenants", "UPDATE", "NEW.status = 'purging'"),
        ("audit_log", "INSERT", "NEW.action = 'tenant.purged_again'"),
        ("purges", "UPDATE", "NEW.step = 'recorded'"),
        ("purges", "UPDATE", "NEW.step = 'frozen'"),
        ("purges", "UPDATE", "NEW.step = 'emptied'"),
        ("purges", "UPDATE", "NEW.step = 'role_dropped'"),
        ("certificates", "INSERT", "true"),
    ];
    for (n, (table, event, condition)) in hooks.into_iter().enumerate() {
        let arm = format!(
            "CREATE TRIGGER hook AFTER {event} ON public.{table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION public.hook()"
        );
        superuser.batch_execute(&arm).await.unwrap();
        match reapply(&db).await {
            Ok(report) => assert!(!report.failed.is_empty(), "{arm}: not met"),
            Err(error) => {
                assert_eq!(error.kind(), tenantry_db::ErrorKind::Unavailable, "{error:?}");
            }
        }
        superuser.batch_execute(&format!("DROP TRIGGER hook ON public.{table}")).await.unwrap();
        let purged = "SELECT count(*)::text FROM public.tenants WHERE status = 'purged'";
        assert_eq!(
            texts(&superuser, purged).await,
            ["0"],
            "{n}: all of them wait behind the first"
        );
    }
    let report = reapply(&db).await.unwrap();
    assert_eq!((report.purged.len(), report.failed.len()), (7, 0), "{report:?}");
    let once =
        "SELECT concat_ws(' ', count(*), count(DISTINCT tenant_id)) FROM public.certificates";
    assert_eq!(texts(&superuser, once).await, ["7 7"]);
    assert_eq!(db.ledger().entries().unwrap().len(), 7);
    super::dump(&db);
}

#[tokio::test]
async fn nobody_is_served_while_somebody_is_back_who_was_erased() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let installation = db.installation();
    let directory = installation.directory();
    assert!(directory.find(globex.id).await.unwrap().is_some());
    let following = tokio::spawn({
        let directory = directory.clone();
        async move { directory.follow().await }
    });
    // The server goes away and comes back with what a backup held.
    restored(&db, &[acme.id]).await;
    let superuser = db.superuser().await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE usename = 'shared_reader' AND datname = current_database()";
    let mut refused = None;
    for _ in 0..400 {
        superuser.batch_execute(cut).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        if let Err(error) = directory.find(globex.id).await
            && error.kind() == tenantry_db::ErrorKind::Refused
        {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("it is looked at again").to_string();
    assert!(refused.contains(&acme.id.to_string()), "{refused}");
    assert!(installation.require_erased_stay_erased().await.is_err());
    assert_eq!(reapply(&db).await.unwrap().purged, [acme.id]);
    for _ in 0..400 {
        if let Ok(Some(_)) = directory.find(globex.id).await {
            following.abort();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("it is not served again within 10 s");
}
