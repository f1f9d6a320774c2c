//! Shutting tenants out, letting them in, and moving them between lanes.

use tenantry_testing::TestDatabase;

use crate::program::{installation, run};

#[tokio::test]
async fn a_tenant_is_suspended_resumed_and_moved() {
    let db = TestDatabase::new().await;
    db.tenant("acme").await;
    let dir = installation(&db);
    let status = |arguments: &[&str]| {
        let done = run(dir.path(), &[arguments, &["--output", "json"]].concat());
        assert_eq!(done.code, 0, "{arguments:?}: {}", done.stderr);
        done.json()["status"].clone()
    };
    for _ in 0..2 {
        assert_eq!(status(&["tenant", "suspend", "acme"]), "suspended");
    }
    assert_eq!(status(&["tenant", "suspend", "acme", "--now"]), "suspended");
    assert_eq!(status(&["tenant", "resume", "acme"]), "active");
    assert_eq!(run(dir.path(), &["tenant", "suspend", "nobody"]).code, 6);
    let resized = run(dir.path(), &["lanes", "resize", "1"]);
    assert_eq!(resized.code, 0, "{}", resized.stderr);
    assert!(resized.stderr.contains("`lanes.count = 1`"), "{}", resized.stderr);
    let lane = run(dir.path(), &["tenant", "show", "acme", "--output", "json"]).json();
    assert_eq!(lane["lane"], 0);
    let refused = run(dir.path(), &["lanes", "resize", "5"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("lanes.server_connections"), "{}", refused.stderr);
    assert_eq!(run(dir.path(), &["lanes", "resize", "33"]).code, 2);
    let delete =
        "UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now()";
    db.superuser().await.batch_execute(delete).await.unwrap();
    assert_eq!(run(dir.path(), &["tenant", "resume", "acme"]).code, 4);
}
