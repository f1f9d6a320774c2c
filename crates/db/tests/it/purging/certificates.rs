//! The certificate: one for each purge, whatever happens; what it says; when it is complete.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tenantry_db::lifecycle::{
    Certificate, ErasureError, check_certificate, declare_replica_gone, get_certificate,
    look_at_certificates, purge_due, refresh_certificate, rewrite_statistics,
};
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Error, TenantId};
use tenantry_stack::Server;
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::Client;

use super::{Alone, purge};
use crate::deletion::delete;
use crate::texts;

async fn purged(db: &TestDatabase, name: &str) -> Tenant {
    let tenant = db.tenant(name).await;
    delete(db, &tenant).await;
    purge(db, &tenant).await.unwrap();
    tenant
}

async fn refresh(db: &TestDatabase, tenant: TenantId) -> Certificate {
    refresh_certificate(&db.admin, tenant, &db.actor()).await.unwrap()
}

fn open(certificate: &Certificate) -> Vec<String> {
    let open = certificate.document()["open"].as_array().unwrap();
    open.iter().map(|point| point.as_str().unwrap().to_owned()).collect()
}

fn filed(certificate: &Certificate) -> Value {
    serde_json::to_value(certificate).unwrap()
}

#[tokio::test]
async fn a_certificate_says_what_was_seen_and_is_complete_when_all_was() {
    let db = Alone::new().await;
    let superuser = db.superuser().await;
    let acme = db.tenant("acme").await;
    for state in ["active", "deleted"] {
        let early = get_certificate(&db.reader, acme.id).await.unwrap_err();
        assert!(early.to_string().ends_with(&format!("is {state}, so it can't be certified")));
        let early = refresh_certificate(&db.admin, acme.id, &db.actor()).await.unwrap_err();
        assert!(matches!(early, Error::InvalidState { .. }));
        delete(&db, &acme).await;
    }
    let unknown = refresh_certificate(&db.admin, TenantId::random(), &db.actor()).await;
    assert!(matches!(unknown.unwrap_err(), Error::TenantNotFound(_)));
    let report = purge(&db, &acme).await.unwrap();
    let first = get_certificate(&db.reader, acme.id).await.unwrap();
    assert!(!first.is_complete());
    assert_eq!(
        open(&first),
        ["the statistics of columns, which hold values, were not written anew yet"]
    );
    rewrite_statistics(&db.admin).await.unwrap();
    let certificate = refresh(&db, acme.id).await;
    assert!(certificate.is_complete(), "{certificate}");
    let document = certificate.document();
    assert_eq!(document["format"], "tenantry.erasure-certificate");
    assert_eq!(document["version"], 1);
    assert_eq!(document["tenant_id"], acme.id.to_string());
    assert_eq!(document["erased"], false, "nobody has seen the backups without it");
    assert_eq!(document["backups"]["hold"], "unknown");
    assert_eq!(document["purge"]["ground"], "requested_now");
    assert_eq!(document["purge"]["actor"], "test");
    assert_eq!(document["purge"]["existed"]["tables"], 9);
    assert_eq!(document["ledger"]["sequence"], 1);
    assert_eq!(document["ledger"]["sha256"], report.ledger_hash.unwrap());
    assert_eq!(document["supersedes_sha256"], first.sha256());
    let places = document["verification"]["places"].as_array().unwrap();
    assert!(places.iter().all(|place| place["found"] == 0), "{places:?}");
    for place in [
        "`pg_class`",
        "`pg_statistic`",
        "`pg_shdepend`",
        "`pg_largeobject_metadata`",
        "idempotency_keys",
    ] {
        assert!(
            places.iter().any(|found| found["place"].as_str().unwrap().contains(place)),
            "{place}"
        );
    }
    assert_eq!(document["verification"]["unread"], Value::Array(vec![]));
    // Neither document nor text hold what the tenant was called.
    let text = certificate.to_string();
    assert!(!filed(&certificate).to_string().contains("acme") && !text.contains("acme"), "{text}");
    assert!(
        text.contains("status          complete\n") && text.contains("none was seen"),
        "{text}"
    );
    let audit = format!(
        "SELECT details->>'sha256' FROM public.audit_log WHERE action = 'tenant.certified' AND tenant_id = '{}'",
        acme.id
    );
    assert_eq!(texts(&superuser, &audit).await, [certificate.sha256()]);
    // Final: for everybody, and looking again changes nothing.
    assert_eq!(filed(&refresh(&db, acme.id).await), filed(&certificate));
    for change in [
        "UPDATE public.certificates SET looked_at = now()",
        "UPDATE public.certificates SET document = '{}'",
        "DELETE FROM public.certificates",
        "TRUNCATE public.certificates",
    ] {
        let refused = superuser.batch_execute(change).await.unwrap_err();
        assert!(refused.as_db_error().unwrap().message().contains("is final"), "{change}");
    }
}

