//! What is refused, and what is dropped in the middle.

use super::*;

/// A step's name, without what it carries.
fn name(step: &TenantStep) -> &'static str {
    match step {
        TenantStep::Copying(_) => "copying",
        TenantStep::Recovered => "recovered",
        TenantStep::BringingForward => "forward",
        TenantStep::Loading { tables_done: 0..=2, .. } => "loading",
        TenantStep::Loading { .. } => "loaded some",
        TenantStep::Swapping => "swapping",
    }
}

#[tokio::test]
async fn dropped_at_any_step_the_tenant_is_what_it_was_and_the_next_one_does_all() {
    let past = Past::new().await;
    let (tenant, actor) = (TenantRef::Id(past.acme.id), past.world.db.actor());
    let wish = past.wish(&tenant, When::At(past.moment), TenantAim::Replace, &actor);
    for until in ["copying", "recovered", "forward", "loading", "loaded some", "swapping"] {
        let (seen, reached) = tokio::sync::oneshot::channel();
        let mut seen = Some(seen);
        let restoring = restore_tenant(&wish, |step| {
            if name(&step) == until
                && let Some(seen) = seen.take()
            {
                seen.send(()).unwrap();
            }
        });
        tokio::select! {
            biased;
            _ = reached => {}
            restored = restoring => panic!("it never came to `{until}`: {restored:?}"),
        }
        assert_eq!(past.live().await, ["A", "B"], "after `{until}`");
        let acme = past.open(&past.acme).await;
        acme.query("SELECT name FROM teams", &[]).await.unwrap();
    }
    // Loaded, and not used: nobody's, and named.
    let left = format!("{}__restoring", past.acme.schema());
    assert_eq!(past.copies().await, std::slice::from_ref(&left));
    let migrations = &past.world.db.migrations;
    let doctor = tenantry_db::doctor::examine(&past.world.config, migrations).await;
    let check = doctor.iter().find(|it| it.name == "kept schemas").unwrap();
    assert!(check.detail.contains(&left), "{check:?}");
    // Of two at once, one does it.
    let (one, two) = tokio::join!(past.back(), past.back());
    let (restored, busy) = if one.is_ok() { (one, two) } else { (two, one) };
    let (restored, busy) = (restored.unwrap(), busy.unwrap_err());
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    assert_eq!(past.live().await, ["A"]);
    assert_eq!(past.copies().await, [restored.replaced.unwrap().kept_as]);
    past.assert_wiped();
    past.world.stop().await;
}

#[tokio::test]
async fn what_is_left_over_is_dropped_while_nobody_is_at_it() {
    let past = Past::new().await;
    let (schema, db) = (past.acme.schema(), &past.world.db);
    let left = format!("{schema}__restoring");
    let make = format!(
        "CREATE SCHEMA {left} AUTHORIZATION shared_owner; CREATE TABLE {left}.t (n int);
                        ALTER TABLE {left}.t OWNER TO shared_owner"
    );
    past.client.batch_execute(&make).await.unwrap();
    // Somebody is at it.
    let admin = db.admin_client().await;
    let key = format!("shared:purge:{}", past.acme.id);
    let lock = format!("SELECT pg_advisory_lock(hashtextextended('{key}', 0))");
    admin.batch_execute(&lock).await.unwrap();
    let now = Timestamp::now;
    assert_eq!(drop_what_is_nobodys(&db.admin, now(), &db.actor()).await.unwrap(), 0);
    assert_eq!(past.copies().await, std::slice::from_ref(&left));
    let busy = past.undo().await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    drop(admin);
    let free = "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    until(&past.client, free).await;
    assert_eq!(drop_what_is_nobodys(&db.admin, now(), &db.actor()).await.unwrap(), 1);
    assert_eq!(past.copies().await, Vec::<String>::new());
    assert_eq!(past.live().await, ["A", "B"]);
    past.world.stop().await;
}

