//! `tenantry token issue`.

use serde_json::Value;
use tenantry_testing::TestDatabase;

use crate::program::{ended, installation, run, tenantry};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn with_secret(db: &TestDatabase) -> tempfile::TempDir {
    let dir = installation(db);
    let file = dir.path().join("tenantry.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[auth]\nsecret = \"{SECRET}\"\n")).unwrap();
    dir
}

fn claims(token: &str) -> Value {
    let part = token.trim().split('.').nth(1).unwrap();
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).unwrap())
        .unwrap()
}

#[tokio::test]
async fn tokens_name_a_tenant_or_the_platform() {
    let db = TestDatabase::new().await;
    let tenant = db.tenant("acme").await.id;
    let dir = with_secret(&db);
    let issue = |more: &[&str]| run(dir.path(), &[&["token", "issue"], more].concat());
    let own = issue(&["--tenant", "acme", "--role", "viewer", "--sub", "user:7"]);
    assert_eq!((own.code, own.stdout.lines().count()), (0, 1), "{}", own.stderr);
    let own = claims(&own.stdout);
    assert_eq!(own["tenant_id"], tenant.to_string());
    assert_eq!((&own["role"], &own["sub"]), (&"viewer".into(), &"user:7".into()));
    assert_eq!(own["exp"].as_i64().unwrap() - own["iat"].as_i64().unwrap(), 3600);
    let all = issue(&["--platform", "--ttl", "30min", "--output", "json"]).json();
    assert!(all["expires_at"].is_string());
    let all = claims(all["token"].as_str().unwrap());
    let every = "tenants:read tenants:write tenants:delete tenants:act audit:read";
    assert_eq!((&all["scope"], &all["tenant_id"]), (&every.into(), &Value::Null));
    assert_eq!(all["exp"].as_i64().unwrap() - all["iat"].as_i64().unwrap(), 1800);
    for scopes in [
        &["--scope", "tenants:act", "--scope", "tenants:read"][..],
        &["--scope", "tenants:act tenants:read"],
    ] {
        let some = issue(&[&["--platform"], scopes].concat());
        assert_eq!(claims(&some.stdout)["scope"], "tenants:read tenants:act");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let dir = with_secret(&db);
    for (arguments, code, said) in [
        (&["--tenant", "nobody"][..], 6, "nobody"),
        (&["--tenant", "6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90"], 6, "6f1c0c52"),
        (&[], 2, "--platform"),
        (&["--tenant", "acme", "--platform"], 2, "cannot be used"),
        (&["--tenant", "acme", "--scope", "tenants:act"], 2, "cannot be used"),
        (&["--platform", "--role", "owner"], 2, "cannot be used"),
        (&["--platform", "--scope", "tenants"], 2, "tenants:read"),
        (&["--tenant", "acme", "--role", "root"], 2, "viewer"),
        (&["--platform", "--ttl", "0s"], 2, "30min"),
        (&["--platform", "--ttl", "10000h"], 2, "30min"),
        (&["--platform", "--sub", " "], 2, "characters"),
    ] {
        let refused = run(dir.path(), &[&["token", "issue"], arguments].concat());
        assert_eq!(refused.code, code, "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{arguments:?}: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    let bare = installation(&db);
    for arguments in [&["token", "issue", "--platform"][..], &["serve", "--http-port", "0"]] {
        let refused = run(bare.path(), arguments);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("TENANTRY_AUTH__SECRET"), "{}", refused.stderr);
    }
    let check = run(dir.path(), &["config", "check"]);
    assert_eq!(check.code, 0);
    let mut wrong = tenantry(dir.path());
    let wrong = wrong.args(["config", "check"]).env("TENANTRY_AUTH__SECRET", "short");
    let wrong = ended(wrong.output().unwrap());
    assert_eq!(wrong.code, 2);
    assert!(!wrong.stderr.contains("short") && wrong.stderr.contains("32"), "{}", wrong.stderr);
    let mut binary = tenantry(dir.path());
    let value = std::os::unix::ffi::OsStringExt::from_vec(b"\xff".to_vec());
    let value: std::ffi::OsString = value;
    let binary =
        ended(binary.args(["config", "check"]).env("TENANTRY_HTTP__PORT", value).output().unwrap());
    assert_eq!(binary.code, 2);
    assert!(binary.stderr.contains("TENANTRY_HTTP__PORT"), "{}", binary.stderr);
}