/// The way that the documents give, with tools that anybody has.
#[tokio::test]
async fn the_digest_is_that_of_the_canonical_form() {
    let db = TestDatabase::new().await;
    let acme = purged(&db, "acme").await;
    let certificate = get_certificate(&db.reader, acme.id).await.unwrap();
    fn canonical(value: &Value) -> String {
        match value {
            Value::Object(fields) => {
                let mut keys: Vec<&String> = fields.keys().collect();
                keys.sort();
                let fields: Vec<String> = keys
                    .iter()
                    .map(|key| format!("{key:?}:{}", canonical(&fields[*key])))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }
            Value::Array(items) => {
                format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
            }
            Value::Number(number) => {
                assert!(number.is_i64() || number.is_u64(), "{number}: one way to write it");
                number.to_string()
            }
            scalar => scalar.to_string(),
        }
    }
    let digest = Sha256::digest(canonical(certificate.document()));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, certificate.sha256());
}

#[tokio::test]
async fn a_filed_certificate_is_checked_against_itself_the_ledger_and_the_register() {
    let db = Alone::new().await;
    let (acme, globex) = (purged(&db, "acme").await, purged(&db, "globex").await);
    let ledger = db.ledger();
    let early = filed(&get_certificate(&db.reader, acme.id).await.unwrap());
    rewrite_statistics(&db.admin).await.unwrap();
    let check = async |filed: &Value| -> Vec<Option<bool>> {
        let checks = check_certificate(filed, Some(&ledger), Some(&db.reader)).await.unwrap();
        checks.iter().map(|check| check.holds).collect()
    };
    for tenant in [acme.id, globex.id] {
        let whole = filed(&refresh(&db, tenant).await);
        assert_eq!(check(&whole).await, [Some(true); 3]);
        let alone = check_certificate(&whole, None, None).await.unwrap();
        assert_eq!(alone.iter().map(|c| c.holds).collect::<Vec<_>>(), [Some(true), None, None]);
        let changed = |pointer: &str, value: Value| {
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            changed
        };
        assert_eq!(
            check(&changed("/purge/actor", "x".into())).await,
            [Some(false), Some(true), None]
        );
        assert_eq!(
            check(&changed("/ledger/sha256", "00".into())).await,
            [Some(false), Some(false), None]
        );
        assert_eq!(
            check(&changed("/ledger/sequence", 9.into())).await,
            [Some(false), Some(false), None]
        );
        let other = if tenant == acme.id { globex.id } else { acme.id };
        let other = changed("/tenant_id", other.to_string().into());
        assert_eq!(check(&other).await, [Some(false), Some(false), None]);
    }
    assert_eq!(check(&early).await, [Some(true); 3], "an earlier state of it");
    assert_eq!(check(&serde_json::json!({})).await, [Some(false), None, None]);
}

/// A purge that ended under an older version has no certificate, and not all of its numbers.
#[tokio::test]
async fn a_purge_of_an_earlier_version_gets_its_certificate_later() {
    let db = Alone::new().await;
    let superuser = db.superuser().await;
    let acme = purged(&db, "acme").await;
    superuser
        .batch_execute(
            "ALTER TABLE public.certificates DISABLE TRIGGER ALL; DELETE FROM public.certificates;
             ALTER TABLE public.certificates ENABLE ALWAYS TRIGGER certificates_final;
             ALTER TABLE public.certificates ENABLE ALWAYS TRIGGER certificates_stay;
             UPDATE public.purges SET ground = NULL, role_oid = NULL, objects = '{}', end_position = NULL,
                                      existed = existed || '{\"rows_estimate\": 12.0}'",
        )
        .await
        .unwrap();
    assert!(matches!(
        get_certificate(&db.reader, acme.id).await.unwrap_err(),
        Error::InvalidState { .. }
    ));
    rewrite_statistics(&db.admin).await.unwrap();
    assert_eq!(look_at_certificates(&db.admin, &db.actor()).await.unwrap(), 0);
    let certificate = get_certificate(&db.reader, acme.id).await.unwrap();
    let document = certificate.document();
    assert!(certificate.is_complete());
    assert_eq!(document["issued_later"], true);
    assert_eq!(document["purge"]["ground"], "unknown");
    assert_eq!(document["purge"]["existed"]["rows_estimate"].to_string(), "12");
    assert!(certificate.to_string().contains("this one was made later"));
}

