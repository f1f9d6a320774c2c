//! What holds for every request, whatever its route.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tenantry_api::auth::{Role, Scope};
use tenantry_testing::TestDatabase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::service::{Service, answer, until, until_blocked};

#[tokio::test]
async fn every_answer_has_an_id_and_safe_headers() {
    let db = TestDatabase::new().await;
    let service = Service::on(&db).await;
    for path in ["/health/live", "/nowhere", "/api/users", "/metrics"] {
        let found = answer(service.request(Method::GET, path)).await;
        assert_eq!(found.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(found.headers["cache-control"], "no-store", "{path}");
        assert_eq!(found.headers["x-request-id"].len(), 36, "{path}");
    }
    let given = service.request(Method::GET, "/nowhere").header("X-Request-Id", "mine-1");
    assert_eq!(answer(given).await.body["request_id"], "mine-1");
    let strange = service.request(Method::GET, "/nowhere").header("X-Request-Id", "a b");
    assert_ne!(answer(strange).await.body["request_id"], "a b");
}

#[tokio::test]
async fn wrong_addresses_and_methods_are_problems() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    let token = service.token(tenant, Role::Owner);
    for path in ["/", "/nowhere", "/api/users/", "/api//users"] {
        assert_eq!(service.get(&token, path).await.problem(), (404, "not_found"), "{path}");
    }
    for id in ["1", "acme", "%00", "%ff", "6F1C0C529A3E4A558F0E0D5A3C2B1A90", "a'%20OR%201=1"] {
        let found = service.get(&token, &format!("/api/users/{id}")).await;
        assert_eq!(found.problem(), (404, "not_found"), "{id}");
    }
    let refused = answer(service.request(Method::PUT, "/api/users").bearer_auth(&token)).await;
    assert_eq!(refused.problem(), (405, "method_not_allowed"));
    assert_eq!(refused.headers["allow"], "GET,HEAD,POST");
}

#[tokio::test]
async fn bodies_have_a_type_a_form_and_an_end() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::with(&db, &[("http.body_limit_kib", "1")]).await;
    let token = service.token(tenant, Role::Owner);
    let post = || service.request(Method::POST, "/api/users").bearer_auth(&token);
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/json; charset=utf-16",
        "",
    ] {
        let found = answer(post().header("content-type", kind).body("{}")).await;
        assert_eq!(found.problem(), (415, "unsupported_media_type"), "{kind}");
    }
    assert_eq!(answer(post()).await.problem(), (415, "unsupported_media_type"));
    let packed = post().json(&json!({})).header("content-encoding", "gzip");
    assert_eq!(answer(packed).await.problem(), (415, "unsupported_media_type"));
    let kind = "application/json; charset=utf-8";
    for text in ["", "{", "[]", "null", "\"x\"", "{\"a\":1e999}", "{\"a\":\"\\ud800\"}", "{} {}"] {
        let found = answer(post().header("content-type", kind).body(text)).await;
        assert_eq!(found.problem(), (422, "invalid_request"), "{text}");
    }
    let deep = format!("{{\"a\":{}", "[".repeat(500));
    let found = answer(post().header("content-type", kind).body(deep)).await;
    assert_eq!(found.problem(), (422, "invalid_request"));
    let latin =
        answer(post().header("content-type", kind).body(b"{\"a\":\"\xff\"}".as_slice())).await;
    assert_eq!(latin.problem(), (422, "invalid_request"));
    let twice = r#"{"email": "a@b.co", "name": "A", "role": "x", "role": "y"}"#;
    let found = answer(post().header("content-type", kind).body(twice)).await;
    assert_eq!(found.bad_fields(), ["role"]);
    let large = json!({"name": "x".repeat(2000)});
    assert_eq!(answer(post().json(&large)).await.problem(), (413, "payload_too_large"));
}

#[tokio::test]
async fn endless_headers_are_refused() {
    let db = TestDatabase::new().await;
    let service = Service::with(&db, &[("http.max_headers", "10")]).await;
    let address = service.base.trim_start_matches("http://");
    let many: String = (0..20).map(|i| format!("X-{i}: 1\r\n")).collect();
    for headers in [many, format!("X: {}\r\n", "x".repeat(64 * 1024))] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let _ = stream.write_all(request.as_bytes()).await;
        let mut found = Vec::new();
        let _ = stream.read_to_end(&mut found).await;
        let found = String::from_utf8_lossy(&found);
        assert!(found.starts_with("HTTP/1.1 431"), "{found}");
    }
}

/// What the service answers to a request in its own words, and whether it then closed the connection.
async fn raw(service: &Service, request: &str) -> (String, bool) {
    let address = service.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut found = Vec::new();
    let read = stream.read_to_end(&mut found);
    let closed = tokio::time::timeout(Duration::from_secs(10), read).await.is_ok();
    (String::from_utf8_lossy(&found).into_owned(), closed)
}

