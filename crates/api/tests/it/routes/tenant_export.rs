//! `GET /api/tenants/{id}/export`: whole or broken, without secrets, and not for everybody.

use std::io::{Cursor, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::Value;
use tenantry_api::auth::{Role, Scope};
use tenantry_db::lifecycle::suspend_tenant;
use tenantry_db::{SchemaName, TenantId};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use crate::service::{Service, answer, until};

async fn export(service: &Service, token: &str, id: TenantId) -> Response {
    let path = format!("/api/tenants/{id}/export");
    service.request(Method::GET, &path).bearer_auth(token).send().await.unwrap()
}

fn unpacked(bytes: &[u8]) -> (Value, String) {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut all = String::new();
    for at in 0..zip.len() {
        zip.by_index(at).unwrap().read_to_string(&mut all).unwrap();
    }
    let mut text = String::new();
    zip.by_name("manifest.json").unwrap().read_to_string(&mut text).unwrap();
    (serde_json::from_str(&text).unwrap(), all)
}

async fn fill(superuser: &Client, schema: SchemaName, rows: u32) {
    let add = format!(
        "INSERT INTO {schema}.users (email, name, role, password_hash) VALUES ('a@b.co', 'Ann', 'owner', 'secret-hash');
         INSERT INTO {schema}.social_accounts (platform, handle, external_id, credentials)
             VALUES ('x', 'h', 'e', 'secret-credentials');
         INSERT INTO {schema}.content (title, body)
             SELECT 't', (SELECT string_agg(md5(random()::text || m || n), '') FROM generate_series(1, 300) m)
             FROM generate_series(1, {rows}) n"
    );
    superuser.batch_execute(&add).await.unwrap();
}

/// How many sessions of exports there are.
async fn sessions(superuser: &Client) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND usename = 'shared_admin' AND state <> 'idle'";
    superuser.query_typed_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn an_owner_takes_everything_along_but_secrets() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let superuser = db.superuser().await;
    fill(&superuser, acme.schema(), 50).await;
    let service = Service::on(&db).await;
    let owner = service.token(acme.id, Role::Owner);
    let platform = service.platform(&[Scope::TenantsRead]);
    for token in [&owner, &platform] {
        let response = export(&service, token, acme.id).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "application/zip");
        assert_eq!(headers["cache-control"], "no-store");
        let disposition = headers["content-disposition"].to_str().unwrap();
        assert!(disposition.starts_with("attachment; filename=\"acme-20"), "{disposition}");
        let (manifest, all) = unpacked(&response.bytes().await.unwrap());
        assert_eq!(manifest["tenant"]["id"], acme.id.to_string());
        assert_eq!(manifest["omitted"].as_array().unwrap().len(), 2);
        let rows: u64 = manifest["tables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["rows"].as_u64().unwrap())
            .sum();
        assert_eq!(rows, 52);
        assert!(all.contains("a@b.co") && !all.contains("secret-hash"));
        // As bytea is written: in hex.
        assert!(!all.contains("7365637265742d63726564656e7469616c73"));
    }
    let audit = "SELECT actor FROM public.audit_log WHERE action = 'tenant.exported' ORDER BY id";
    let actors = superuser.query_typed(audit, &[]).await.unwrap();
    let actors: Vec<&str> = actors.iter().map(|row| row.get(0)).collect();
    assert_eq!(actors, ["token:user:test", "token:operator:test"]);
    for (token, refusal) in [
        (service.token(acme.id, Role::Admin), (403, "insufficient_scope")),
        (service.token(acme.id, Role::Member), (403, "insufficient_scope")),
        (service.token(globex.id, Role::Owner), (404, "tenant_not_found")),
        (service.platform(&[Scope::TenantsWrite]), (403, "insufficient_scope")),
    ] {
        let path = format!("/api/tenants/{}/export", acme.id);
        assert_eq!(service.get(&token, &path).await.problem(), refusal);
    }
    let unknown = format!("/api/tenants/{}/export", TenantId::random());
    assert_eq!(service.get(&platform, &unknown).await.problem(), (404, "tenant_not_found"));
    let head = service.request(Method::HEAD, &format!("/api/tenants/{}/export", acme.id));
    assert_eq!(head.bearer_auth(&owner).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn who_is_shut_out_asks_the_platform_and_who_is_gone_is_gone() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    let service = Service::on(&db).await;
    let (owner, platform) =
        (service.token(acme.id, Role::Owner), service.platform(&[Scope::TenantsRead]));
    let path = format!("/api/tenants/{}/export", acme.id);
    assert_eq!(service.get(&owner, &path).await.problem(), (403, "tenant_suspended"));
    assert_eq!(export(&service, &platform, acme.id).await.status(), 200);
    let superuser = db.superuser().await;
    let set = |what: &str| format!("UPDATE public.tenants SET {what}");
    let deleted =
        "status = 'deleted', suspended_at = NULL, deleted_at = now(), purge_after = now()";
    superuser.batch_execute(&set(deleted)).await.unwrap();
    until(async || export(&service, &platform, acme.id).await.status() == 200).await;
    superuser.batch_execute(&set("status = 'purging'")).await.unwrap();
    until(async || service.get(&platform, &path).await.status == 410).await;
    assert_eq!(service.get(&platform, &path).await.problem(), (410, "tenant_deleted"));
}

/// A client that sends the request and reads only when told. Its system keeps little for it.
async fn slow_client(service: &Service, token: &str, id: TenantId) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let address = service.base.strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        stream,
        "GET /api/tenants/{id}/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream
}

