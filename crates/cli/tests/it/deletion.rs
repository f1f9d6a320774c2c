//! Deleting and purging from the command line, also with `kill -9` and a full disk.

use std::process::{Command, Stdio};

use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::Client;

use crate::program::{ended, installation, run, tenantry};

async fn text(client: &Client, query: &str) -> String {
    client.query_typed_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_tenant_is_deleted_restored_held_and_purged() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let dir = installation(&db);
    let code = |arguments: &[&str]| {
        let done = run(dir.path(), arguments);
        (done.code, done.stderr)
    };
    for arguments in [
        &["tenant", "delete", "acme"][..],
        &["tenant", "delete", "acme", "--confirm", "ACME"],
        &["tenant", "purge", "acme", "--confirm", "acme", "--now"],
        &["tenant", "delete", "acme", "--confirm", "globex", "--retention", "0s"],
    ] {
        assert_eq!(code(arguments).0, 4, "{arguments:?}: {}", code(arguments).1);
    }
    assert_eq!(code(&["tenant", "delete", "acme", "--retention", "soon"]).0, 2);
    assert_eq!(code(&["tenant", "delete", "nobody", "--confirm", "nobody"]).0, 6);
    let json = ["--output", "json"];
    let deleted = run(
        dir.path(),
        &[&["tenant", "delete", "acme", "--confirm", "acme", "--retention", "2days"], &json[..]]
            .concat(),
    );
    assert_eq!(deleted.json()["status"], "deleted", "{}", deleted.stderr);
    assert!(deleted.stderr.contains("it can be restored until 20"), "{}", deleted.stderr);
    let shown = run(dir.path(), &["tenant", "show", "acme"]).stdout;
    assert!(shown.contains("\nrestore until   20"), "{shown}");
    let early = code(&["tenant", "purge", "acme", "--confirm", "acme"]);
    assert!(early.0 == 4 && early.1.contains("hint: `--now` does not wait"), "{}", early.1);
    assert_eq!(
        run(dir.path(), &["tenant", "restore", "acme", "--output", "json"]).json()["status"],
        "active"
    );
    assert_eq!(code(&["tenant", "delete", "acme", "--confirm", "acme", "--retention", "0s"]).0, 0);
    assert_eq!(
        run(dir.path(), &["tenant", "hold", "acme", "--output", "json"]).json()["legal_hold"],
        true
    );
    let held = code(&["tenant", "purge", "acme", "--confirm", "acme", "--now"]);
    assert!(held.0 == 4 && held.1.contains("under a legal hold"), "{}", held.1);
    assert_eq!(code(&["tenant", "unhold", "acme"]).0, 0);
    // Due, so without `--now`.
    let purged =
        run(dir.path(), &[&["tenant", "purge", "acme", "--confirm", "acme"], &json[..]].concat());
    assert_eq!(purged.code, 0, "{}", purged.stderr);
    let report = purged.json();
    assert_eq!((&report["ledger_sequence"], &report["existed"]["tables"]), (&1.into(), &9.into()));
    assert!(purged.stderr.contains("nothing is left\n"), "{}", purged.stderr);
    let id = report["tenant_id"].as_str().unwrap();
    assert_eq!(code(&["tenant", "show", "acme"]).0, 6);
    assert_eq!(
        run(dir.path(), &["tenant", "show", id, "--output", "json"]).json()["status"],
        "purged"
    );
    for step in ["restore", "hold", "suspend"] {
        assert_eq!(code(&["tenant", step, id]).0, 4, "{step}");
    }
    assert_eq!(code(&["tenant", "purge", id, "--confirm", "acme", "--now"]).0, 4);
    assert_eq!(code(&["tenant", "create", "--name", "A", "--subdomain", "acme"]).0, 0);
}

/// Each with what arms and what disarms it.
fn stops() -> [(String, String); 11] {
    let row = |condition: &str| {
        let table = match condition {
            _ if condition.contains("id IS NOT NULL") => "certificates",
            _ if condition.contains("status") => "tenants",
            _ => "purges",
        };
        let event = if table == "certificates" { "INSERT OR UPDATE" } else { "UPDATE" };
        (
            format!(
                "CREATE TRIGGER stop AFTER {event} ON public.{table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION public.stop()"
            ),
            format!("DROP TRIGGER stop ON public.{table}"),
        )
    };
    let ddl = |tag: &str| {
        (
            format!(
                "CREATE EVENT TRIGGER stop ON ddl_command_start WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.ddl_stop()"
            ),
            "DROP EVENT TRIGGER stop".to_owned(),
        )
    };
    [
        row("NEW.status = 'purging'"),
        row("NEW.step = 'recorded'"),
        ddl("ALTER SCHEMA"),
        row("NEW.step = 'frozen'"),
        ddl("DROP TABLE"),
        ddl("DROP SCHEMA"),
        row("NEW.step = 'emptied'"),
        row("NEW.step = 'role_dropped'"),
        row("NEW.status = 'purged'"),
        row("NEW.id IS NOT NULL"),
        row("NEW.id IS NOT NULL AND NEW.status = 'complete'"),
    ]
}

