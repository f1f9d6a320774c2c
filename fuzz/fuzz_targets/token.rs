//! Tokens from outside. The bytes are tried as they are, and as claims and header under a right
//! signature, for else the fuzzer would never get past it.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;
use tenantry_api::auth::{Claims, issue, verifier};
use tenantry_api::{AuthSettings, Settings};
use tenantry_db::Config;
use tenantry_db::config::Layers;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

/// Parts of a token as they are, with times and names that hold: the bytes become further claims.
const CLAIMS: &str = r#"{"iss":"tenantry","aud":"tenantry-api","exp":99999999999,"sub":"#;

type Verify = Box<dyn Fn(&str) -> Option<Claims> + Send + Sync>;

static SERVICE: LazyLock<(AuthSettings, Verify)> = LazyLock::new(|| {
    let layers = Layers::defaults().flag("fuzz", "auth.secret", SECRET);
    let config = Config::from_layers(layers).expect("the settings are right");
    let auth = Settings::from_config(&config).expect("the settings are right").auth;
    let verify = verifier(&auth).expect("the secret is set");
    (auth, Box::new(verify))
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length will do");
    mac.update(text.as_bytes());
    format!("{text}.{}", BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))
}

fn check(token: &str) {
    let (auth, verify) = &*SERVICE;
    let Some(claims) = verify(token) else { return };
    assert!(token.len() <= 8 * 1024, "a token of {} bytes is believed", token.len());
    assert!(Claims::is_subject(&claims.sub), "{:?}", claims.sub);
    assert_eq!(verify(token).as_ref(), Some(&claims), "believed once and then not");
    // What was understood means the same when it is said in our own words.
    let again = issue(auth, &claims, Duration::from_secs(600)).expect("the secret is set");
    if again.len() <= 8 * 1024 {
        assert_eq!(verify(&again).as_ref(), Some(&claims));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(text);
    }
    check(&signed(HEADER, bytes));
    check(&signed(HEADER, &[CLAIMS.as_bytes(), bytes, b"}"].concat()));
    // The first byte that parts them is unlikely to stand in either.
    let mut parts = bytes.splitn(2, |b| *b == 0);
    if let (Some(header), Some(claims)) = (parts.next(), parts.next()) {
        check(&signed(header, claims));
    }
});
