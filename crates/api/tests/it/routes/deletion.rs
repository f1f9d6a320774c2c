//! `DELETE /api/tenants/{id}`, restoring and purging.

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::{Role, Scope};
use tenantry_db::lifecycle::{hold_tenant, reapply_ledger};
use tenantry_testing::{Servers, TestDatabase, temp_dir};

use crate::service::{Service, answer, until};

#[tokio::test]
async fn a_deleted_tenant_is_gone_for_its_people_and_can_be_restored() {
    let db = TestDatabase::new().await;
    let id = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    let platform = service.platform(&[Scope::TenantsDelete, Scope::TenantsWrite]);
    let path = format!("/api/tenants/{id}");
    let owner = service.token(id, Role::Owner);
    assert_eq!(service.get(&owner, "/api/users").await.status, 200);
    let delete = async |query: &str, body: Option<serde_json::Value>| {
        let request = service.request(Method::DELETE, &format!("{path}{query}"));
        let request = request.bearer_auth(&platform);
        answer(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    };
    for (query, body) in
        [("", None), ("?confirm=globex", None), ("", Some(json!({"confirm": "ACME"})))]
    {
        let refused = delete(query, body).await;
        assert_eq!(refused.problem(), (409, "confirmation_required"));
        assert!(!refused.body["detail"].as_str().unwrap().contains("acme"), "{refused:?}");
    }
    // Of two, whoever checks one may use the other.
    let both = delete("?confirm=acme", Some(json!({"confirm": "globex"}))).await;
    assert_eq!(both.bad_fields(), ["confirm"]);
    let bad = delete("?x=1", Some(json!({"confirm": 1, "retention": "soon"}))).await;
    assert_eq!(bad.bad_fields(), ["confirm", "retention"]);
    assert_eq!(service.get(&owner, "/api/users").await.status, 200);
    for (query, body) in [("?confirm=acme", None), ("", Some(json!({"confirm": "acme"})))] {
        let deleted = delete(query, body).await;
        assert_eq!((deleted.status.as_u16(), &deleted.body["status"]), (202, &json!("deleted")));
        assert!(deleted.body["purge_after"].as_str().unwrap().ends_with('Z'), "{deleted:?}");
        let refused = service.get(&owner, "/api/users").await;
        assert_eq!(refused.problem(), (410, "tenant_deleted"));
    }
    let new = json!({"name": "Acme", "subdomain": "acme"});
    let taken = service.post(&platform, "/api/tenants", &new).await;
    assert_eq!(taken.problem(), (409, "subdomain_taken"));
    let restored = service.post(&platform, &format!("{path}/restore"), &json!({})).await;
    assert_eq!((restored.status.as_u16(), &restored.body["status"]), (200, &json!("active")));
    assert_eq!(restored.body["purge_after"], json!(null));
    until(async || service.get(&owner, "/api/users").await.status == 200).await;
    let short = delete("", Some(json!({"confirm": "acme", "retention": "0s"}))).await;
    assert_eq!(short.body["purge_after"], short.body["deleted_at"]);
}

#[tokio::test]
async fn a_purge_begins_at_once_and_ends_by_itself() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let service = Service::on(&db).await;
    let platform =
        service.platform(&[Scope::TenantsDelete, Scope::TenantsWrite, Scope::TenantsRead]);
    let path = format!("/api/tenants/{}", acme.id);
    let purge = async |body| service.post(&platform, &format!("{path}/purge"), &body).await;
    let sure = json!({"confirm": "acme", "now": true});
    assert_eq!(purge(sure.clone()).await.problem(), (409, "invalid_state"));
    service.delete(&platform, &format!("{path}?confirm=acme")).await;
    assert_eq!(purge(json!({"now": true})).await.problem(), (409, "confirmation_required"));
    let early = purge(json!({"confirm": "acme"})).await;
    assert_eq!(early.problem(), (409, "invalid_state"));
    assert!(early.body["detail"].as_str().unwrap().contains("until 20"), "{early:?}");
    hold_tenant(&db.admin, acme.id, true, &db.actor()).await.unwrap();
    assert_eq!(purge(sure.clone()).await.problem(), (409, "legal_hold"));
    hold_tenant(&db.admin, acme.id, false, &db.actor()).await.unwrap();
    let begun = purge(sure.clone()).await;
    assert_eq!((begun.status.as_u16(), &begun.body["status"]), (202, &json!("purging")));
    until(async || service.get(&platform, &path).await.body["status"] == "purged").await;
    let tombstone = service.get(&platform, &path).await;
    assert_eq!((&tombstone.body["name"], &tombstone.body["subdomain"]), (&json!(""), &json!(null)));
    assert!(!tombstone.body.to_string().contains("acme"));
    let owner = service.token(acme.id, Role::Owner);
    assert_eq!(service.get(&owner, "/api/users").await.problem(), (410, "tenant_deleted"));
    for step in ["purge", "restore", "suspend", "resume"] {
        let refused = service.post(&platform, &format!("{path}/{step}"), &sure).await;
        assert_eq!(refused.problem(), (409, "invalid_state"), "{step}");
    }
    let gone = service.delete(&platform, &format!("{path}?confirm=acme")).await;
    assert_eq!(gone.problem(), (409, "invalid_state"));
    let next = json!({"name": "Acme", "subdomain": "acme"});
    let next = service.post(&platform, "/api/tenants", &next).await;
    assert_eq!(next.status, 201, "{next:?}");
    let owner = service.token(next.id().parse().unwrap(), Role::Owner);
    assert_eq!(service.get(&owner, "/api/users").await.page().0.len(), 0);
}

