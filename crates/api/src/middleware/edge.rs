//! The edge: what holds for every request, whatever its route.
//!
//! An id and a span; a limit on its time; a panic becomes an answer, and the service goes on; a
//! problem gets its body and its one log line; every answer says that it must not be cached or
//! guessed at; numbers. A request whose client goes away is dropped with all that it was doing.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::{Instrument as _, field};

use super::request_id::{self, RequestId};
use crate::metrics::Metrics;
use crate::problem::{Code, Problem};
use crate::state::ApiState;

/// What the edge needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    timeout: Duration,
    header_limit_bytes: usize,
    metrics: Metrics,
}

impl Edge {
    pub(crate) fn new(state: &ApiState) -> Self {
        let http = state.http();
        Self {
            timeout: http.request_timeout,
            header_limit_bytes: http.header_limit_bytes,
            metrics: state.metrics().clone(),
        }
    }

    /// What is wrong with a request before anybody looks at what it asks for.
    fn refusal(&self, request: &Request) -> Option<Problem> {
        let headers = request.headers();
        let bytes: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > self.header_limit_bytes {
            let detail =
                format!("all headers together have at most {} bytes", self.header_limit_bytes);
            return Some(Problem::new(Code::HeadersTooLarge, detail));
        }
        // Of two hosts, a proxy before us may have meant the other one (RFC 9112, 3.2).
        let hosts = headers.get_all(header::HOST).iter().count();
        let needed = usize::from(request.version() == Version::HTTP_11);
        (hosts > 1 || hosts < needed)
            .then(|| Problem::new(Code::BadRequest, "send one `Host` header"))
    }
}

/// Puts the edge around routes.
pub(crate) fn around<S: Clone + Send + Sync + 'static>(routes: Router<S>, edge: Edge) -> Router<S> {
    routes
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "the header `Allow` names what can be done here")
        })
        .layer(from_fn_with_state(edge, pass))
}

async fn pass(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _under_way = edge.metrics.under_way();
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    // The template, not the path: paths hold ids, and there is no end to them.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    // Of the highest level, so that a filter that lets a warning through lets its request's id through.
    let span = tracing::error_span!(
        "request",
        request.id = id.as_str(),
        http.method = %method,
        http.route = route,
        tenant.id = field::Empty,
    );
    let response = match edge.refusal(&request) {
        Some(problem) => problem.into_response(),
        None => answer(next.run(request), edge.timeout).instrument(span.clone()).await,
    };
    let response = span.in_scope(|| finish(response, &id));
    let took = started.elapsed();
    edge.metrics.answered(&method, route, response.status(), took);
    let (status, duration_ms) = (response.status().as_u16(), took.as_millis() as u64);
    span.in_scope(|| {
        // Checks come every few seconds from everywhere, and would drown the rest.
        if matches!(route, "/health/live" | "/health/ready" | "/metrics") {
            tracing::debug!(http.status = status, duration_ms, "request answered");
        } else {
            tracing::info!(http.status = status, duration_ms, "request answered");
        }
    });
    response
}

/// The handler's answer, or why there is none.
async fn answer(handler: impl Future<Output = Response>, timeout: Duration) -> Response {
    let caught = AssertUnwindSafe(handler).catch_unwind();
    match tokio::time::timeout(timeout, caught).await {
        Ok(Ok(response)) => response,
        // The panic's own words were printed where it happened.
        Ok(Err(_)) => {
            Problem::new(Code::Internal, "the request's id helps to find out what it was")
                .into_response()
        }
        Err(_) => {
            let detail = format!("there was no answer within {} s", timeout.as_secs_f32());
            Problem::new(Code::DatabaseUnavailable, detail).into_response()
        }
    }
}

fn finish(mut response: Response, id: &RequestId) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.log();
        let mut rendered = problem.render(id.as_str());
        // What the router knew and the problem does not.
        if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
            rendered.headers_mut().insert(header::ALLOW, allow);
        }
        response = rendered;
    }
    add_headers(response.headers_mut());
    if let Some(id) = id.header() {
        response.headers_mut().insert(request_id::HEADER, id);
    }
    response
}

fn add_headers(headers: &mut HeaderMap) {
    const ALWAYS: [(HeaderName, &str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    async fn served(timeout: Duration) -> String {
        let routes = Router::new()
            .route("/fine", get(async || "fine"))
            .route("/slow", get(async || std::future::pending::<()>().await))
            .route("/panic/{id}", get(async || -> StatusCode { panic!("on purpose") }));
        let metrics = Metrics::new();
        let shown = metrics.clone();
        let routes = routes.route("/numbers", get(async move || shown.render()));
        let router = around(routes, Edge { timeout, header_limit_bytes: 32 * 1024, metrics });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum_serve(listener, router).await });
        format!("http://{address}")
    }

    async fn axum_serve(listener: TcpListener, router: Router) {
        let config =
            tenantry_db::Config::from_layers(tenantry_db::config::Layers::defaults()).unwrap();
        let http = crate::Settings::from_config(&config).unwrap().http;
        crate::server::run(listener, router, &http, &Metrics::new(), std::future::pending()).await;
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_the_service_goes_on() {
        let base = served(Duration::from_secs(30)).await;
        for _ in 0..3 {
            let response = reqwest::get(format!("{base}/panic/1")).await.unwrap();
            assert_eq!(response.status(), 500);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let body: serde_json::Value = response.json().await.unwrap();
            assert_eq!(body["code"], "internal");
            assert!(!body.to_string().contains("on purpose"), "{body}");
            assert_eq!(reqwest::get(format!("{base}/fine")).await.unwrap().status(), 200);
        }
        let numbers = reqwest::get(format!("{base}/numbers")).await.unwrap().text().await.unwrap();
        let counted =
            "tenantry_http_requests_total{method=\"GET\",route=\"/panic/{id}\",status=\"500\"} 3";
        assert!(numbers.contains(counted), "{numbers}");
        assert!(numbers.contains("tenantry_http_requests_under_way 1"), "{numbers}");
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_ended() {
        let base = served(Duration::from_millis(50)).await;
        let response = reqwest::get(format!("{base}/slow")).await.unwrap();
        assert_eq!(response.status(), 503);
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(
            (&body["code"], &body["request_id"]),
            (&"database_unavailable".into(), &id.into())
        );
    }

    #[tokio::test]
    async fn invented_methods_and_paths_do_not_grow_the_numbers() {
        let base = served(Duration::from_secs(30)).await;
        let client = reqwest::Client::new();
        for i in 0..20 {
            let method = reqwest::Method::from_bytes(format!("INVENT{i}").as_bytes()).unwrap();
            let response = client.request(method, format!("{base}/x{i}")).send().await.unwrap();
            assert_eq!(response.status(), 404);
        }
        let numbers = reqwest::get(format!("{base}/numbers")).await.unwrap().text().await.unwrap();
        let ours =
            numbers.lines().filter(|l| l.starts_with("tenantry_http_requests_total")).count();
        assert_eq!(ours, 1, "{numbers}");
    }
}
