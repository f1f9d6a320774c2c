//! Others in the way: whoever is bound, holds a lock, has written something, or has prepared it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tenantry_db::lifecycle::ErasureError;
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Config, Error};
use tenantry_stack::Server;
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::{Client, NoTls};

use super::{assert_gone, purge};
use crate::deletion::delete;
use crate::texts;

/// A database whose purges do not wait for long.
async fn impatient() -> TestDatabase {
    hurried(TestDatabase::new().await)
}

fn hurried(mut db: TestDatabase) -> TestDatabase {
    let layers = db
        .servers()
        .layers(db.name(), "shared")
        .flag("test", "lanes.settle_timeout", "200ms")
        .flag("test", "migrations.lock_timeout", "200ms");
    db.config = Config::from_layers(layers).unwrap();
    db.admin = tenantry_db::AdminDb::new(&db.config).unwrap();
    db
}

/// What a purge that stopped says of whom it waits for.
fn blocked(purged: Result<impl std::fmt::Debug, Error>) -> String {
    match purged {
        Err(Error::Erasure(ErasureError::Blocked { by, .. })) => by.join("\n"),
        other => panic!("{other:?}"),
    }
}

async fn tables(superuser: &Client, tenant: &Tenant) -> usize {
    let query = format!(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace IN
             (SELECT oid FROM pg_namespace WHERE nspname LIKE '{}%')",
        tenant.schema()
    );
    texts(superuser, &query).await.len()
}

async fn pid(client: &Client) -> String {
    texts(client, "SELECT pg_backend_pid()::text").await.remove(0)
}

#[tokio::test]
async fn what_was_bound_before_is_ended() {
    let db = impatient().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let lane = db.lane_direct(acme.lane).await;
    lane.batch_execute(&format!(
        "BEGIN; SET LOCAL ROLE {0}; LOCK TABLE {0}.users IN ROW EXCLUSIVE MODE;
         INSERT INTO {0}.users (email, name, role) VALUES ('a@b.co', 'A', 'x')",
        acme.schema()
    ))
    .await
    .unwrap();
    // Not by way of the library, which would have ended it there.
    superuser
        .batch_execute(
            "UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now()",
        )
        .await
        .unwrap();
    let report = purge(&db, &acme).await.unwrap();
    assert_eq!(report.steps[0]["count"], 1, "one transaction was ended");
    assert!(lane.batch_execute("COMMIT").await.is_err());
    assert_gone(&db, &superuser, &acme).await;
}

/// The trap: dropping the schema now would leave a function without one, and no dump would work.
#[tokio::test]
async fn an_uncommitted_function_is_waited_for() {
    let db = impatient().await;
    let acme = db.tenant("acme").await;
    let (creator, superuser) = (db.superuser().await, db.superuser().await);
    delete(&db, &acme).await;
    for ending in ["ROLLBACK", "COMMIT"] {
        creator
            .batch_execute(&format!(
                "BEGIN; CREATE FUNCTION {0}.late() RETURNS int LANGUAGE sql AS 'SELECT 1';
                 CREATE TYPE {0}.late_type AS ENUM ('a')",
                texts(
                    &superuser,
                    &format!(
                        "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '{}%'",
                        acme.schema()
                    )
                )
                .await[0]
            ))
            .await
            .unwrap();
        let said = blocked(purge(&db, &acme).await);
        assert!(
            said.contains(&format!(
                "pid {} of `postgres` (idle in transaction",
                pid(&creator).await
            )),
            "{said}"
        );
        assert_eq!(tables(&superuser, &acme).await, 9, "nothing was dropped");
        let noted = texts(&superuser, "SELECT last_error FROM public.purges").await;
        assert!(noted[0].contains("waits for pid"), "{noted:?}");
        creator.batch_execute(ending).await.unwrap();
    }
    purge(&db, &acme).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
}

#[tokio::test]
async fn an_idle_transaction_of_the_admin_is_named_and_one_that_ends_is_waited_for() {
    let db = impatient().await;
    let acme = db.tenant("acme").await;
    delete(&db, &acme).await;
    let (admin, superuser) = (db.admin_client().await, db.superuser().await);
    admin.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let said = blocked(purge(&db, &acme).await);
    assert!(said.contains("of `shared_admin` (idle in transaction"), "{said}");
    let mut waiting = db;
    let layers = waiting.servers().layers(waiting.name(), "shared");
    waiting.admin = tenantry_db::AdminDb::new(&Config::from_layers(layers).unwrap()).unwrap();
    let frozen = async {
        let asked = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database()
                      AND query LIKE '%pg_prepared_xacts%' AND pid <> pg_backend_pid()";
        while texts(&superuser, asked).await == ["0"] {
            tokio::task::yield_now().await;
        }
        admin.batch_execute("COMMIT").await
    };
    let (purged, ended) = tokio::join!(purge(&waiting, &acme), frozen);
    ended.unwrap();
    purged.unwrap();
    assert_gone(&waiting, &superuser, &acme).await;
}