#[tokio::test]
async fn whoever_holds_its_tables_is_named_and_keeps_them() {
    let past = Past::new().await;
    let schema = past.acme.schema();
    let holder = past.world.db.superuser().await;
    let hold = format!("BEGIN; INSERT INTO {schema}.teams (name) VALUES ('held')");
    holder.batch_execute(&hold).await.unwrap();
    let refused = past.back().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
    assert!(refused.to_string().contains("postgres"), "{refused}");
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(past.live().await, ["A", "B", "held"]);
    past.assert_wiped();
    past.world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_copied() {
    let past = Past::new().await;
    let db = &past.world.db;
    let late = db.tenant("late").await;
    let actor = db.actor();
    let restore = async |tenant: &TenantRef, when: When| {
        let wish = past.wish(tenant, when, TenantAim::Replace, &actor);
        let error = restore_tenant(&wish, |step| panic!("{step:?}")).await.unwrap_err();
        past.assert_wiped();
        (error.kind(), error.to_string())
    };
    let then = When::At(past.moment);
    let acme = TenantRef::Id(past.acme.id);
    let (kind, text) = restore(&"nobody".parse().unwrap(), then).await;
    assert_eq!((kind, text.contains("nobody")), (ErrorKind::NotFound, true), "{text}");
    // Its creation is committed a little later, and segments' times are known to the second.
    let offered = late.created_at + Duration::from_secs(1);
    let later =
        format!("SELECT clock_timestamp() > '{offered}'::timestamptz + interval '1 second'");
    until(&past.client, &later).await;
    let (kind, text) = restore(&TenantRef::Id(late.id), then).await;
    let said = format!(
        "{then} can't be recovered: tenant `{}` was created at {}; every moment can be recovered between\n  {offered} and ",
        late.id, late.created_at
    );
    assert_eq!((kind, text.starts_with(&said)), (ErrorKind::Refused, true), "{text}");
    assert!(text.ends_with(" (timeline 1)"), "{text}");
    let future = When::At(Timestamp::now() + Duration::from_secs(3600));
    let (kind, text) = restore(&acme, future).await;
    assert_eq!((kind, text.contains("in the future")), (ErrorKind::Refused, true), "{text}");
    let backdate = format!(
        "UPDATE public.tenants SET created_at = now() - interval '1 year' WHERE id = '{}'",
        past.acme.id
    );
    past.client.batch_execute(&backdate).await.unwrap();
    let early = When::At(past.moment - Duration::from_secs(3600));
    let (kind, text) = restore(&acme, early).await;
    assert_eq!((kind, text.contains("(timeline 1)")), (ErrorKind::Refused, true), "{text}");
    // Somebody's view would go on reading what is replaced.
    let schema = past.acme.schema();
    let view = format!("CREATE VIEW public.spy AS SELECT name FROM {schema}.teams");
    past.client.batch_execute(&view).await.unwrap();
    let (kind, text) = restore(&acme, then).await;
    assert_eq!((kind, text.contains("view spy")), (ErrorKind::Refused, true), "{text}");
    past.client.batch_execute("DROP VIEW public.spy").await.unwrap();
    let deletion = tenantry_db::lifecycle::Deletion { confirm: Some("acme"), retention: None };
    delete_tenant(&db.admin, &db.config, past.acme.id, deletion, &actor).await.unwrap();
    let (kind, text) = restore(&acme, then).await;
    assert_eq!((kind, text.contains("is deleted")), (ErrorKind::Conflict, true), "{text}");
    db.purge(&past.acme).await;
    for aim in [TenantAim::Replace, TenantAim::New("acme-then")] {
        let error = past.go(then, aim).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("was erased"), "{error}");
    }
    assert_eq!(past.undo().await.unwrap_err().kind(), ErrorKind::NotFound);
    // Whom the ledger names was erased, whatever the register says.
    let ledger = db.ledger();
    assert_eq!(ledger.entries().unwrap().len(), 1);
    let back = format!(
        "UPDATE public.tenants SET status = 'active', subdomain = 'acme', name = 'acme', purged_at = NULL, deleted_at = NULL, purge_after = NULL WHERE id = '{}'",
        past.acme.id
    );
    past.client.batch_execute(&back).await.unwrap();
    let (kind, text) = restore(&acme, then).await;
    assert_eq!((kind, text.contains("was erased")), (ErrorKind::NotFound, true), "{text}");
    past.world.stop().await;
}

