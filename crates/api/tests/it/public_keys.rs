//! Tokens signed by an issuer whose public keys stand in a file: a PEM, or a JWKS that changes.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use tenantry_testing::TestDatabase;

use crate::service::Service;
use crate::signer::{Signer, encoded};
use crate::tokens::{good_claims, shown, unsigned, with};

const USERS: &str = "/api/users";

fn hmac(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = unsigned(header, claims);
    let key = EncodingKey::from_secret(secret);
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn write(name: &str, text: &str) -> String {
    let dir = std::env::temp_dir().join(format!("tenantry-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_pem_of_each_type_is_enough() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let claims = good_claims(tenant);
    let signers = [Signer::rsa(), Signer::p256(), Signer::ed25519()];
    for signer in &signers {
        let path = write("key.pem", &signer.pem());
        let settings = [("auth.secret", ""), ("auth.public_key_file", &*path)];
        let service = Service::with(&db, &settings).await;
        let header = json!({"alg": signer.alg()});
        assert_eq!(service.get(&signer.sign(&header, &claims), USERS).await.status, 200);
        // A PEM gives its key no name, so none is wrong.
        assert_eq!(service.get(&signer.token("any", &claims), USERS).await.status, 200);
        for other in &signers {
            if other.alg() != signer.alg() {
                for alg in [other.alg(), signer.alg()] {
                    let token = other.sign(&json!({"alg": alg}), &claims);
                    shown(&service.get(&token, USERS).await);
                }
            }
        }
        // The public key as a secret: in the form that the file has, and in others.
        let der = signer.pem().lines().filter(|l| !l.starts_with("--")).collect::<String>();
        let der = data_encoding::BASE64.decode(der.as_bytes()).unwrap();
        for secret in [signer.pem().as_bytes(), signer.pem().trim().as_bytes(), &der] {
            for alg in ["HS256", signer.alg()] {
                let token = hmac(&json!({"alg": alg}), &claims, secret);
                shown(&service.get(&token, USERS).await);
            }
        }
    }
}

/// Forged tokens for a service that knows `rsa`, `ec` and `ed` by these names.
fn forged(claims: &Value, rsa: &Signer, ec: &Signer, ed: &Signer) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |why: &str, token: String| rows.push((why.to_owned(), token));
    let n = rsa.jwk("rsa")["n"].as_str().unwrap().to_owned();
    for secret in [rsa.pem(), n, rsa.jwk("rsa").to_string(), String::new()] {
        let header = json!({"alg": "HS256", "kid": "rsa"});
        row("HS256 with the public key", hmac(&header, claims, secret.as_bytes()));
    }
    for alg in ["none", "None", "NONE", "nOnE", "", " none"] {
        let message = unsigned(&json!({"alg": alg, "kid": "rsa"}), claims);
        row("alg none", format!("{message}."));
        row("alg none, signed", rsa.sign(&json!({"alg": alg, "kid": "rsa"}), claims));
    }
    for (signer, kid) in [(rsa, "ec"), (ec, "ed"), (ed, "rsa"), (ec, "rsa"), (rsa, "ed")] {
        row("another type's key", signer.token(kid, claims));
    }
    for alg in ["RS384", "RS512", "PS256", "rs256", "RS256 ", "ES256", "EdDSA", "Ed25519"] {
        row("another alg", rsa.sign(&json!({"alg": alg, "kid": "rsa"}), claims));
    }
    let strangers = [Signer::rsa(), Signer::p256(), Signer::ed25519()];
    for (stranger, kid) in strangers.iter().zip(["rsa", "ec", "ed"]) {
        row("a stranger's key", stranger.token(kid, claims));
        row("without a kid", stranger.sign(&json!({"alg": stranger.alg()}), claims));
        let own = json!({"alg": stranger.alg(), "kid": kid, "jwk": stranger.jwk(kid)});
        row("brings its key", stranger.sign(&own, claims));
        let url = "https://attacker.example/jwks";
        let urls = json!({"alg": stranger.alg(), "kid": "new", "jku": url, "x5u": url});
        row("names its key's address", stranger.sign(&urls, claims));
        let chain = json!({"alg": stranger.alg(), "kid": kid, "x5c": [encoded(b"x")]});
        row("brings a certificate", stranger.sign(&chain, claims));
    }
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "https://attacker.example/key",
        "' OR '1'='1",
        "x'; DROP TABLE keys; --",
        "rsa\0",
        "RSA",
        "",
        "*",
        "%",
    ] {
        row("a kid that is no name", rsa.token(kid, claims));
    }
    let long = "k".repeat(256);
    for kid in [json!(1), json!(null), json!(["rsa"]), json!({"a": 1}), json!(long)] {
        row("a kid that is no text", rsa.sign(&json!({"alg": "RS256", "kid": kid}), claims));
    }
    for crit in [json!(["b64"]), json!([]), json!(null), json!(["kid"])] {
        let header = json!({"alg": "RS256", "kid": "rsa", "crit": crit});
        row("crit", rsa.sign(&header, claims));
    }
    let p384 = Signer::p384();
    row("another curve", p384.sign(&json!({"alg": "ES256", "kid": "ec"}), claims));
    row("another curve, so named", p384.token("ec", claims));
    let message = unsigned(&json!({"alg": "ES256", "kid": "ec"}), claims);
    row("a signature of zeros", format!("{message}.{}", encoded(&[0; 64])));
    row("no signature", format!("{message}."));
    rows.extend(misencoded(claims, rsa));
    rows
}

/// Honest tokens, written otherwise than they must be.
fn misencoded(claims: &Value, rsa: &Signer) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |why: &str, token: String| rows.push((why.to_owned(), token));
    let good = rsa.token("rsa", claims);
    for more in ["=", "==", ".", "A", "+"] {
        row("more at its end", format!("{good}{more}"));
    }
    // The last character of 256 bytes in base64 carries bits that mean nothing.
    let (rest, last) = good.split_at(good.len() - 1);
    let at = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = at.iter().position(|c| *c == last.as_bytes()[0]).unwrap();
    row("not canonical", format!("{rest}{}", char::from(at[value + 1])));
    let mut parts = good.split('.').map(str::to_owned).collect::<Vec<_>>();
    parts[0].push('=');
    row("a padded header", parts.join("."));
    let twice = encoded(br#"{"alg":"HS256","alg":"RS256","kid":"rsa"}"#);
    let message = format!("{twice}.{}", encoded(claims.to_string().as_bytes()));
    let signature = encoded(&rsa.signature(message.as_bytes()));
    row("two algs", format!("{message}.{signature}"));
    let mut more = claims.clone();
    more["more"] = json!("x".repeat(8 * 1024));
    row("too long", rsa.token("rsa", &more));
    rows
}

#[tokio::test]
async fn no_forged_token_is_believed_with_a_key_set() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let claims = good_claims(tenant);
    let (rsa, ec, ed) = (Signer::rsa(), Signer::p256(), Signer::ed25519());
    let jwks = json!({"keys": [rsa.jwk("rsa"), ec.jwk("ec"), ed.jwk("ed")]});
    let path = write("jwks.json", &jwks.to_string());
    let service = Service::with(&db, &[("auth.secret", ""), ("auth.jwks_file", &path)]).await;
    let expected = shown(&service.get("x", USERS).await);
    for (why, token) in forged(&claims, &rsa, &ec, &ed) {
        let refused = service.get(&token, USERS).await;
        assert_eq!(refused.status, 401, "{why}");
        assert_eq!(shown(&refused), expected, "{why}");
    }
    for (signer, kid) in [(&rsa, "rsa"), (&ec, "ec"), (&ed, "ed")] {
        assert_eq!(service.get(&signer.token(kid, &claims), USERS).await.status, 200, "{kid}");
        let header = json!({"alg": signer.alg()});
        assert_eq!(service.get(&signer.sign(&header, &claims), USERS).await.status, 200, "{kid}");
        let late = with(tenant, "exp", json!(jiff::Timestamp::now().as_second() - 31));
        shown(&service.get(&signer.token(kid, &late), USERS).await);
    }
    // Some issuers put an address into every token. It is not looked at.
    let header = json!({"alg": "ES256", "kid": "ec", "jku": "https://idp.example/keys"});
    assert_eq!(service.get(&ec.sign(&header, &claims), USERS).await.status, 200);
}