#[tokio::test]
async fn whoever_holds_a_lock_is_named() {
    let db = impatient().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    // Somebody who may read by hand, and has written nothing: nobody whom the freeze must wait for.
    let reporter = format!("reporter_{}", db.name());
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {reporter} LOGIN PASSWORD 'x'; GRANT CONNECT ON DATABASE {} TO {reporter};
             GRANT USAGE ON SCHEMA {1} TO {reporter}; GRANT SELECT ON {1}.users TO {reporter}",
            db.name(),
            acme.schema()
        ))
        .await
        .unwrap();
    let mut server = db.config.database.direct().unwrap().clone();
    server.user(&reporter).password("x");
    let (holder, connection) = server.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    holder.batch_execute(&format!("BEGIN; SELECT FROM {}.users", acme.schema())).await.unwrap();
    delete(&db, &acme).await;
    let said = blocked(purge(&db, &acme).await);
    assert!(said.contains(&format!("of `{reporter}` (idle in transaction")), "{said}");
    assert!(tables(&superuser, &acme).await > 0);
    holder.batch_execute("COMMIT").await.unwrap();
    purge(&db, &acme).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
    superuser
        .batch_execute(&format!("DROP OWNED BY {reporter}; DROP ROLE {reporter}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_prepared_transaction_is_named_with_what_to_do() {
    let dir = temp_dir().unwrap();
    let (mut stack, servers) = Servers::start(dir.path(), 1).await.unwrap();
    let db = hurried(TestDatabase::on(servers).await);
    let set = "ALTER SYSTEM SET max_prepared_transactions = 2";
    db.superuser().await.batch_execute(set).await.unwrap();
    stack.stop_server(Server::Primary).await.unwrap();
    stack.start_primary().await.unwrap();
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    delete(&db, &acme).await;
    superuser
        .batch_execute(&format!(
            "BEGIN; INSERT INTO {0}.users (email, name, role) VALUES ('a@b.co', 'A', 'x');
             CREATE FUNCTION {0}.late() RETURNS int LANGUAGE sql AS 'SELECT 1'; PREPARE TRANSACTION 'forgotten'",
            acme.schema()
        ))
        .await
        .unwrap();
    let error = purge(&db, &acme).await.unwrap_err();
    assert!(error.hint().unwrap().contains("ROLLBACK PREPARED"), "{error}");
    let said = blocked(Err::<(), _>(error));
    assert!(said.starts_with("the prepared transaction `forgotten` (since 20"), "{said}");
    assert_eq!(tables(&superuser, &acme).await, 9);
    superuser.batch_execute("COMMIT PREPARED 'forgotten'").await.unwrap();
    purge(&db, &acme).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
}

#[tokio::test]
async fn what_other_schemas_rest_on_is_not_taken_along() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let schema = acme.schema();
    superuser
        .batch_execute(&format!(
            "CREATE SCHEMA reports; CREATE VIEW reports.all_users AS SELECT name FROM {schema}.users;
             CREATE TABLE reports.t (author uuid REFERENCES {schema}.users (id))"
        ))
        .await
        .unwrap();
    delete(&db, &acme).await;
    let error = purge(&db, &acme).await.unwrap_err();
    let Error::Erasure(ErasureError::UsedOutside { objects, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        objects,
        &["constraint t_author_fkey on table reports.t", "rule _RETURN on view reports.all_users"]
    );
    assert_eq!(tables(&superuser, &acme).await, 9);
    superuser.batch_execute("DROP SCHEMA reports CASCADE").await.unwrap();
    purge(&db, &acme).await.unwrap();
    assert_gone(&db, &superuser, &acme).await;
}

/// Whoever creates in the schema all the time, in many short transactions, is never too late or too
/// early: all that they made goes, or they fail.
#[tokio::test]
async fn a_storm_of_new_functions_leaves_no_catalog_row() {
    let db = Arc::new(TestDatabase::new().await);
    let superuser = db.superuser().await;
    for round in 0..3 {
        let acme = db.tenant(&format!("acme{round}")).await;
        let stop = Arc::new(AtomicBool::new(false));
        let creators: Vec<_> = (0..3)
            .map(|creator| {
                let (db, stop, schema) = (Arc::clone(&db), Arc::clone(&stop), acme.schema());
                tokio::spawn(async move {
                    let client = db.superuser().await;
                    let mut created = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let create = format!(
                            "CREATE FUNCTION {schema}.f_{creator}_{created}() RETURNS int LANGUAGE sql AS 'SELECT 1'"
                        );
                        if client.batch_execute(&format!("BEGIN; {create}")).await.is_err() {
                            client.batch_execute("ROLLBACK").await.unwrap();
                            break;
                        }
                        created += 1;
                        tokio::task::yield_now().await;
                        client.batch_execute("COMMIT").await.unwrap();
                    }
                    created
                })
            })
            .collect();
        delete(&db, &acme).await;
        purge(&db, &acme).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        let mut created = 0;
        for creator in creators {
            created += creator.await.unwrap();
        }
        assert!(created > 0, "there was no storm");
        assert_gone(&db, &superuser, &acme).await;
    }
}