#[tokio::test]
async fn a_service_completes_certificates_and_several_make_one() {
    let db = Alone::new().await;
    let superuser = db.superuser().await;
    let acme = purged(&db, "acme").await;
    let services: Vec<_> = (0..4).map(|_| db.installation()).collect();
    let (ledger, actor) = (db.ledger(), db.actor());
    for _ in 0..5 {
        let now = jiff::Timestamp::now();
        let rounds = services.iter().map(|s| purge_due(s, &ledger, now, &actor));
        for round in futures_util::future::join_all(rounds).await {
            // While one writes the statistics anew, the others may find them held.
            drop(round);
        }
    }
    assert!(get_certificate(&db.reader, acme.id).await.unwrap().is_complete());
    let certified = "SELECT count(*)::text FROM public.audit_log WHERE action = 'tenant.certified'";
    assert_eq!(texts(&superuser, certified).await, ["1"], "completed once");
}

async fn replica_client(stack: &tenantry_stack::Stack) -> Client {
    let mut config = stack.replica_superuser_config(1);
    config.dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn until_complete(db: &TestDatabase, tenant: TenantId) -> Certificate {
    for _ in 0..400 {
        let certificate = refresh(db, tenant).await;
        if certificate.is_complete() {
            return certificate;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{}", refresh(db, tenant).await)
}

#[tokio::test]
async fn a_replica_that_has_not_replayed_the_purge_leaves_it_incomplete_and_is_named() {
    let dir = temp_dir().unwrap();
    let (mut stack, servers) =
        Servers::start_with(dir.path(), 2, |options| options.replicas = 1).await.unwrap();
    stack.start_replica(1).await.unwrap();
    let mut db = TestDatabase::on(servers).await;
    // It runs: no certificate waits for long.
    let one = purged(&db, "one").await;
    rewrite_statistics(&db.admin).await.unwrap();
    let certificate = until_complete(&db, one.id).await;
    let seen = &certificate.document()["seen"]["replicas"]["servers"]["replica"];
    assert_eq!((&seen["past"], &seen["servers"]), (&true.into(), &1.into()), "{certificate}");
    // It is paused: it is connected, and forgets nothing.
    let replica = replica_client(&stack).await;
    replica.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let two = purged(&db, "two").await;
    rewrite_statistics(&db.admin).await.unwrap();
    for _ in 0..3 {
        let points = open(&refresh(&db, two.id).await);
        assert_eq!(points.len(), 1, "{points:?}");
        assert!(points[0].starts_with("replica `replica` has replayed 0/"), "{points:?}");
    }
    replica.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    until_complete(&db, two.id).await;
    // It is away: its slot says that it may come back.
    drop(replica);
    stack.stop_server(Server::Replica(1)).await.unwrap();
    let (three, four) = (purged(&db, "three").await, purged(&db, "four").await);
    rewrite_statistics(&db.admin).await.unwrap();
    let points = open(&refresh(&db, three.id).await);
    assert_eq!(points.len(), 1, "{points:?}");
    assert!(points[0].starts_with("replica `replica` is not connected"), "{points:?}");
    // Whoever drops the slot does not make it forgotten; whoever says that it is gone is named.
    refresh(&db, four.id).await;
    let superuser = db.superuser().await;
    let drop_slot = "SELECT pg_drop_replication_slot('replica')";
    let empty = format!("{drop_slot}; SELECT pg_create_physical_replication_slot('replica')");
    // Also a slot that keeps nothing for it says that it is there.
    for make in ["", &empty] {
        superuser.batch_execute(make).await.unwrap();
        let there = declare_replica_gone(&db.admin, four.id, "replica", &db.actor()).await;
        assert!(matches!(there, Err(Error::Erasure(ErasureError::ReplicaThere(_)))), "{there:?}");
    }
    superuser.batch_execute(drop_slot).await.unwrap();
    assert_eq!(open(&refresh(&db, four.id).await), points_of(&db, four.id).await);
    assert_eq!(points_of(&db, four.id).await.len(), 1);
    let other = declare_replica_gone(&db.admin, four.id, "other", &db.actor()).await;
    assert!(matches!(other.unwrap_err(), Error::InvalidField { .. }));
    let gone = declare_replica_gone(&db.admin, four.id, "replica", &db.actor()).await.unwrap();
    assert!(gone.is_complete());
    let seen = &gone.document()["seen"]["replicas"]["servers"]["replica"];
    assert_eq!((&seen["declared_gone_by"], &seen["past"]), (&"test".into(), &false.into()));
    // Made anew, it knows nothing of the tenant, and is past the purge.
    stack.start_replica(1).await.unwrap();
    until_complete(&db, three.id).await;
    // The configuration names more than are connected.
    let urls = vec!["postgresql://127.0.0.1:1/a", "postgresql://127.0.0.1:1/b"];
    let layers = db
        .servers()
        .layers(db.name(), "shared")
        .flag("test", "database.replica_urls", urls.clone())
        .flag("test", "database.replica_direct_urls", urls);
    db.config = tenantry_db::Config::from_layers(layers).unwrap();
    db.admin = tenantry_db::AdminDb::new(&db.config).unwrap();
    let five = purged(&db, "five").await;
    rewrite_statistics(&db.admin).await.unwrap();
    let points = loop {
        let points = open(&refresh(&db, five.id).await);
        if points.len() == 1 {
            break points;
        }
    };
    assert_eq!(
        points,
        ["`database.replica_urls` names 2, of which 1 were seen connected to this primary"]
    );
    stack.stop().await.unwrap();
}

async fn points_of(db: &TestDatabase, tenant: TenantId) -> Vec<String> {
    open(&get_certificate(&db.reader, tenant).await.unwrap())
}

/// Statements that ran as the tenant are forgotten, and nobody else's.
#[tokio::test]
async fn statistics_of_statements_forget_the_tenant() {
    let dir = temp_dir().unwrap();
    let (mut stack, servers) = Servers::start_with(dir.path(), 2, |options| {
        options
            .settings
            .push(("shared_preload_libraries".to_owned(), "pg_stat_statements".to_owned()));
    })
    .await
    .unwrap();
    let db = TestDatabase::on(servers).await;
    let superuser = db.superuser().await;
    superuser.batch_execute("CREATE EXTENSION pg_stat_statements").await.unwrap();
    let use_it = async |tenant: &Tenant| {
        superuser
            .batch_execute(&format!(
                "BEGIN; SET LOCAL ROLE {0}; SELECT name FROM {0}.users; ROLLBACK",
                tenant.schema()
            ))
            .await
            .unwrap();
    };
    let kept = "SELECT (count(*) > 0)::text FROM pg_stat_statements WHERE query LIKE 'SELECT name FROM tenant%'";
    // `init` has not run since the extension came: it is said, and the purge is none the worse.
    let one = db.tenant("one").await;
    use_it(&one).await;
    delete(&db, &one).await;
    purge(&db, &one).await.unwrap();
    rewrite_statistics(&db.admin).await.unwrap();
    let points = open(&refresh(&db, one.id).await);
    assert!(points.len() == 1 && points[0].starts_with("`pg_stat_statements` holds"), "{points:?}");
    tenantry_db::init::init(&db.config).await.unwrap();
    assert!(refresh(&db, one.id).await.is_complete());
    assert_eq!(texts(&superuser, kept).await, ["false"]);
    let (two, other) = (db.tenant("two").await, db.tenant("other").await);
    use_it(&two).await;
    use_it(&other).await;
    delete(&db, &two).await;
    purge(&db, &two).await.unwrap();
    let left = texts(
        &superuser,
        "SELECT query FROM pg_stat_statements WHERE query LIKE 'SELECT name FROM tenant%'",
    )
    .await;
    assert_eq!(left, [format!("SELECT name FROM {}.users", other.schema())]);
    stack.stop().await.unwrap();
}
