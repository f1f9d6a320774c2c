//! `tenant export`, `import`, `exec` and `psql` from the command line: exit codes, files, signals.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use tenantry_testing::TestDatabase;

use crate::program::{Ended, count, ended, installation, run, tenantry, until_equal};

async fn two_tenants(db: &TestDatabase) {
    for name in ["acme", "globex"] {
        let schema = db.tenant(name).await.schema();
        let add = format!(
            "INSERT INTO {schema}.users (email, name, role, password_hash) VALUES ('{name}@b.co', E'A\\u001b[2J', 'owner', 'h')"
        );
        db.superuser().await.batch_execute(&add).await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_goes_into_a_file_and_comes_back() {
    let db = TestDatabase::new().await;
    two_tenants(&db).await;
    let dir = installation(&db);
    let run = |arguments: &[&str]| run(dir.path(), arguments);
    let first = run(&["tenant", "export", "acme", "--file", "acme.zip", "--output", "json"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert_eq!((&first.json()["rows"], &first.json()["tables"]), (&1.into(), &9.into()));
    let file = dir.path().join("acme.zip");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&file).unwrap();
    let again = run(&["tenant", "export", "acme", "--file", "acme.zip"]);
    assert!(again.code == 4 && again.stderr.contains("`--force` overwrites"), "{}", again.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "untouched");
    let forced =
        run(&["tenant", "export", "acme", "--file", "acme.zip", "--force", "--omit-secrets"]);
    assert!(forced.stdout.contains("without users.password_hash, social_accounts.credentials"));
    for (target, code) in [(".", 2), ("/dev/null", 4), ("nowhere/acme.zip", 1)] {
        let refused = run(&["tenant", "export", "acme", "--file", target, "--force"]);
        assert_eq!(refused.code, code, "{target}: {}", refused.stderr);
    }
    assert_eq!(run(&["tenant", "export", "nobody", "--file", "x.zip"]).code, 6);
    let piped =
        tenantry(dir.path()).args(["tenant", "export", "acme", "--file", "-"]).output().unwrap();
    assert!(piped.status.success() && piped.stdout.starts_with(b"PK"));
    assert_eq!(run(&["tenant", "export", "acme", "--file", "-", "--output", "json"]).code, 2);
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != "tenantry.toml" && name != "acme.zip")
        .collect();
    assert_eq!(names, Vec::<String>::new(), "nothing half-written is left");

    let taken = run(&["tenant", "import", "acme.zip"]);
    assert!(taken.code == 4 && taken.stderr.contains("`acme` is taken"), "{}", taken.stderr);
    let copy = run(&["tenant", "import", "acme.zip", "--subdomain", "copy", "--output", "json"]);
    assert_eq!((copy.code, &copy.json()["subdomain"]), (0, &"copy".into()), "{}", copy.stderr);
    std::fs::write(dir.path().join("cut.zip"), &bytes[..bytes.len() / 2]).unwrap();
    let cut = run(&["tenant", "import", "cut.zip", "--subdomain", "cut"]);
    assert!(
        cut.code == 4 && cut.stderr.contains("error: the archive is damaged"),
        "{}",
        cut.stderr
    );
    assert_eq!(run(&["tenant", "import", "absent.zip"]).code, 1);
    assert_eq!(run(&["tenant", "import", "copy.zip", "--subdomain", "WWW"]).code, 1);
}

/// A full disk, told as such; nothing is left that could be taken for an archive.
#[tokio::test]
async fn a_full_disk_leaves_no_archive() {
    let db = TestDatabase::new().await;
    two_tenants(&db).await;
    let dir = installation(&db);
    let program = env!("CARGO_BIN_EXE_tenantry");
    let limited =
        format!("trap '' XFSZ; ulimit -f 1; exec {program} tenant export acme --file a.zip");
    let done =
        ended(Command::new("sh").args(["-c", &limited]).current_dir(dir.path()).output().unwrap());
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("can't write the archive"), "{}", done.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "tenantry.toml alone");
}

#[tokio::test]
async fn a_statement_is_run_in_tenants_and_shown_under_their_names() {
    let db = TestDatabase::new().await;
    two_tenants(&db).await;
    let dir = installation(&db);
    let exec = |arguments: &[&str]| run(dir.path(), &[&["tenant", "exec"], arguments].concat());
    let select = "SELECT email, name, avatar_url FROM users";
    let all = exec(&["--all", "--", select]);
    assert_eq!(all.code, 0, "{}", all.stderr);
    let acme = all.stdout.find("== acme (").unwrap();
    let globex = all.stdout.find("== globex (").unwrap();
    assert!(acme < globex && all.stdout[acme..globex].contains("acme@b.co"), "{}", all.stdout);
    assert!(!all.stdout[acme..globex].contains("globex@"), "{}", all.stdout);
    assert!(all.stdout.contains("A\\u{1b}[2J  NULL\n1 row\n"), "{}", all.stdout);
    let json = exec(&["globex", "acme", "--output", "json", "--", select]).json();
    let emails: Vec<_> =
        json["data"].as_array().unwrap().iter().map(|t| &t["rows"][0][0]).collect();
    assert_eq!(emails, ["globex@b.co", "acme@b.co"], "in the order given");
    assert_eq!(json["data"][0]["rows"][0][2], serde_json::Value::Null);
    for (arguments, code) in [
        (&["acme", "--", "DROP TABLE users"][..], 4),
        (&["acme", "--", "SELECT 1; SELECT 2"], 1),
        (&["acme", "--read-only", "--", "DELETE FROM users"], 1),
        (&["acme"], 2),
        (&["--", "SELECT 1"], 2),
        (&["acme", "--all", "--", "SELECT 1"], 2),
        (&["nobody", "--", "SELECT 1"], 6),
    ] {
        assert_eq!(exec(arguments).code, code, "{arguments:?}: {}", exec(arguments).stderr);
    }
    let only = "SELECT 1 / (CASE WHEN email LIKE 'acme%' THEN 0 ELSE 1 END) FROM users";
    let stopped = exec(&["--all", "--parallel", "1", "--", only]);
    assert_eq!(stopped.code, 1, "{}", stopped.stderr);
    let partly = exec(&["--all", "--on-error", "continue", "--output", "json", "--", only]);
    assert_eq!(partly.code, 3, "{}", partly.stderr);
    let told = partly.json()["data"][0]["error"].to_string();
    assert!(told.contains("division by zero"), "{told}");
    assert_eq!(run(dir.path(), &["tenant", "suspend", "acme"]).code, 0);
    assert_eq!(exec(&["acme", "--", select]).code, 4);
    let one = exec(&["--all", "--output", "json", "--", select]).json();
    assert_eq!(one["data"].as_array().unwrap().len(), 1, "whoever is served");
}

fn psql(dir: &std::path::Path, input: &str, arguments: &[&str]) -> Ended {
    let mut child = start(dir, arguments);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    ended(child.wait_with_output().unwrap())
}

fn start(dir: &std::path::Path, arguments: &[&str]) -> Child {
    tenantry(dir)
        .args(["tenant", "psql"])
        .args(arguments)
        .env("XDG_RUNTIME_DIR", dir)
        .env("PGHOST", "nowhere.example")
        .env("PGOPTIONS", "-c role=none")
        .env("PSQLRC", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Shells of this database's tenants.
const SHELLS: &str = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles s ON s.oid = m.member
    JOIN pg_roles g ON g.oid = m.roleid JOIN public.tenants t ON g.rolname = 'tenant_' || replace(t.id::text, '-', '')
    WHERE s.rolname LIKE 'shared\\_shell\\_%'";

#[tokio::test]
async fn psql_is_in_the_tenant_and_its_login_goes_with_it() {
    let db = TestDatabase::new().await;
    two_tenants(&db).await;
    let dir = installation(&db);
    let superuser = db.superuser().await;
    let other = tenantry_db::models::tenants::get_tenant(&db.reader, &"globex".parse().unwrap())
        .await
        .unwrap()
        .schema();
    let input = format!(
        "SELECT email FROM users;
         RESET ROLE; SELECT email FROM {other}.users;
         SET ROLE NONE; SELECT email FROM {other}.users;
         \\! echo \"password: $PGPASSWORD.\"; env | grep -c SCRAM
         SELECT 'still ' || count(*) FROM users;"
    );
    let done = psql(dir.path(), &input, &["acme", "--", "-AtX", "-w"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.starts_with("acme@b.co\n"), "{}", done.stdout);
    assert!(!done.stdout.contains("globex@") && done.stdout.contains("password: .\n0\n"));
    assert_eq!(done.stderr.matches("permission denied for schema").count(), 2, "{}", done.stderr);
    assert_eq!(count(&superuser, SHELLS).await, 0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the password's file is gone");
    // In a script, psql ends where it can't connect.
    for somebody in [format!("- {other}"), "- shared_lane_00".to_owned(), "postgres".to_owned()] {
        let input = format!("\\connect {somebody}\nSELECT 'in';");
        let refused = psql(dir.path(), &input, &["acme", "--", "-AtX", "-w"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{}", refused.stderr);
    }
    // psql's own failure is told, and its arguments are its own.
    assert_eq!(
        psql(dir.path(), "", &["acme", "--", "-XAtc", "SELECT email FROM users"]).stdout,
        "acme@b.co\n"
    );
    assert_eq!(psql(dir.path(), "", &["acme", "--", "-Xc", "SELECT nonsense"]).code, 1);
    assert_eq!(psql(dir.path(), "", &["nobody"]).code, 6);
    assert_eq!(run(dir.path(), &["tenant", "suspend", "globex"]).code, 0);
    assert_eq!(psql(dir.path(), "", &["globex"]).code, 4);
    assert_eq!(count(&superuser, SHELLS).await, 0);
}

#[tokio::test]
async fn psql_ends_with_a_signal_or_a_suspension_and_leaves_nothing() {
    let db = TestDatabase::new().await;
    two_tenants(&db).await;
    let dir = installation(&db);
    let superuser = db.superuser().await;
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'shared\\_shell\\_%'";
    for how in ["TERM", "HUP", "suspend"] {
        let mut child = start(dir.path(), &["acme", "--", "-AtX"]);
        until_equal(&superuser, connected, 1).await;
        let arguments = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains("SCRAM"));
        // Ctrl-C is for psql's statement: this program stays.
        signal(&child, "INT");
        if how == "suspend" {
            assert_eq!(run(dir.path(), &["tenant", "suspend", "acme"]).code, 0);
            until_equal(&superuser, connected, 0).await;
            // psql learns of it with its next statement.
            let _ = child.stdin.take().unwrap().write_all(b"SELECT email FROM users;\n");
        } else {
            signal(&child, how);
        }
        // Open until it has ended: psql would end by itself, and content, with its input.
        let input = child.stdin.take();
        let done = ended(child.wait_with_output().unwrap());
        drop(input);
        assert_ne!(done.code, 0, "{how}: {}", done.stderr);
        assert!(!done.stdout.contains("acme@"), "{how}");
        until_equal(&superuser, SHELLS, 0).await;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{how}");
    }
    let opened = "SELECT count(*) FROM public.audit_log WHERE action = 'tenant.shell_opened'";
    assert_eq!(count(&superuser, opened).await, 3);
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}