#[tokio::test]
async fn a_slow_client_makes_the_database_wait_and_is_not_cut_off() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    fill(&superuser, acme.schema(), 4000).await;
    let service = Service::with(&db, &[("http.request_timeout", "3s")]).await;
    let owner = service.token(acme.id, Role::Owner);
    let mut client = slow_client(&service, &owner, acme.id).await;
    // For longer than a request may take.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event = 'ClientWrite' AND xact_start < now() - interval '4 s'";
    until(async || superuser.query_typed_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1)
        .await;
    // Whatever a request may take, this answer has begun and flows.
    let read = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            match client.read(&mut piece).unwrap() {
                0 => return all,
                n => all.extend_from_slice(&piece[..n]),
            }
        }
    });
    let all = read.await.unwrap();
    assert!(all.starts_with(b"HTTP/1.1 200 OK"));
    assert!(all.ends_with(b"\r\n0\r\n\r\n"), "the last piece of a whole answer");
    assert!(all.len() > 5 << 20, "{}", all.len());
}

#[tokio::test]
async fn what_breaks_off_is_no_whole_answer() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    fill(&superuser, acme.schema(), 4000).await;
    let service = Service::on(&db).await;
    let owner = service.token(acme.id, Role::Owner);
    let mut response = export(&service, &owner, acme.id).await;
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await.unwrap().is_some());
    let kill =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                AND usename = 'shared_admin' AND state <> 'idle'";
    superuser.batch_execute(kill).await.unwrap();
    let broken = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "half of it passed for whole");
    // Its place is free again.
    let next = export(&service, &owner, acme.id).await;
    unpacked(&next.bytes().await.unwrap());
}

#[tokio::test]
async fn there_are_so_many_at_once_and_each_tenant_has_one() {
    let db = TestDatabase::new().await;
    let mut tenants = Vec::new();
    let superuser = db.superuser().await;
    for name in ["a", "b", "c"] {
        let tenant = db.tenant(&format!("tenant-{name}")).await;
        fill(&superuser, tenant.schema(), 4000).await;
        tenants.push(tenant.id);
    }
    let service = Service::with(&db, &[("export.at_once", "2")]).await;
    let platform = service.platform(&[Scope::TenantsRead]);
    let path = |id: TenantId| format!("/api/tenants/{id}/export");
    let first = slow_client(&service, &platform, tenants[0]).await;
    until(async || sessions(&superuser).await == 1).await;
    let again =
        answer(service.request(Method::GET, &path(tenants[0])).bearer_auth(&platform)).await;
    assert_eq!(again.problem(), (429, "export_busy"));
    assert_eq!(again.headers["retry-after"], "30");
    let second = slow_client(&service, &platform, tenants[1]).await;
    until(async || sessions(&superuser).await == 2).await;
    let third = service.get(&platform, &path(tenants[2])).await;
    assert_eq!(third.problem(), (429, "export_busy"));
    // Whoever goes away gives the place, the session and the snapshot back.
    drop(first);
    until(async || sessions(&superuser).await == 1).await;
    let third = export(&service, &platform, tenants[2]).await;
    assert_eq!(third.status(), 200);
    drop((second, third));
    until(async || sessions(&superuser).await == 0).await;
}