#[tokio::test]
async fn requests_that_two_readers_could_read_differently_are_refused() {
    let db = TestDatabase::new().await;
    let service = Service::with(&db, &[("http.header_limit_kib", "8")]).await;
    let end = "Connection: close\r\n\r\n";
    for (hosts, status) in [("", 400), ("Host: a\r\nHost: b\r\n", 400), ("Host: a\r\n", 200)] {
        let (found, _) = raw(&service, &format!("GET /health/live HTTP/1.1\r\n{hosts}{end}")).await;
        assert!(found.starts_with(&format!("HTTP/1.1 {status}")), "{hosts}: {found}");
    }
    let (old, _) = raw(&service, &format!("GET /health/live HTTP/1.0\r\n{end}")).await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
    // Beyond the limit, and yet in one packet.
    let large = format!("GET /health/live HTTP/1.1\r\nHost: a\r\nX: {}\r\n{end}", "x".repeat(9000));
    let (found, _) = raw(&service, &large).await;
    assert!(found.starts_with("HTTP/1.1 431"), "{found}");
}

#[tokio::test]
async fn a_body_is_refused_by_its_length_and_does_not_take_for_ever() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::with(&db, &[("http.body_timeout", "200ms")]).await;
    let token = service.token(tenant, Role::Owner);
    for (length, expected) in
        [("1300000000", "413"), ("9223372036854775807", "413"), ("100", "408")]
    {
        let request = format!(
            "POST /api/users HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        let (found, closed) = raw(&service, &request).await;
        assert!(found.starts_with(&format!("HTTP/1.1 {expected}")), "{length}: {found}");
        assert!(closed, "what is left of the body is not waited for");
    }
}

#[tokio::test]
async fn an_answer_has_a_size_and_is_not_kept_for_who_does_not_take_it() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let fill = format!(
        "INSERT INTO {}.content (title, body) SELECT n, repeat('x', 100000) FROM generate_series(1, 60) n",
        tenant.schema()
    );
    db.superuser().await.batch_execute(&fill).await.unwrap();
    let mut service = Service::with(&db, &[("http.write_timeout", "200ms")]).await;
    service.client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let token = service.token(tenant.id, Role::Owner);
    let (mut titles, mut path) = (Vec::new(), "/api/content?limit=200".to_owned());
    loop {
        let page = service.get(&token, &path).await;
        let rows = page.body["data"].as_array().unwrap();
        assert!((1..=10).contains(&rows.len()), "{}", rows.len());
        titles.extend(rows.iter().map(|row| row["title"].as_str().unwrap().to_owned()));
        let Some(next) = page.body["next_cursor"].as_str() else { break };
        path = format!("/api/content?limit=200&cursor={next}");
    }
    titles.sort_unstable();
    titles.dedup();
    assert_eq!(titles.len(), 60, "none is skipped, none repeated");

    let address = service.base.trim_start_matches("http://");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let get =
        format!("GET /api/content HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    // More than the system's own buffers hold.
    stream.write_all(get.repeat(12).as_bytes()).await.unwrap();
    // Only the one that asks is left.
    until(async || {
        let asks = service.request(Method::GET, "/metrics").header("connection", "close");
        let numbers = answer(asks).await;
        numbers.body.as_str().unwrap().contains("tenantry_http_connections 1")
    })
    .await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 12 * 900_000, "it was broken off: {}", rest.len());
}

#[tokio::test]
async fn headers_that_never_end_do_not_hold_a_connection() {
    let db = TestDatabase::new().await;
    let service = Service::with(&db, &[("http.header_timeout", "200ms")]).await;
    let address = service.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nX: ").await.unwrap();
    let mut found = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut found));
    assert!(closed.await.is_ok(), "the connection stays open");
}

#[tokio::test]
async fn numbers_name_routes_and_no_tenant() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    let token = service.platform(&[Scope::TenantsRead]);
    service.get(&token, &format!("/api/tenants/{tenant}")).await;
    service.get(&token, "/api/users").await;
    let numbers = answer(service.request(Method::GET, "/metrics")).await;
    assert_eq!(numbers.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = numbers.body.as_str().unwrap();
    for line in [
        "tenantry_http_requests_total{method=\"GET\",route=\"/api/tenants/{id}\",status=\"200\"} 1",
        "tenantry_http_requests_total{method=\"GET\",route=\"/api/users\",status=\"403\"} 1",
        "tenantry_http_request_duration_seconds_bucket{",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains(&tenant.to_string()) && !text.contains("acme"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_running() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await;
    let service = Service::on(&db).await;
    let token = service.token(tenant.id, Role::Owner);
    let superuser = db.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.users", tenant.schema());
    superuser.batch_execute(&lock).await.unwrap();
    let request = service.request(Method::GET, "/api/users").bearer_auth(&token).send();
    let request = tokio::spawn(request);
    until_blocked(&db).await;
    request.abort();
    // Only the question itself is under way, soon after.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let numbers = answer(service.request(Method::GET, "/metrics")).await;
        if numbers.body.as_str().unwrap().contains("requests_under_way 1") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{numbers:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    superuser.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(service.get(&token, "/api/users").await.status, 200);
}
