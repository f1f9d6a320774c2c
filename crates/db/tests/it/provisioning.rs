//! Invariant 5: a tenant schema is either whole or absent.

use futures_util::future::join_all;
use tenantry_db::migrate::fingerprint;
use tenantry_db::models::page::Page;
use tenantry_db::models::tenants::{self, TenantFilter};
use tenantry_db::{Error, ErrorKind};
use tenantry_testing::TestDatabase;
use tokio_postgres::Client;

use crate::texts;

/// Everything that provisioning makes, by name and number.
pub(crate) async fn traces(superuser: &Client) -> Vec<String> {
    texts(
        superuser,
        "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'tenant\\_%'
         UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE proname = 'this_tenant'
         UNION ALL SELECT 'default acl ' || oid FROM pg_default_acl WHERE defaclnamespace <> 0
         UNION ALL SELECT 'row ' || id FROM public.tenants
         UNION ALL SELECT 'ledger ' || schema_name FROM public.migrations WHERE schema_name <> 'public'
         UNION ALL SELECT 'audit ' || id FROM public.audit_log WHERE action = 'tenant.created'
         UNION ALL SELECT 'right ' || classid::regclass || objid FROM pg_shdepend
                    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND refobjid IN (SELECT oid FROM pg_roles WHERE rolname ~ '^tenant_[0-9a-f]{32}$')
         -- A role without a right anywhere: other tests' tenants have theirs in other databases.
         UNION ALL SELECT 'role ' || rolname FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid
                    WHERE m.roleid = 'shared_tenant'::regrole
                      AND NOT EXISTS (SELECT FROM pg_shdepend WHERE refobjid = r.oid)
         ORDER BY 1",
    )
    .await
}

#[tokio::test]
async fn a_new_tenant_is_whole_and_like_every_other() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    assert_eq!(
        (acme.status.as_str(), acme.tier.as_str(), acme.schema_version),
        ("active", "free", 2)
    );
    let expected = fingerprint(&db.reader, acme.schema()).await.unwrap();
    for kind in [
        "schema: owner",
        "right on new r of shared_owner: {schema}=arwd",
        "right on relation users: {schema}=arwd",
        "relation users",
        "column users.email",
        "constraint users.",
        "index users.users_created_at_idx",
        "sequence content",
        "function this_tenant()",
    ] {
        assert!(expected.lines().iter().any(|line| line.starts_with(kind)), "{kind} is missing");
    }
    assert!(
        expected.lines().iter().all(|line| !line.contains(&acme.id.to_string())
            && !line.contains(&acme.schema().to_string()))
    );
    for i in 0..3 {
        let other = db.tenant(&format!("t{i}")).await;
        let found = fingerprint(&db.reader, other.schema()).await.unwrap();
        assert_eq!(expected.difference(&found), Vec::<String>::new());
        assert_eq!(expected.to_string(), found.to_string());
    }
}

#[tokio::test]
async fn a_fingerprint_shows_what_was_changed_by_hand() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let before = fingerprint(&db.reader, acme.schema()).await.unwrap();
    let schema = acme.schema();
    for change in [
        format!("ALTER TABLE {schema}.users ALTER COLUMN name DROP NOT NULL"),
        format!("ALTER TABLE {schema}.users ALTER COLUMN role SET DEFAULT 'x'"),
        format!("CREATE INDEX by_hand ON {schema}.users (name)"),
        format!("ALTER TABLE {schema}.content DROP CONSTRAINT content_tags_check"),
        format!("GRANT TRUNCATE ON {schema}.users TO {schema}"),
        format!("ALTER TABLE {schema}.teams OWNER TO postgres"),
        format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE shared_owner IN SCHEMA {schema} REVOKE DELETE ON TABLES FROM {schema}"
        ),
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.this_tenant() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN gen_random_uuid()"
        ),
        format!("GRANT USAGE ON SCHEMA {schema} TO shared_reader"),
    ] {
        superuser.batch_execute(&format!("BEGIN; {change}; COMMIT")).await.unwrap();
        let after = fingerprint(&db.reader, schema).await.unwrap();
        assert!(!before.difference(&after).is_empty(), "`{change}` goes unseen");
    }
}