#[tokio::test]
async fn a_service_purges_what_is_due_and_nothing_without_its_ledger() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let path = format!("/api/tenants/{}", acme.id);
    let every = ("erasure.check_every", "50ms");
    let without = Service::with(&db, &[every, ("erasure.ledger_dir", "")]).await;
    let platform = without.platform(&[Scope::TenantsDelete, Scope::TenantsRead]);
    let delete = format!("{path}?confirm=acme&retention=0s");
    assert_eq!(without.delete(&platform, &delete).await.status, 202);
    let sure = json!({"confirm": "acme", "now": true});
    let refused = without.post(&platform, &format!("{path}/purge"), &sure).await;
    assert_eq!(refused.problem(), (503, "erasure_unavailable"));
    let broken = Service::with(&db, &[every, ("erasure.ledger_dir", "/dev/null/ledger")]).await;
    let refused = broken.post(&platform, &format!("{path}/purge"), &sure).await;
    assert_eq!(refused.problem(), (503, "erasure_unavailable"));
    assert!(!refused.body.to_string().contains("/dev/null"), "{refused:?}");
    assert_eq!(without.get(&platform, &path).await.body["status"], "deleted");
    let service = Service::with(&db, &[every]).await;
    until(async || service.get(&platform, &path).await.body["status"] == "purged").await;
}

