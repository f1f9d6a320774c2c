//! `tenantry audit verify`, and what a running service does for it.

use std::process::Stdio;
use std::time::Duration;

use tenantry_db::audit::{Anchor, anchor_head, seal_entries};
use tenantry_testing::TestDatabase;

use crate::program::{installation, run, tenantry};

#[tokio::test]
async fn it_says_whether_the_log_is_intact_and_names_what_is_not() {
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let verify = |arguments: &[&str]| run(dir.path(), &[&["audit", "verify"], arguments].concat());
    let empty = verify(&[]);
    assert_eq!(
        (empty.code, empty.stdout.as_str()),
        (0, "intact: 0 entries are as they were sealed\n")
    );
    for name in ["acme", "globex"] {
        db.tenant(name).await;
    }
    let waiting = verify(&[]);
    assert!(
        waiting.code == 0 && waiting.stdout.contains("note:   2 entries are not sealed yet\n"),
        "{}",
        waiting.stdout
    );
    seal_entries(&db.admin).await.unwrap();
    anchor_head(&db.admin, &Anchor::find(&db.config).unwrap()).await.unwrap();
    let intact = verify(&["--output", "json"]);
    assert_eq!(intact.code, 0, "{}", intact.stderr);
    let found = intact.json();
    assert_eq!(
        (&found["intact"], &found["sealed"], &found["unsealed"]),
        (&true.into(), &2.into(), &0.into())
    );
    assert_eq!(found["head"]["hash"], found["anchored"]["hash"]);
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "ALTER TABLE public.audit_log DISABLE TRIGGER ALL;
             UPDATE public.audit_log SET actor = 'nobody' WHERE id = 1; DELETE FROM public.audit_log WHERE id = 2",
        )
        .await
        .unwrap();
    let broken = verify(&[]);
    assert_eq!(broken.code, 1, "{}", broken.stderr);
    let lines: Vec<&str> = broken.stdout.lines().take(2).collect();
    assert_eq!(
        lines,
        [
            "BROKEN  entry_changed: entry 1, at position 1, is not as it was sealed: the entry was changed, or its seal",
            "BROKEN  entry_deleted: entry 2, sealed at position 2, was deleted",
        ]
    );
    let broken = verify(&["--output", "json"]);
    assert_eq!((broken.code, &broken.json()["findings"][0]["kind"]), (1, &"entry_changed".into()));
    assert_eq!(broken.json()["findings"][0]["entry_id"], 1);
    let doctor = run(dir.path(), &["doctor"]);
    assert!(
        doctor.stdout.contains("these triggers are off: audit_log.audit_log_append_only"),
        "{}",
        doctor.stdout
    );
}

#[tokio::test]
async fn a_run_of_migrations_and_a_change_of_lanes_are_entries() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let dir = installation(&db);
    for arguments in [&["migrate", "run"][..], &["lanes", "resize", "4"]] {
        assert_eq!(run(dir.path(), arguments).code, 0, "{arguments:?}");
    }
    let entries = "SELECT string_agg(action || ' ' || (details - 'run')::text, E'\\n' ORDER BY id) FROM public.audit_log
                   WHERE tenant_id IS NULL AND actor LIKE 'cli:%'";
    let row = db.superuser().await.query_typed_one(entries, &[]).await.unwrap();
    let listed: Vec<&str> = row.get::<_, &str>(0).lines().collect();
    assert_eq!(
        listed,
        [
            "migration.run_begun {\"to\": null, \"direction\": \"up\"}",
            "migration.run_ended {\"state\": \"complete\", \"tenants_done\": 0, \"tenants_failed\": 0}",
            "lanes.resized {\"lanes\": 4, \"moved\": 0, \"transactions_ended\": 0}",
        ]
    );
}

/// The most memory that the program ever had, in KiB, and how it ended.
async fn peak_kib(dir: &std::path::Path) -> (u64, i32) {
    let mut child = tenantry(dir)
        .args(["audit", "verify"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(ended) = child.try_wait().unwrap() {
            return (peak, ended.code().unwrap());
        }
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        peak = now.unwrap_or(peak);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "takes a minute: part of `script/test --full`"]
async fn a_long_log_takes_no_more_memory_than_a_short_one() {
    const ENTRIES: u32 = 500_000;
    const MORE_KIB: u64 = 16 * 1024;
    let db = TestDatabase::new().await;
    let dir = installation(&db);
    let writer = db.admin_client().await;
    let write = async |count: u32| {
        let insert = format!(
            "INSERT INTO public.audit_log (actor, action, details)
             SELECT 'somebody', 'test.done', jsonb_build_object('n', n, 'text', repeat('x', 400))
             FROM generate_series(1, {count}) n"
        );
        writer.batch_execute(&insert).await.unwrap();
        seal_entries(&db.admin).await.unwrap();
    };
    write(2000).await;
    let (short, code) = peak_kib(dir.path()).await;
    assert_eq!(code, 0);
    write(ENTRIES).await;
    let (long, code) = peak_kib(dir.path()).await;
    assert_eq!(code, 0);
    assert!(short > 0 && long < short + MORE_KIB, "{long} KiB instead of {short} KiB");
}