#[tokio::test]
async fn a_changed_jwks_file_is_read_again_and_a_broken_one_is_not_taken() {
    let db = TestDatabase::new().await;
    let claims = good_claims(db.tenant("acme").await.id);
    let (old, new) = (Signer::p256(), Signer::ed25519());
    let set = |signer: &Signer, kid| json!({"keys": [signer.jwk(kid)]}).to_string();
    let path = write("changing.json", &set(&old, "old"));
    let settings = [
        ("auth.secret", ""),
        ("auth.jwks_file", &*path),
        ("auth.jwks_refresh_interval", "50ms"),
        ("auth.jwks_min_refetch_interval", "50ms"),
    ];
    let service = Service::with(&db, &settings).await;
    assert_eq!(service.get(&old.token("old", &claims), USERS).await.status, 200);
    for broken in ["{\"keys\": [", "{\"keys\": []}", "[]"] {
        write("changing.json", broken);
        // Several readings long; the unknown name asks for one, too.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(250) {
            shown(&service.get(&new.token("new", &claims), USERS).await);
            assert_eq!(
                service.get(&old.token("old", &claims), USERS).await.status,
                200,
                "{broken}"
            );
        }
    }
    write("changing.json", &set(&new, "new"));
    let taken = async {
        while service.get(&new.token("new", &claims), USERS).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), taken).await.expect("the new key is taken");
    shown(&service.get(&old.token("old", &claims), USERS).await);
}