/// A new tenant has what migrations make. What is more now was likely there then, and that would be found out after
/// the copy; what is less may have been there.
#[tokio::test]
async fn tables_made_by_hand_are_refused_before_anything_is_copied() {
    let past = Past::with(|_| String::new()).await;
    let (schema, actor) = (past.acme.schema(), past.world.db.actor());
    let tenant = TenantRef::Id(past.acme.id);
    let wish = past.wish(&tenant, When::At(past.moment), TenantAim::New("acme-then"), &actor);
    for (make, what, unmake) in [
        ("CREATE TABLE {}.loose (n int)", "table `loose`", "DROP TABLE {}.loose"),
        (
            "ALTER TABLE {}.teams ADD loose int",
            "column `teams.loose`",
            "ALTER TABLE {}.teams DROP loose",
        ),
        ("CREATE SEQUENCE {}.loose", "sequence `loose`", "DROP SEQUENCE {}.loose"),
    ] {
        let run = async |text: &str| {
            let text = text.replace("{}", &schema.to_string());
            past.client
                .batch_execute(&format!("SET ROLE shared_owner; {text}; RESET ROLE"))
                .await
                .unwrap();
        };
        run(make).await;
        let error = restore_tenant(&wish, |step| panic!("{step:?}")).await.unwrap_err();
        let expected = format!("tenant `{}` has {what}, which no migration made", past.acme.id);
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Refused, expected));
        run(unmake).await;
    }
    // Nobody but its owner can read it, or lock it.
    past.client.batch_execute(&format!("CREATE TABLE {schema}.loose (n int)")).await.unwrap();
    for aim in [TenantAim::Replace, TenantAim::New("acme-then")] {
        let wish = past.wish(&tenant, When::At(past.moment), aim, &actor);
        let error = restore_tenant(&wish, |step| panic!("{step:?}")).await.unwrap_err();
        let expected =
            format!("tenant `{}` has table `loose`, which belongs to `postgres`", past.acme.id);
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Refused, expected));
    }
    past.client.batch_execute(&format!("DROP TABLE {schema}.loose")).await.unwrap();
    past.assert_wiped();
    let tenants = "SELECT count(*)::text FROM public.tenants";
    assert_eq!(past.text(tenants).await, "1", "nothing of the look is left");
    let roles = "SELECT count(*)::text FROM pg_roles WHERE rolname LIKE 'tenant\\_%'";
    assert_eq!(past.text(roles).await, "1");

    // What somebody dropped by hand is what is looked for.
    let drop = format!("DROP TABLE {schema}.content CASCADE");
    past.client.batch_execute(&drop).await.unwrap();
    let made = past.go(When::At(past.moment), TenantAim::New("acme-then")).await.unwrap();
    let made = made.made.unwrap().tenant.schema();
    assert_eq!(past.text(&format!("SELECT title FROM {made}.content")).await, "A");
    past.world.stop().await;
}

#[tokio::test]
async fn what_ends_at_a_gap_takes_nobodys_place() {
    let past = Past::with(|_| String::new()).await;
    past.world.segment().await;
    past.add("C").await;
    let lost = past.world.segment().await;
    past.add("D").await;
    past.world.segment().await;
    std::fs::remove_file(past.world.archived(&lost)).unwrap();
    let error = past.go(When::Now, TenantAim::Replace).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(&lost), "{error}");
    assert_eq!(past.live().await, ["A", "B", "C", "D"]);
    // To look at it does no harm.
    let restored = past.go(When::Now, TenantAim::New("acme-then")).await.unwrap();
    assert!(restored.notes.iter().any(|note| note.contains(&lost)), "{:?}", restored.notes);
    let made = restored.made.unwrap().tenant.schema().to_string();
    assert_eq!(past.teams(&made).await, ["A", "B"]);
    past.assert_wiped();
    past.world.stop().await;
}