/// The program is killed while the server is at a step of it. The server may finish that step on its own;
/// whoever comes next does the rest.
#[tokio::test]
async fn a_purge_that_is_killed_anywhere_is_finished_by_the_next_one() {
    // As below: of what other tests write, a certificate would wait to be complete.
    let servers_dir = temp_dir().unwrap();
    let (_stack, servers) = Servers::start(servers_dir.path(), 2).await.unwrap();
    let db = TestDatabase::on(servers).await;
    let dir = installation(&db);
    let (holder, observer) = (db.superuser().await, db.superuser().await);
    holder
        .batch_execute(
            "CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7); RETURN NULL; END $$;
             CREATE FUNCTION public.ddl_stop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7); END $$;
             GRANT EXECUTE ON FUNCTION public.stop(), public.ddl_stop() TO PUBLIC",
        )
        .await
        .unwrap();
    let waiting = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    for (n, (arm, disarm)) in stops().into_iter().enumerate() {
        let name = format!("t{n}");
        let tenant = db.tenant(&name).await;
        assert_eq!(run(dir.path(), &["tenant", "delete", &name, "--confirm", &name]).code, 0);
        holder.batch_execute(&arm).await.unwrap();
        holder.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
        let purge = ["tenant", "purge", &name, "--confirm", &name, "--now"];
        let mut child = tenantry(dir.path())
            .args(purge)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..1000 {
            if text(&observer, waiting).await == "1" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(text(&observer, waiting).await, "1", "{arm}: not met");
        child.kill().unwrap();
        child.wait().unwrap();
        holder.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
        // Once the server is done with what the dead one began, which it notices at its own time.
        let again = run(dir.path(), &purge);
        let status = format!("SELECT status FROM public.tenants WHERE id = '{}'", tenant.id);
        let status = text(&observer, &status).await;
        assert_eq!(status, "purged", "{arm}: {}", again.stderr);
        holder.batch_execute(&disarm).await.unwrap();
    }
    let left = "SELECT count(*)::text FROM pg_namespace WHERE nspname LIKE 'tenant\\_%'";
    assert_eq!(text(&observer, left).await, "0");
    let entries = db.ledger().entries().unwrap();
    let ids: std::collections::BTreeSet<_> = entries.iter().map(|e| e.tenant_id).collect();
    assert_eq!((entries.len(), ids.len()), (11, 11));
    let certificates =
        "SELECT concat_ws(' ', count(*), count(DISTINCT c.id)) FROM public.certificates c
                        JOIN public.purges p USING (tenant_id) WHERE p.finished_at IS NOT NULL";
    assert_eq!(text(&observer, certificates).await, "11 11", "one for each");
    for id in ids {
        let shown =
            run(dir.path(), &["tenant", "certificate", &id.to_string(), "--output", "json"]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
    }
    assert_eq!(text(&observer, certificates).await, "11 11", "and no more by asking");
}

/// The entry can't be written, though all looked well: the purge is taken back.
#[tokio::test]
async fn where_the_ledger_has_no_room_nothing_happens() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    for name in ["acme", "globex"] {
        db.tenant(name).await;
        assert_eq!(run(dir.path(), &["tenant", "delete", name, "--confirm", name]).code, 0);
    }
    assert_eq!(
        run(dir.path(), &["tenant", "purge", "globex", "--confirm", "globex", "--now"]).code,
        0
    );
    let file = db.config.erasure.ledger_dir.clone().unwrap().join("erasures.jsonl");
    let before = std::fs::read(&file).unwrap();
    // No file may grow beyond so many blocks: a write fails as on a full disk.
    let program = env!("CARGO_BIN_EXE_tenantry");
    let limited =
        format!("trap '' XFSZ; ulimit -f 0; exec {program} tenant purge acme --confirm acme --now");
    let done =
        ended(Command::new("sh").args(["-c", &limited]).current_dir(dir.path()).output().unwrap());
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("can't write the erasure ledger"), "{}", done.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let superuser = db.superuser().await;
    let status = "SELECT status FROM public.tenants WHERE subdomain = 'acme'";
    assert_eq!(text(&superuser, status).await, "deleted");
    let actions =
        "SELECT string_agg(action, ' ' ORDER BY a.id) FROM public.audit_log a, public.tenants t
                   WHERE t.id = a.tenant_id AND subdomain = 'acme'";
    assert_eq!(
        text(&superuser, actions).await,
        "tenant.created tenant.deleted tenant.purge_begun tenant.purge_withdrawn"
    );
    assert_eq!(run(dir.path(), &["tenant", "restore", "acme"]).code, 0);
}