#[tokio::test]
async fn fifty_sign_ups_at_once_all_succeed() {
    let db = TestDatabase::new().await;
    let names: Vec<String> = (0..50).map(|i| format!("t{i}")).collect();
    let created = join_all(names.iter().map(|name| db.create(name))).await;
    for tenant in created {
        tenant.unwrap();
    }
    let all = tenants::list_tenants(&db.reader, &TenantFilter::default(), &Page::first(100))
        .await
        .unwrap()
        .rows;
    assert_eq!(all.len(), 50);
}

#[tokio::test]
async fn one_subdomain_goes_to_one_of_two() {
    let db = TestDatabase::new().await;
    for round in 0..5 {
        let name = format!("t{round}");
        let (first, second) = tokio::join!(db.create(&name), db.create(&name));
        let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
        winner.unwrap();
        let error = loser.unwrap_err();
        assert!(matches!(&error, Error::SubdomainTaken(taken) if *taken == name), "{error}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
}

#[tokio::test]
async fn what_is_shared_does_not_grow_with_tenants() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let shared_acls = "SELECT concat(
        (SELECT sum(cardinality(relacl)) FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'shared'::regnamespace)), ' ',
        (SELECT sum(cardinality(nspacl)) FROM pg_namespace WHERE nspname IN ('public', 'shared')), ' ',
        (SELECT sum(cardinality(proacl)) FROM pg_proc WHERE pronamespace = 'shared'::regnamespace), ' ',
        (SELECT sum(cardinality(datacl)) FROM pg_database WHERE datname = current_database()), ' ',
        (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.tenants'::regclass), ' ',
        (SELECT count(*) FROM pg_constraint WHERE confrelid = 'public.tenants'::regclass))";
    let before = texts(&superuser, shared_acls).await;
    for i in 0..5 {
        db.tenant(&format!("t{i}")).await;
    }
    assert_eq!(texts(&superuser, shared_acls).await, before);
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_nothing() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'injected'; END $$;
             CREATE FUNCTION public.fail_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'injected'; END $$",
        )
        .await
        .unwrap();
    let before = traces(&superuser).await;
    assert!(before.is_empty(), "{before:?}");
    let row_step = |table: &str, when: &str| {
        (
            format!(
                "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON public.{table} {when} FOR EACH ROW EXECUTE FUNCTION public.fail()"
            ),
            format!("DROP TRIGGER fail ON public.{table}"),
        )
    };
    let ddl_step = |event: &str, tag: &str| {
        (
            format!(
                "CREATE EVENT TRIGGER fail ON {event} WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.fail_ddl()"
            ),
            "DROP EVENT TRIGGER fail".to_owned(),
        )
    };
    let steps = [
        row_step("tenants", ""),
        // After the role was made, before the schema is there.
        ddl_step("ddl_command_start", "CREATE SCHEMA"),
        ddl_step("ddl_command_end", "CREATE SCHEMA"),
        ddl_step("ddl_command_end", "GRANT"),
        ddl_step("ddl_command_end", "ALTER DEFAULT PRIVILEGES"),
        ddl_step("ddl_command_end", "CREATE FUNCTION"),
        ddl_step("ddl_command_end", "CREATE TABLE"),
        ddl_step("ddl_command_end", "CREATE INDEX"),
        row_step("migrations", ""),
        row_step("audit_log", ""),
        // At COMMIT itself.
        row_step("tenants", "DEFERRABLE INITIALLY DEFERRED"),
    ];
    for (arm, disarm) in steps {
        superuser.batch_execute(&arm).await.unwrap();
        let error = db.create("acme").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{arm}: {error}");
        superuser.batch_execute(&disarm).await.unwrap();
        assert_eq!(traces(&superuser).await, before, "{arm}");
    }
    db.tenant("acme").await;
    assert!(!traces(&superuser).await.is_empty(), "the traces of a whole tenant would be seen");
}

#[tokio::test]
async fn a_dropped_call_or_a_killed_backend_leaves_nothing() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    // Provisioning comes to a stop at its last INSERT, with everything else done.
    superuser
        .batch_execute(
            "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                 AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$;
             CREATE TRIGGER wait AFTER INSERT ON public.audit_log EXECUTE FUNCTION public.wait()",
        )
        .await
        .unwrap();
    superuser.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)").await.unwrap();
    let other = db.superuser().await;
    let waiting = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    tokio::select! {
        created = db.create("acme") => panic!("it was to wait: {created:?}"),
        () = until(&other, waiting) => {}
    }
    // The call was dropped there.
    until_not(&other, waiting).await;
    let created = {
        let create = db.create("acme");
        tokio::pin!(create);
        tokio::select! {
            created = &mut create => panic!("it was to wait: {created:?}"),
            () = until(&other, waiting) => {}
        }
        texts(&other, "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await;
        create.await
    };
    assert_eq!(created.unwrap_err().kind(), ErrorKind::Unavailable);
    superuser.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(traces(&superuser).await, Vec::<String>::new());
    db.tenant("acme").await;
}

