//! Exit codes and output: a contract with scripts.

use tenantry_testing::TestDatabase;

use crate::program::{installation, run, tenantry, with_migration};

#[tokio::test]
async fn tenants_are_created_listed_and_shown() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let empty = run(dir.path(), &["tenant", "list"]);
    assert_eq!((empty.code, empty.stdout.as_str()), (0, "no tenants\n"));

    let created = run(
        dir.path(),
        &[
            "tenant",
            "create",
            "--name",
            "Ä \"GmbH\"",
            "--subdomain",
            "acme",
            "--tier",
            "pro",
            "--output",
            "json",
        ],
    );
    assert_eq!(created.code, 0, "{}", created.stderr);
    let tenant = created.json();
    assert_eq!(
        (&tenant["name"], &tenant["tier"], &tenant["status"]),
        (&"Ä \"GmbH\"".into(), &"pro".into(), &"active".into())
    );

    let id = tenant["id"].as_str().unwrap();
    for reference in [id, "acme"] {
        let shown = run(dir.path(), &["tenant", "show", reference]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        assert!(
            shown.stdout.contains(&format!("schema and role tenant_{}", id.replace('-', ""))),
            "{}",
            shown.stdout
        );
    }
    let list =
        run(dir.path(), &["tenant", "list", "--status", "active", "--output", "json"]).json();
    assert_eq!(list["data"][0]["id"], tenant["id"]);
    assert_eq!(tenant["schema"], format!("tenant_{}", id.replace('-', "")));
    assert_eq!(run(dir.path(), &["tenant", "list", "--tier", "free"]).stdout, "no tenants\n");
}

