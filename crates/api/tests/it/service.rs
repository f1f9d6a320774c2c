//! A service of one test's own, and a client for it.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tenantry_api::auth::{Claims, Role, Scope, issue};
use tenantry_api::{AuthSettings, Settings, serve};
use tenantry_db::{Config, Installation, TenantId};
use tenantry_testing::TestDatabase;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A service on a free port.
pub(crate) struct Service {
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
    pub(crate) auth: AuthSettings,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) running: JoinHandle<Result<(), tenantry_db::Error>>,
}

/// What the service answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Status and code of a problem, which must be well-formed.
    pub(crate) fn problem(&self) -> (u16, &str) {
        let code = self.body["code"].as_str().unwrap_or_else(|| panic!("no problem: {self:?}"));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], self.status.as_u16());
        assert_eq!(self.body["type"], format!("urn:tenantry:problem:{code}"));
        assert_eq!(self.body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        assert!(self.body["title"].is_string() && self.body["detail"].is_string());
        (self.status.as_u16(), code)
    }

    /// The fields that a 422 complains of.
    pub(crate) fn bad_fields(&self) -> Vec<&str> {
        assert_eq!(self.problem(), (422, "invalid_request"), "{self:?}");
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().unwrap()).collect()
    }

    /// The ids of a list, and its cursor.
    pub(crate) fn page(&self) -> (Vec<&str>, Option<&str>) {
        assert_eq!(self.status, 200, "{self:?}");
        let rows = self.body["data"].as_array().unwrap();
        let ids = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        (ids, self.body["next_cursor"].as_str())
    }

    pub(crate) fn id(&self) -> &str {
        self.body["id"].as_str().unwrap_or_else(|| panic!("no id: {self:?}"))
    }
}

impl Service {
    pub(crate) async fn on(db: &TestDatabase) -> Self {
        Self::with(db, &[]).await
    }

    /// With further settings.
    pub(crate) async fn with(db: &TestDatabase, settings: &[(&str, &str)]) -> Self {
        let mut layers =
            db.servers().layers(db.name(), "shared").flag("test", "auth.secret", SECRET);
        for (key, text) in settings {
            layers = match text.parse::<i64>() {
                Ok(number) => layers.flag("test", key, number),
                Err(_) if *text == "true" => layers.flag("test", key, true),
                Err(_) if key.ends_with("proxies") => {
                    layers.flag("test", key, text.split(',').collect::<Vec<_>>())
                }
                Err(_) => layers.flag("test", key, *text),
            };
        }
        let config = Config::from_layers(layers).unwrap();
        let settings = Settings::from_config(&config).unwrap();
        let auth = settings.auth.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // A dropped sender is no wish to stop: tests that do not care drop it.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let installation = Installation::new(config).unwrap();
        let running = tokio::spawn(serve(listener, installation, settings, shutdown));
        Self { base, client: reqwest::Client::new(), auth, stop: Some(stop), running }
    }

    /// A token of somebody in a tenant.
    pub(crate) fn token(&self, tenant: TenantId, role: Role) -> String {
        self.issue(&Claims {
            sub: "user:test".to_owned(),
            tenant_id: Some(tenant),
            role: Some(role),
            scope: [].into_iter().collect(),
        })
    }

    /// A token of the platform's.
    pub(crate) fn platform(&self, scopes: &[Scope]) -> String {
        self.issue(&Claims {
            sub: "operator:test".to_owned(),
            tenant_id: None,
            role: None,
            scope: scopes.iter().copied().collect(),
        })
    }

    pub(crate) fn issue(&self, claims: &Claims) -> String {
        issue(&self.auth, claims, Duration::from_secs(600)).unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        answer(self.request(Method::GET, path).bearer_auth(token)).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).bearer_auth(token).json(body)).await
    }

    pub(crate) async fn patch(&self, token: &str, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PATCH, path).bearer_auth(token).json(body)).await
    }

    pub(crate) async fn delete(&self, token: &str, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path).bearer_auth(token)).await
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}

/// How many statements wait for a lock in the superuser's database.
pub(crate) async fn blocked(superuser: &Client) -> i64 {
    let statement = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
    superuser.query_typed_one(statement, &[]).await.unwrap().get(0)
}

/// Waits until a statement waits for a lock in the test's database.
pub(crate) async fn until_blocked(db: &TestDatabase) {
    let superuser = db.superuser().await;
    until(async || blocked(&superuser).await > 0).await;
}

/// Waits for a condition, within bounds.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it did not come true within 10 s");
}

/// The admin's URL by way of another port.
pub(crate) fn direct_url(db: &TestDatabase, port: u16) -> String {
    let toml = db.servers().toml(db.name());
    let line = toml.lines().find(|line| line.starts_with("direct_url")).unwrap();
    let here = format!(":{}/", db.servers().postgres_port);
    line.split('"').nth(1).unwrap().replace(&here, &format!(":{port}/"))
}