pub(crate) async fn until(client: &Client, query: &str) {
    eventually(client, query, true).await;
}

pub(crate) async fn until_not(client: &Client, query: &str) {
    eventually(client, query, false).await;
}

/// Asks until the query yields rows, or none, with a bound.
async fn eventually(client: &Client, query: &str, rows: bool) {
    for _ in 0..500 {
        if texts(client, query).await.is_empty() != rows {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("`{query}` had {} rows for 10 s", if rows { "no" } else { "always" });
}

#[tokio::test]
async fn bad_values_are_all_named_before_anything_runs() {
    let db = TestDatabase::new().await;
    let error = tenantry_db::lifecycle::NewTenant::new(
        &db.config,
        "a\0b",
        "-x",
        Some("gold"),
        serde_json::Map::new(),
    )
    .unwrap_err();
    insta::assert_snapshot!(error, @"the name holds control or invisible characters; `-x` is not a usable subdomain: it begins or ends with a hyphen; `gold` is not a tier: there are `enterprise`, `free`, `pro`");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let long = tenantry_db::lifecycle::NewTenant::new(
        &db.config,
        &"é".repeat(256),
        "www",
        None,
        serde_json::Map::new(),
    )
    .unwrap_err();
    insta::assert_snapshot!(long, @"the name is longer than 255 characters; `www` is not a usable subdomain: it is a reserved name");
    // 255 characters are fine, whatever they are.
    let new = tenantry_db::lifecycle::NewTenant::new(
        &db.config,
        &"é'\";--🦀".repeat(31),
        "x",
        None,
        serde_json::Map::new(),
    )
    .unwrap();
    let made = tenantry_db::lifecycle::create_tenant(&db.admin, &db.migrations, &new, &db.actor())
        .await
        .unwrap();
    assert_eq!(made.name, "é'\";--🦀".repeat(31));
}

#[tokio::test]
async fn lists_page_through_all_and_hide_the_pool() {
    let db = TestDatabase::new().await;
    for i in 0..5 {
        db.tenant(&format!("t{i}")).await;
    }
    let hidden = db.tenant("hidden").await;
    let make_ready = format!(
        "UPDATE public.tenants SET status = 'ready', subdomain = NULL, name = '' WHERE id = '{}'",
        hidden.id
    );
    db.superuser().await.batch_execute(&make_ready).await.unwrap();
    let mut seen: Vec<tenants::Tenant> = Vec::new();
    let mut page = Page::first(2);
    loop {
        let listed =
            tenants::list_tenants(&db.reader, &TenantFilter::default(), &page).await.unwrap();
        seen.extend(listed.rows);
        page.after = listed.next;
        if page.after.is_none() {
            break;
        }
    }
    let names: Vec<_> = seen.iter().map(|t| t.subdomain.clone().unwrap()).collect();
    assert_eq!(names, ["t0", "t1", "t2", "t3", "t4"]);
    let by_id =
        tenants::find_tenant(&db.reader, &tenantry_db::TenantRef::Id(hidden.id)).await.unwrap();
    assert!(by_id.is_none());
}

#[tokio::test]
#[ignore = "takes minutes: part of `script/test --full`"]
async fn three_thousand_tenants_fit() {
    let db = TestDatabase::new().await;
    for batch in 0..375 {
        let names: Vec<String> = (0..8).map(|i| format!("t{batch}-{i}")).collect();
        for tenant in join_all(names.iter().map(|name| db.create(name))).await {
            tenant.unwrap();
        }
    }
    assert_eq!(
        texts(&db.superuser().await, "SELECT count(*)::text FROM public.tenants").await,
        ["3000"]
    );
    assert_eq!(
        texts(
            &db.superuser().await,
            "SELECT count(*)::text FROM pg_namespace WHERE nspname ~ '^tenant_'"
        )
        .await,
        ["3000"]
    );
}