#[tokio::test]
async fn each_kind_of_failure_has_its_code() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let create =
        |subdomain| run(dir.path(), &["tenant", "create", "--name", "A", "--subdomain", subdomain]);
    assert_eq!(create("acme").code, 0);
    for (ended, code, words) in [
        (create("acme"), 4, "error: subdomain `acme` is taken"),
        (create("WWW"), 2, "only `a-z`, `0-9` and `-`"),
        (
            run(dir.path(), &["tenant", "show", "nobody"]),
            6,
            "error: there is no tenant `nobody`\nhint: ",
        ),
        (run(dir.path(), &["migrate", "run", "--tenant", "nobody"]), 6, "there is no tenant"),
        (run(dir.path(), &["migrate", "run", "--to", "99"]), 2, "has no version 99"),
        (run(dir.path(), &["tenant", "create"]), 2, "--name"),
        (run(dir.path(), &["frobnicate"]), 2, "unrecognized subcommand"),
        (
            run(dir.path(), &["tenant", "list", "--config", "nowhere.toml"]),
            2,
            "there is no file `nowhere.toml`",
        ),
    ] {
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "`{words}` is not in: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "nothing but data goes to stdout");
    }
    let busy = db.superuser().await;
    busy.batch_execute("SELECT pg_advisory_lock(hashtextextended('shared:migrate:run', 0))")
        .await
        .unwrap();
    assert_eq!(run(dir.path(), &["migrate", "run", "--tenant", "acme"]).code, 5);
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_and_never_with_a_password() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let mut command = tenantry(dir.path());
    command.env("DATABASE_DIRECT_URL", "postgresql://shared_admin:hunter2@127.0.0.1:1/nowhere");
    let ended = crate::program::ended(command.args(["tenant", "list", "-vv"]).output().unwrap());
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("error: can't connect to 127.0.0.1:1/nowhere\n  caused by: "),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("hint: "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"));

    let mut command = tenantry(dir.path());
    command.env("TENANTRY_LANES__SECRET", "another secret of 32 characters..");
    let ended = crate::program::ended(command.args(["tenant", "list"]).output().unwrap());
    assert!(
        ended.stderr.contains("refuses the login: password authentication failed"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("hint: passwords must be those"), "{}", ended.stderr);

    // What the shell exports is not what the file says: that is told.
    let mut command = tenantry(dir.path());
    command.env("TENANTRY_LANES__COUNT", "3");
    let ended = crate::program::ended(command.args(["tenant", "list"]).output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let mut command = tenantry(dir.path());
    command.env("DATABASE_URL", "postgresql://127.0.0.1:1/x");
    let ended = crate::program::ended(command.args(["tenant", "list"]).output().unwrap());
    assert!(
        ended
            .stderr
            .starts_with("note: `DATABASE_URL` overrides `database.url` from `tenantry.toml`"),
        "{}",
        ended.stderr
    );

    let nowhere = tempfile::tempdir().unwrap();
    let ended = run(nowhere.path(), &["tenant", "list"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("no configuration: there is no `tenantry.toml`"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn everything_that_looks_answers_in_text_and_in_json() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let dir = installation(&db);
    for command in [
        &["tenant", "list"] as &[&str],
        &["tenant", "show", "acme"],
        &["migrate", "status"],
        &["migrate", "status", "--tenant", "acme"],
        &["migrate", "run"],
        &["migrate", "run", "--dry-run"],
        &["lanes", "list"],
        &["lanes", "userlist"],
        &["doctor"],
        &["config", "check"],
        &["config", "show"],
        &["status"],
        &["down"],
    ] {
        let text = run(dir.path(), command);
        assert_eq!(text.code, 0, "{command:?}: {}", text.stderr);
        assert!(!text.stdout.is_empty() && text.stdout.ends_with('\n'), "{command:?}");
        let json = run(dir.path(), &[command, &["--output", "json"]].concat());
        assert_eq!((json.code, json.stderr.as_str()), (0, ""), "{command:?}");
        json.json();
    }
}

#[tokio::test]
async fn migrate_run_brings_tenants_to_the_head_of_a_directory() {
    let db = TestDatabase::new().await;
    for name in ["a", "b", "c"] {
        db.tenant(name).await;
    }
    let dir = installation(&db);
    let file = with_migration(dir.path(), "CREATE TABLE note ();");

    let planned = run(dir.path(), &["migrate", "run", "--dry-run"]);
    let expected = "tenants: 3, in waves of 1, 2\n  `sql/tenant/0005_note.up.sql` (irreversible) would run in 3\n";
    assert_eq!(planned.stdout, expected, "{}", planned.stderr);
    let one = run(dir.path(), &["migrate", "run", "--tenant", "b", "--output", "json"]);
    assert_eq!(one.json()["tenants"]["done"], 1, "{}", one.stderr);
    // The second of the remaining two can't be migrated: the first one stays so.
    let behind = db.superuser().await;
    let last = "SELECT id::text FROM public.tenants WHERE schema_version = 2 ORDER BY created_at DESC LIMIT 1";
    let id: String = behind.query_typed_one(last, &[]).await.unwrap().get(0);
    behind
        .batch_execute(&format!("CREATE TABLE tenant_{}.note ()", id.replace('-', "")))
        .await
        .unwrap();
    let partly = run(dir.path(), &["migrate", "run"]);
    assert_eq!(partly.code, 3, "{}", partly.stderr);
    let words = "failed: c: `sql/tenant/0005_note.up.sql`, line 1: relation \"note\" already exists (42P07)";
    assert!(partly.stderr.contains(words), "{}", partly.stderr);
    let status = run(dir.path(), &["migrate", "status", "--output", "json"]).json();
    assert_eq!(
        status["tenants_by_version"],
        serde_json::json!([{ "version": 2, "tenants": 1 }, { "version": 5, "tenants": 2 }])
    );
    assert_eq!(status["behind"][0]["id"], id);

    std::fs::write(&file, "CREATE TABLE other ();").unwrap();
    let refused = run(dir.path(), &["migrate", "run", "--tenant", "b"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("was changed after it had been applied"), "{}", refused.stderr);
}
