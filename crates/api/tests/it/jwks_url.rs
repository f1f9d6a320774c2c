//! Keys from a URL, against a real server that rotates, fails, dawdles and floods.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tenantry_testing::{TestDatabase, free_port};
use tokio::net::TcpListener;

use crate::service::{Service, answer};
use crate::signer::Signer;
use crate::tokens::{good_claims, shown};

const USERS: &str = "/api/users";
const SOON: Duration = Duration::from_secs(10);

/// What the issuer answers.
#[derive(Clone)]
enum Mood {
    Keys(Value),
    Text(String),
    Status(StatusCode),
    Redirect(String),
    Silent,
}

/// An issuer's server.
#[derive(Clone)]
struct Issuer {
    mood: Arc<Mutex<Mood>>,
    hits: Arc<AtomicUsize>,
    url: String,
}

impl Issuer {
    async fn start(port: u16, mood: Mood) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let (mood, hits) = (Arc::new(Mutex::new(mood)), Arc::new(AtomicUsize::new(0)));
        let issuer = Self { mood, hits, url };
        let router = Router::new().route("/jwks", get(serve)).with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Until it was asked that often.
    async fn asked(&self, times: usize) {
        until("the issuer is asked", async || self.hits() >= times).await;
    }
}

async fn serve(State(issuer): State<Issuer>) -> Response {
    issuer.hits.fetch_add(1, Ordering::SeqCst);
    let mood = issuer.mood.lock().unwrap().clone();
    match mood {
        Mood::Keys(keys) => json!({ "keys": keys }).to_string().into_response(),
        Mood::Text(text) => text.into_response(),
        Mood::Status(status) => status.into_response(),
        Mood::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Mood::Silent => std::future::pending().await,
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A service with these intervals.
async fn service(db: &TestDatabase, url: &str, refresh: &str, min_refetch: &str) -> Service {
    let settings = [
        ("auth.secret", ""),
        ("auth.jwks_url", url),
        ("auth.jwks_refresh_interval", refresh),
        ("auth.jwks_min_refetch_interval", min_refetch),
        ("auth.jwks_timeout", "500ms"),
    ];
    Service::with(db, &settings).await
}

async fn believed(service: &Service, token: &str) -> bool {
    service.get(token, USERS).await.status == 200
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let db = TestDatabase::new().await;
    let claims = good_claims(db.tenant("acme").await.id);
    let (old, new) = (Signer::p256(), Signer::rsa());
    let issuer = Issuer::start(0, Mood::Keys(json!([old.jwk("old")]))).await;
    let service = service(&db, &issuer.url, "1h", "100ms").await;
    let (old, new_token) = (old.token("old", &claims), new.token("new", &claims));
    until("the first key", async || believed(&service, &old).await).await;
    issuer.set(Mood::Keys(json!([new.jwk("new")])));
    until("the new key", async || believed(&service, &new_token).await).await;
    shown(&service.get(&old, USERS).await);
}

#[tokio::test]
async fn keys_are_refreshed_without_being_asked() {
    let db = TestDatabase::new().await;
    let claims = good_claims(db.tenant("acme").await.id);
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let issuer = Issuer::start(0, Mood::Keys(json!([old.jwk("old")]))).await;
    let service = service(&db, &issuer.url, "100ms", "100ms").await;
    let old = old.token("old", &claims);
    until("the first key", async || believed(&service, &old).await).await;
    issuer.set(Mood::Keys(json!([new.jwk("new")])));
    // Nobody names the new key; the old one is no longer believed.
    until("the old key is gone", async || !believed(&service, &old).await).await;
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_few_fetches() {
    let db = TestDatabase::new().await;
    let claims = good_claims(db.tenant("acme").await.id);
    let signer = Signer::ed25519();
    let issuer = Issuer::start(0, Mood::Keys(json!([signer.jwk("known")]))).await;
    for (min_refetch, refetched) in [("1h", false), ("300ms", true)] {
        let start = issuer.hits();
        let began = Instant::now();
        let service = service(&db, &issuer.url, "1h", min_refetch).await;
        let known = signer.token("known", &claims);
        until("the first key", async || believed(&service, &known).await).await;
        for round in 0..5 {
            let tokens: Vec<_> =
                (0..40).map(|i| signer.token(&format!("{round}-{i}"), &claims)).collect();
            for refused in join_all(tokens.iter().map(|token| service.get(token, USERS))).await {
                shown(&refused);
            }
        }
        if refetched {
            let more = async || {
                shown(&service.get(&signer.token("more", &claims), USERS).await);
                issuer.hits() > start + 1
            };
            until("a token with an unknown key has it fetched", more).await;
        }
        let allowed = if refetched { began.elapsed().as_millis() / 300 + 1 } else { 1 };
        let fetches = issuer.hits() - start;
        assert!(fetches as u128 <= allowed, "{fetches} fetches, {allowed} allowed");
        assert!(believed(&service, &known).await);
    }
}

#[tokio::test]
async fn old_keys_are_kept_whatever_the_issuer_answers() {
    let db = TestDatabase::new().await;
    let claims = good_claims(db.tenant("acme").await.id);
    let (signer, other) = (Signer::ed25519(), Signer::ed25519());
    let issuer = Issuer::start(0, Mood::Keys(json!([signer.jwk("k")]))).await;
    let elsewhere = Issuer::start(0, Mood::Keys(json!([other.jwk("other")]))).await;
    let service = service(&db, &issuer.url, "50ms", "50ms").await;
    let token = signer.token("k", &claims);
    until("the first key", async || believed(&service, &token).await).await;
    let huge = json!({"keys": [other.jwk("other")], "more": "x".repeat(300 * 1024)}).to_string();
    let mut private = other.jwk("other");
    private["d"] = json!("AAAA");
    let symmetric = json!({"kty": "oct", "kid": "other", "k": "AAAA"});
    for mood in [
        Mood::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Mood::Text("<html>".to_owned()),
        Mood::Text(huge),
        Mood::Keys(json!([])),
        Mood::Keys(json!([private, symmetric, null, 1])),
        Mood::Redirect(elsewhere.url.clone()),
        Mood::Silent,
    ] {
        issuer.set(mood);
        // One may be under way with the former answer; the next one has this one.
        issuer.asked(issuer.hits() + 3).await;
        assert!(believed(&service, &token).await);
        shown(&service.get(&other.token("other", &claims), USERS).await);
    }
    assert_eq!(elsewhere.hits(), 0, "a redirect was followed");
}

#[tokio::test]
async fn until_keys_were_fetched_nobody_is_told_that_the_token_is_wrong() {
    let db = TestDatabase::new().await;
    let claims = good_claims(db.tenant("acme").await.id);
    let signer = Signer::p256();
    let port = free_port().unwrap();
    let service = service(&db, &format!("http://localhost:{port}/jwks"), "1h", "50ms").await;
    let token = signer.token("k", &claims);
    let refused = service.get(&token, USERS).await;
    assert_eq!(refused.problem(), (503, "keys_unavailable"));
    assert_eq!(refused.headers["retry-after"], "5");
    assert!(!refused.body.to_string().contains("localhost"), "{refused:?}");
    // What no key could make right is wrong now.
    shown(&service.get("x", USERS).await);
    shown(&service.get(&signer.sign(&json!({"alg": "none"}), &claims), USERS).await);
    assert_eq!(answer(service.request(Method::GET, "/health/live")).await.status, 200);
    let ready = answer(service.request(Method::GET, "/health/ready")).await;
    assert_eq!(ready.problem(), (503, "keys_unavailable"));
    let _issuer = Issuer::start(port, Mood::Keys(json!([signer.jwk("k")]))).await;
    until("the first key", async || believed(&service, &token).await).await;
    assert_eq!(answer(service.request(Method::GET, "/health/ready")).await.status, 200);
}