#[tokio::test]
async fn a_purge_ends_with_a_certificate_that_can_be_filed_and_checked() {
    // What writes in any database of a server holds up the rewriting of statistics, and other tests do.
    let servers_dir = temp_dir().unwrap();
    let (_stack, servers) = Servers::start(servers_dir.path(), 2).await.unwrap();
    let db = TestDatabase::on(servers).await;
    let acme = db.tenant("acme").await;
    let id = acme.id.to_string();
    let dir = installation(&db);
    let early = run(dir.path(), &["tenant", "certificate", "acme"]);
    assert_eq!(early.code, 4, "{}", early.stderr);
    assert!(early.stderr.contains("is active, so it can't be certified"), "{}", early.stderr);
    let nobody = "00000000-0000-4000-8000-000000000000";
    assert_eq!(run(dir.path(), &["tenant", "certificate", nobody]).code, 6);
    assert_eq!(run(dir.path(), &["tenant", "certificate"]).code, 2);
    run(dir.path(), &["tenant", "delete", "acme", "--confirm", "acme", "--retention", "0s"]);
    let purged = run(dir.path(), &["tenant", "purge", "acme", "--confirm", "acme"]);
    let says =
        format!("its certificate is complete: `tenantry tenant certificate {id}` shows it\n");
    assert!(purged.code == 0 && purged.stderr.contains(&says), "{}", purged.stderr);
    let text = run(dir.path(), &["tenant", "certificate", &id]);
    assert!(text.stdout.starts_with("ERASURE CERTIFICATE "), "{}", text.stdout);
    for words in [
        "status          complete",
        "SELECT count(*) FROM pg_catalog.pg_class WHERE",
        "SHA-256 of the document",
    ] {
        assert!(text.stdout.contains(words), "{words}: {}", text.stdout);
    }
    let json = run(dir.path(), &["tenant", "certificate", &id, "--output", "json"]);
    assert_eq!(json.json()["status"], "complete");
    let file = dir.path().join("filed.json");
    let path = file.to_str().unwrap();
    std::fs::write(&file, &json.stdout).unwrap();
    let good = run(dir.path(), &["tenant", "certificate", "--check", path]);
    assert_eq!((good.code, good.stdout.matches("holds").count()), (0, 3), "{}", good.stdout);
    // The same digest by other people's tools, as the documents say, where they are installed.
    let jq = format!("jq -cSj 'del(.sha256)' '{path}' | sha256sum");
    let digest = ended(Command::new("sh").args(["-c", &jq]).output().unwrap());
    if Command::new("jq").arg("--version").output().is_ok() {
        assert!(
            digest.stdout.starts_with(json.json()["sha256"].as_str().unwrap()),
            "{}",
            digest.stdout
        );
    }
    std::fs::write(&file, json.stdout.replace("cli:", "cli:x")).unwrap();
    let bad = run(dir.path(), &["tenant", "certificate", "--check", path]);
    assert!(bad.code == 4 && bad.stdout.contains("BROKEN"), "{}", bad.stdout);
    std::fs::write(&file, "no JSON").unwrap();
    let bad = run(dir.path(), &["tenant", "certificate", "--check", path]);
    assert!(bad.code == 2 && bad.stderr.contains("is no certificate in JSON"), "{}", bad.stderr);
}

#[tokio::test]
async fn what_a_restore_brought_back_is_purged_from_the_ledger() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let dir = installation(&db);
    let superuser = db.superuser().await;
    // As after a restore: the tenant is there, whole, and the ledger of today says that it was erased.
    let ledger = db.config.erasure.ledger_dir.clone().unwrap();
    std::fs::create_dir_all(&ledger).unwrap();
    let entry = format!(
        "{{\"sequence\":1,\"recorded_at\":\"2026-01-01T00:00:00Z\",\"tenant_id\":\"{}\",\"previous\":\"{}\"}}\n",
        acme.id,
        "0".repeat(64)
    );
    std::fs::write(ledger.join("erasures.jsonl"), entry).unwrap();
    let mut serve = tenantry(dir.path());
    serve
        .args(["serve", "--http-port", "0"])
        .env("TENANTRY_AUTH__SECRET", "0123456789abcdef".repeat(2));
    let refused = ended(serve.output().unwrap());
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    for words in [acme.id.to_string().as_str(), "hint: a backup was restored", "--from-ledger"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let doctor = run(dir.path(), &["doctor"]);
    assert!(doctor.stdout.contains("of this database's tenants were erased"), "{}", doctor.stdout);
    assert_eq!(run(dir.path(), &["tenant", "purge", "acme", "--from-ledger"]).code, 2);
    let again = ["tenant", "purge", "--from-ledger", "--output", "json"];
    let done = run(dir.path(), &again);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.json()["purged"], serde_json::json!([acme.id]));
    assert_eq!(run(dir.path(), &again).json()["nothing_to_do"], 1);
    let status = format!("SELECT status FROM public.tenants WHERE id = '{}'", globex.id);
    assert_eq!(text(&superuser, &status).await, "active");
}