#[tokio::test]
async fn a_purge_has_its_certificate_and_its_numbers() {
    // What writes in any database of a server holds up the rewriting of statistics, and other tests do.
    let dir = temp_dir().unwrap();
    let (mut stack, servers) = Servers::start(dir.path(), 2).await.unwrap();
    let db = TestDatabase::on(servers).await;
    let acme = db.tenant("acme").await;
    let service = Service::with(&db, &[("erasure.check_every", "50ms")]).await;
    let platform = service.platform(&[Scope::TenantsRead, Scope::TenantsDelete]);
    let path = format!("/api/tenants/{}/certificate", acme.id);
    let unknown = format!("/api/tenants/{}/certificate", tenantry_db::TenantId::random());
    assert_eq!(service.get(&platform, &unknown).await.problem(), (404, "tenant_not_found"));
    let early = service.get(&platform, &path).await;
    assert_eq!(early.problem(), (409, "invalid_state"));
    let owner = service.token(acme.id, Role::Owner);
    assert_eq!(service.get(&owner, &path).await.problem(), (403, "insufficient_scope"));
    let delete = format!("/api/tenants/{}?confirm=acme&retention=0s", acme.id);
    assert_eq!(service.delete(&platform, &delete).await.status, 202);
    // The service purges it, writes the statistics anew, and looks again.
    until(async || service.get(&platform, &path).await.body["status"] == "complete").await;
    let certificate = service.get(&platform, &path).await.body;
    assert_eq!(certificate["purge"]["ground"], "retention_over");
    assert_eq!(certificate["purge"]["actor"], "service:purge");
    assert_eq!(certificate["sha256"].as_str().unwrap().len(), 64);
    assert!(!certificate.to_string().contains("acme"));
    // A moment old at most.
    until(async || {
        let metrics = answer(service.request(Method::GET, "/metrics")).await.body;
        let metrics = metrics.as_str().unwrap().to_owned();
        let has = |line: &str| metrics.lines().any(|found| found == line);
        has("tenantry_purges_begun 1")
            && has("tenantry_purges_finished 1")
            && has("tenantry_purges_failing 0")
            && has("tenantry_certificates_incomplete 0")
    })
    .await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_restored_database_is_not_served_before_the_ledger_was_applied() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let service = Service::on(&db).await;
    db.purge(&acme).await;
    // What a backup of last week holds.
    let back = format!(
        "UPDATE public.tenants SET status = 'active', subdomain = 'acme', name = 'Acme', deleted_at = NULL,
                purge_after = NULL, purged_at = NULL WHERE id = '{}'",
        acme.id
    );
    db.superuser().await.batch_execute(&back).await.unwrap();
    let again = Service::on(&db).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), again.running).await;
    let error = ended.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains(&acme.id.to_string()), "{error}");
    assert_eq!(error.kind(), tenantry_db::ErrorKind::Refused);
    // A service that was running hears of it when its connections break.
    let owner = service.token(globex.id, Role::Owner);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE usename = 'shared_reader' AND datname = current_database()";
    let superuser = db.superuser().await;
    until(async || {
        superuser.batch_execute(cut).await.unwrap();
        let answer = service.get(&owner, "/api/users").await;
        answer.status == 503 && answer.problem().1 == "erasure_unavailable"
    })
    .await;
    let platform = service.platform(&[Scope::TenantsWrite]);
    until(async || {
        let new = json!({"name": "N", "subdomain": "new"});
        let refused = service.post(&platform, "/api/tenants", &new).await;
        refused.status == 503 && refused.problem().1 == "erasure_unavailable"
    })
    .await;
    until(async || {
        let ready = answer(service.request(Method::GET, "/health/ready")).await;
        ready.status == 503 && ready.body["errors"].to_string().contains("erased")
    })
    .await;
    let done = reapply_ledger(&db.admin, &db.ledger(), &db.actor(), |_, _| {}).await.unwrap();
    assert_eq!(done.purged, [acme.id]);
    until(async || service.get(&owner, "/api/users").await.status == 200).await;
}

/// Each step from each status, as clients see it: what does not fit is `invalid_state`.
#[tokio::test]
async fn every_step_that_does_not_fit_is_an_invalid_state() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    let superuser = db.superuser().await;
    let platform = service.platform(&[Scope::TenantsDelete, Scope::TenantsWrite]);
    let (ok, accepted, refused, unknown) = (200, 202, 409, 404);
    for (status, with, [suspend, resume, restore, delete, purge]) in [
        ("ready", "subdomain = NULL, name = ''", [unknown; 5]),
        ("active", "deleted_at = NULL", [ok, ok, ok, accepted, refused]),
        ("suspended", "suspended_at = now()", [ok, ok, ok, accepted, refused]),
        (
            "deleted",
            "deleted_at = now(), purge_after = now()",
            [refused, refused, ok, accepted, accepted],
        ),
        (
            "purging",
            "deleted_at = now(), purge_after = now()",
            [refused, refused, refused, refused, accepted],
        ),
        ("purged", "purged_at = now(), name = '', subdomain = NULL, settings = '{}'", [refused; 5]),
    ] {
        for (step, expected) in [
            ("suspend", suspend),
            ("resume", resume),
            ("restore", restore),
            ("delete", delete),
            ("purge", purge),
        ] {
            let name = format!("{step}-{status}");
            let id = db.tenant(&name).await.id;
            let set =
                format!("UPDATE public.tenants SET status = '{status}', {with} WHERE id = '{id}'");
            superuser.batch_execute(&set).await.unwrap();
            let path = format!("/api/tenants/{id}");
            let found = match step {
                "delete" => service.delete(&platform, &format!("{path}?confirm={name}")).await,
                step => {
                    let path = format!("{path}/{step}");
                    let body = json!({"confirm": name, "now": true});
                    service.post(&platform, &path, &body).await
                }
            };
            assert_eq!(found.status.as_u16(), expected, "{name}: {found:?}");
            if expected == refused {
                assert_eq!(found.problem().1, "invalid_state", "{name}");
            }
        }
    }
}
