//! Which tokens are believed. Whoever forges one learns nothing from the answer.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use reqwest::Method;
use serde_json::{Value, json};
use tenantry_api::auth::Role;
use tenantry_db::TenantId;
use tenantry_testing::TestDatabase;

use crate::service::{Answer, SECRET, Service, answer};

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub(crate) fn good_claims(tenant: TenantId) -> Value {
    json!({
        "sub": "u", "tenant_id": tenant, "role": "member",
        "iss": "tenantry", "aud": "tenantry-api", "exp": now() + 600,
    })
}

pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn signed(header: &Value, claims: &Value, secret: &str, algorithm: Algorithm) -> String {
    let message = unsigned(header, claims);
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn hs256(claims: &Value) -> String {
    signed(&json!({"alg": "HS256"}), claims, SECRET, Algorithm::HS256)
}

pub(crate) fn with(tenant: TenantId, key: &str, value: Value) -> Value {
    let mut claims = good_claims(tenant);
    claims[key] = value;
    claims
}

fn without(tenant: TenantId, key: &str) -> Value {
    let mut claims = good_claims(tenant);
    claims.as_object_mut().unwrap().remove(key);
    claims
}

fn forged(tenant: TenantId) -> Vec<(&'static str, String)> {
    let good = good_claims(tenant);
    let header = |header: Value| signed(&header, &good, SECRET, Algorithm::HS256);
    let mut tampered = hs256(&good).into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    vec![
        (
            "another key",
            signed(&json!({"alg": "HS256"}), &good, &SECRET.replace('0', "1"), Algorithm::HS256),
        ),
        ("changed", String::from_utf8(tampered).unwrap()),
        ("alg none", format!("{}.", unsigned(&json!({"alg": "none"}), &good))),
        ("alg None, signed", header(json!({"alg": "None"}))),
        ("foreign alg", signed(&json!({"alg": "HS512"}), &good, SECRET, Algorithm::HS512)),
        ("alg of another family", header(json!({"alg": "RS256"}))),
        ("no alg", header(json!({"typ": "JWT"}))),
        ("crit", header(json!({"alg": "HS256", "crit": ["exp"]}))),
        ("kid", header(json!({"alg": "HS256", "kid": "1"}))),
        ("expired", hs256(&with(tenant, "exp", json!(now() - 31)))),
        ("no exp", hs256(&without(tenant, "exp"))),
        ("exp is text", hs256(&with(tenant, "exp", json!("later")))),
        ("not yet", hs256(&with(tenant, "nbf", json!(now() + 60)))),
        ("nbf is text", hs256(&with(tenant, "nbf", json!("soon")))),
        ("another issuer", hs256(&with(tenant, "iss", json!("other")))),
        ("no issuer", hs256(&without(tenant, "iss"))),
        ("another audience", hs256(&with(tenant, "aud", json!("other")))),
        ("no audience", hs256(&without(tenant, "aud"))),
        ("no subject", hs256(&without(tenant, "sub"))),
        ("empty subject", hs256(&with(tenant, "sub", json!(" ")))),
        ("subject with a line break", hs256(&with(tenant, "sub", json!("a\nb")))),
        ("tenant is no UUID", hs256(&with(tenant, "tenant_id", json!("acme")))),
        ("unknown role", hs256(&with(tenant, "role", json!("root")))),
        ("scope is a list", hs256(&with(tenant, "scope", json!(["tenants:act"])))),
        ("too long", hs256(&with(tenant, "more", json!("x".repeat(8 * 1024))))),
        ("empty", String::new()),
        ("no token", "x".to_owned()),
        ("five parts", "a.b.c.d.e".to_owned()),
    ]
}

/// Without what differs in any two answers.
pub(crate) fn shown(answer: &Answer) -> Value {
    assert_eq!(answer.problem(), (401, "invalid_token"), "{answer:?}");
    let mut body = answer.body.clone();
    body.as_object_mut().unwrap().remove("request_id");
    body
}

#[tokio::test]
async fn no_forged_token_is_believed_and_all_get_one_answer() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    assert_eq!(service.get(&hs256(&good_claims(tenant)), "/api/users").await.status, 200);
    let expected = shown(&service.get("x", "/api/users").await);
    for (why, token) in forged(tenant) {
        let refused = service.get(&token, "/api/users").await;
        assert_eq!(refused.status, 401, "{why}");
        assert_eq!(shown(&refused), expected, "{why}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
    }
}

#[tokio::test]
async fn other_honest_tokens_are_believed() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    for claims in [
        with(tenant, "exp", json!(now() - 10)), // within the leeway
        with(tenant, "aud", json!(["other", "tenantry-api"])),
        with(tenant, "nbf", json!(now() - 5)),
        with(tenant, "scope", json!("openid something:else")),
        with(tenant, "email", json!("a@b.co")),
    ] {
        assert_eq!(service.get(&hs256(&claims), "/api/users").await.status, 200, "{claims}");
    }
}

#[tokio::test]
async fn one_bearer_token_is_needed() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let service = Service::on(&db).await;
    let token = service.token(tenant, Role::Member);
    let get = || service.request(Method::GET, "/api/users");
    let missing = answer(get()).await;
    assert_eq!(missing.problem(), (401, "missing_token"));
    assert_eq!(missing.headers["www-authenticate"], "Bearer");
    let two = get().bearer_auth(&token).header("authorization", format!("Bearer {token}"));
    let basic = get().basic_auth("a", Some("b"));
    let bare = get().header("authorization", &token);
    let binary = get().header("authorization", b"Bearer \xff".as_slice());
    for request in [two, basic, bare, binary] {
        shown(&answer(request).await);
    }
    let lower = answer(get().header("authorization", format!("bearer {token}"))).await;
    assert_eq!(lower.status, 200, "the scheme's case does not matter");
}
