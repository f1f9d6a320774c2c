//! A fleet in waves: what a failure does, who is taken along, and what is kept of it.

use tenantry_db::migrate::{
    Direction, Event, Portion, RolloutOptions, RolloutReport, RunState, Stop, Tenants, Tolerance,
    fleet_status,
};
use tenantry_db::{Error, ErrorKind};

use super::failure;
use super::fleet::{Fleet, LABEL, LABEL_DOWN, is_done};
use crate::texts;

const GO_ON: Tolerance = Tolerance::Continue { max_failures: None };

fn up_to(failures: &str) -> Tolerance {
    Tolerance::Continue { max_failures: Some(failures.parse().unwrap()) }
}

/// Somebody's hand-made table stands where the file's own is to be.
async fn break_tenants(fleet: &Fleet, numbers: &[usize]) {
    for n in numbers {
        fleet.sql(*n, "CREATE TABLE label (id text)").await;
    }
}

async fn mend_tenants(fleet: &Fleet, numbers: &[usize]) {
    for n in numbers {
        fleet.sql(*n, "DROP TABLE label").await;
    }
}

fn counts(report: &RolloutReport) -> (usize, usize, usize, usize) {
    let tenants = report.tenants;
    (tenants.done, tenants.failed, tenants.skipped, report.left)
}

/// One tenant fails; what becomes of the others, and of a second run.
async fn one_fails(tenants: usize, broken: usize, tolerance: Tolerance) {
    let fleet = Fleet::new(tenants).await;
    fleet.write(&[LABEL, LABEL_DOWN]);
    break_tenants(&fleet, &[broken]).await;
    let mut run = fleet.start(fleet.in_waves(tolerance)).await;
    let report = run.end().await.unwrap();
    assert_eq!((report.state, report.tenants.total), (RunState::Failed, tenants));
    let failed = failure(&report);
    assert_eq!(failed.tenant, Some(fleet.tenants[broken - 1]));
    assert_eq!(failed.subdomain.as_deref(), Some(format!("t{broken}").as_str()));
    assert!(failed.file.as_deref().unwrap().ends_with("tenant/0101_label.up.sql"), "{failed:?}");
    assert_eq!((failed.version, failed.line), (2, Some(1)));
    assert_eq!((failed.sqlstate.as_deref(), failed.attempts), (Some("42P07"), 1));
    assert_eq!(failed.statement.as_deref(), Some("CREATE TABLE label (id int)"));
    let moved = fleet.at(101).await;
    assert_eq!(moved.len(), report.tenants.done);
    assert!(!moved.contains(&broken));
    if tolerance == Tolerance::Stop {
        // Everybody before it; and after its failure only those arrive who were under way then.
        let parallel = usize::from(fleet.in_waves(tolerance).parallel);
        assert!(moved.iter().filter(|n| **n < broken).count() == broken - 1, "{moved:?}");
        let events = run.events();
        let behind = events.iter().skip_while(|event| !matches!(event, Event::Failed(_)));
        let arrived = behind.filter(|event| matches!(event, Event::TenantDone { .. })).count();
        assert!(arrived < parallel, "{arrived} arrived after the failure");
        assert_eq!(counts(&report), (moved.len(), 1, 0, tenants - moved.len() - 1));
    } else {
        assert_eq!(counts(&report), (tenants - 1, 1, 0, 0));
    }
    let status = fleet_status(&fleet.db.reader, &fleet.migrations()).await.unwrap();
    assert_eq!(status.behind_count as usize, tenants - moved.len());
    let [told] = status.failures.as_slice() else { panic!("{status:?}") };
    assert_eq!((&told.message, &told.statement), (&failed.message, &failed.statement));
    assert_eq!((told.line, told.tenant), (failed.line, failed.tenant));
    let last = status.last_run.unwrap();
    assert_eq!((last.state, last.tenants), (RunState::Failed, report.tenants));

    mend_tenants(&fleet, &[broken]).await;
    let report = fleet.run(fleet.in_waves(tolerance)).await.unwrap();
    assert_eq!(counts(&report), (tenants - moved.len(), 0, 0, 0));
    assert_eq!(fleet.at(101).await.len(), tenants);
    fleet.assert_whole("label", 101).await;
    let status = fleet_status(&fleet.db.reader, &fleet.migrations()).await.unwrap();
    assert!(status.failures.is_empty() && status.behind_count == 0, "{status:?}");
}

#[tokio::test]
async fn a_tenant_fails_and_the_run_stops() {
    one_fails(30, 17, Tolerance::Stop).await;
}

#[tokio::test]
async fn a_tenant_fails_and_the_run_goes_on() {
    one_fails(30, 17, GO_ON).await;
}

#[tokio::test]
#[ignore = "a thousand tenants"]
async fn tenant_437_of_1000_fails_and_the_run_stops() {
    one_fails(1000, 437, Tolerance::Stop).await;
}

#[tokio::test]
#[ignore = "a thousand tenants"]
async fn tenant_437_of_1000_fails_and_the_run_goes_on() {
    one_fails(1000, 437, GO_ON).await;
}

#[tokio::test]
async fn when_the_canary_fails_nobody_else_is_touched() {
    let fleet = Fleet::new(12).await;
    fleet.write(&[LABEL]);
    break_tenants(&fleet, &[1]).await;
    for tolerance in [Tolerance::Stop, GO_ON, up_to("0")] {
        let report = fleet.run(fleet.in_waves(tolerance)).await.unwrap();
        assert_eq!(counts(&report), (0, 1, 0, 11), "{tolerance:?}");
        assert_eq!(fleet.at(101).await, [0; 0]);
    }
    let tables = "SELECT relname::text FROM pg_class WHERE relname = 'label'";
    assert_eq!(texts(&fleet.superuser, tables).await.len(), 1, "the one that was in the way");
}

#[tokio::test]
async fn a_wave_begins_when_the_one_before_is_clean() {
    let fleet = Fleet::new(30).await;
    fleet.write(&[LABEL]);
    break_tenants(&fleet, &[2]).await;
    let mut run = fleet.start(fleet.in_waves(GO_ON)).await;
    assert_eq!(counts(&run.end().await.unwrap()), (2, 1, 0, 27), "the third wave did not begin");
    assert_eq!(waves(run.events()), [(1, 3, 1), (2, 3, 2)]);
    assert_eq!(fleet.at(101).await, [1, 3]);
    mend_tenants(&fleet, &[2]).await;
    // Asked for one tenant, a run is content with one.
    let one = RolloutOptions { waves: vec![Portion::Tenants(1)], ..fleet.options() };
    let report = fleet.run(one).await.unwrap();
    assert_eq!((report.state, counts(&report)), (RunState::Complete, (1, 0, 0, 27)));
    let mut run = fleet.start(fleet.in_waves(GO_ON)).await;
    assert_eq!(counts(&run.end().await.unwrap()), (27, 0, 0, 0));
    assert_eq!(waves(run.events()), [(1, 3, 1), (2, 3, 2), (3, 3, 24)]);
}

fn waves(events: Vec<Event>) -> Vec<(usize, usize, usize)> {
    let wave = |event| match event {
        Event::WaveBegan { wave, waves, tenants, .. } => Some((wave, waves, tenants)),
        _ => None,
    };
    events.into_iter().filter_map(wave).collect()
}

#[tokio::test]
async fn so_many_failures_are_borne_and_not_one_more() {
    let fleet = Fleet::new(30).await;
    fleet.write(&[LABEL]);
    // One in each wave.
    break_tenants(&fleet, &[1, 2, 10]).await;
    let report = fleet.run(fleet.in_waves(up_to("6%"))).await.unwrap();
    assert_eq!((report.state, report.failures.len()), (RunState::Failed, 3), "6% of 30 are 2");
    assert!(report.left >= 16, "{report:?}");
    let before = report.tenants.done;
    let report = fleet.run(fleet.in_waves(up_to("3"))).await.unwrap();
    assert_eq!((report.state, counts(&report)), (RunState::Failed, (27 - before, 3, 0, 0)));
    fleet.assert_whole("item", 2).await;
}

#[tokio::test]
async fn whoever_comes_ends_at_head_and_whoever_goes_is_skipped() {
    let fleet = Fleet::new(10).await;
    let before = fleet.migrations();
    fleet.write(&[LABEL]);
    fleet
        .superuser
        .batch_execute(
            "UPDATE public.tenants SET status = 'suspended', suspended_at = now() WHERE subdomain = 't4';
             UPDATE public.tenants SET status = 'deleted', deleted_at = now(), purge_after = now()
              WHERE subdomain = 't5';
             UPDATE public.tenants SET status = 'ready', subdomain = NULL WHERE subdomain = 't6'",
        )
        .await
        .unwrap();
    // The canary waits, while everybody else was counted already.
    let gate = fleet.db.superuser().await;
    let hold =
        format!("BEGIN; SELECT FROM public.tenants WHERE id = '{}' FOR UPDATE", fleet.tenants[0]);
    gate.batch_execute(&hold).await.unwrap();
    let mut run = fleet.start(fleet.in_waves(Tolerance::Stop)).await;
    run.until(1, super::fleet::is_retry).await;
    // A program with older files, and one with these. The first takes the ready one, which is at its head.
    let taken = fleet.create(&before, "taken").await;
    assert_eq!(taken.schema_version, 2);
    let ready = "SELECT id::text FROM public.tenants WHERE status = 'ready'";
    assert!(texts(&fleet.superuser, ready).await.is_empty());
    let late = fleet.create(&before, "late").await;
    assert_eq!(late.schema_version, 2);
    let newest = fleet.create(&fleet.migrations(), "newest").await;
    assert_eq!(newest.schema_version, 101);
    let purged = fleet.schema(8);
    fleet
        .superuser
        .batch_execute(&format!(
            "UPDATE public.tenants SET status = 'purging' WHERE subdomain IN ('t7', 't8');
             DROP SCHEMA {purged} CASCADE;
             UPDATE public.tenants SET status = 'purged', purged_at = now(), name = '', subdomain = NULL
              WHERE subdomain = 't8'"
        ))
        .await
        .unwrap();
    gate.batch_execute("ROLLBACK").await.unwrap();
    let report = run.end().await.unwrap();
    assert_eq!((report.state, counts(&report)), (RunState::Complete, (9, 0, 2, 0)), "{report:?}");
    assert_eq!(report.tenants.total, 11);
    let behind = "SELECT status::text FROM public.tenants WHERE schema_version < 101 ORDER BY 1";
    assert_eq!(texts(&fleet.superuser, behind).await, ["purged", "purging"]);
    fleet.assert_whole("label", 101).await;
    assert_eq!(run.done().last().map(String::as_str), Some("late"));
    assert_eq!(fleet.runs().await, ["up complete 11 9 0 2 true"]);
}

#[tokio::test]
async fn one_runner_works_and_the_other_is_busy_at_once() {
    let fleet = Fleet::new(3).await;
    fleet.write(&[("tenant/0101_slow.up.sql", "SELECT pg_sleep(600); CREATE TABLE label ();")]);
    let mut first = fleet.start(fleet.options()).await;
    first.until(1, |event| matches!(event, Event::WaveBegan { .. })).await;
    for options in [fleet.options(), fleet.back_to(2)] {
        let error = fleet.run(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    first.stop.send_replace(Stop::Cancel);
    assert_eq!(counts(&first.end().await.unwrap()), (0, 0, 0, 3));
    assert_eq!(fleet.runs().await, ["up interrupted 3 0 0 0 true"], "the second began nothing");
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end_and_begins_nothing() {
    let fleet = Fleet::new(12).await;
    fleet.write(&[("tenant/0101_slow.up.sql", "SELECT pg_sleep(0.3); CREATE TABLE label ();")]);
    let mut run = fleet.start(fleet.options()).await;
    run.until(1, is_done).await;
    run.stop.send_replace(Stop::Finish);
    let report = run.end().await.unwrap();
    assert_eq!(report.state, RunState::Interrupted);
    let (done, failed, _, left) = counts(&report);
    assert!(done + left == 12 && failed == 0 && left >= 4, "{report:?}");
    fleet.assert_whole("label", 101).await;
    assert_eq!(fleet.at(101).await.len(), done);
    assert_eq!(fleet.runs().await, [format!("up interrupted 12 {done} 0 0 true")]);
    assert_eq!(counts(&fleet.to_head().await), (left, 0, 0, 0));
}

#[tokio::test]
async fn a_second_stop_rolls_back_what_is_under_way() {
    let fleet = Fleet::new(6).await;
    fleet.write(&[("tenant/0101_slow.up.sql", "CREATE TABLE label (); SELECT pg_sleep(600);")]);
    let mut run = fleet.start(fleet.options()).await;
    let sleeping = "SELECT 'yes' FROM pg_stat_activity WHERE wait_event = 'PgSleep'
                    AND datname = current_database() HAVING count(*) = 4";
    fleet.until(sleeping).await;
    run.stop.send_replace(Stop::Finish);
    run.until(1, |event| matches!(event, Event::Stopping { under_way: 4 })).await;
    run.stop.send_replace(Stop::Cancel);
    let report = run.end().await.unwrap();
    assert_eq!((report.state, counts(&report)), (RunState::Interrupted, (0, 0, 0, 6)));
    assert!(report.failures.is_empty());
    fleet.assert_whole("label", 101).await;
    assert!(fleet.at(101).await.is_empty());
    fleet.write(&[("tenant/0101_slow.up.sql", "CREATE TABLE label ();")]);
    assert_eq!(counts(&fleet.to_head().await), (6, 0, 0, 0));
}

#[tokio::test]
async fn a_killed_runner_needs_no_repair() {
    let fleet = Fleet::new(8).await;
    fleet.write(&[("tenant/0101_slow.up.sql", "CREATE TABLE label (); SELECT pg_sleep(0.4);")]);
    let mut run = fleet.start(fleet.options()).await;
    run.until(1, is_done).await;
    run.kill().await;
    // Its last batches may still be going on in the server, and be committed.
    let report = fleet.to_head().await;
    assert_eq!(report.state, RunState::Complete);
    assert_eq!(fleet.at(101).await.len(), 8);
    fleet.assert_whole("label", 101).await;
    let runs = fleet.runs().await;
    assert!(runs[0].starts_with("up interrupted ") && runs[0].ends_with(" true"), "{runs:?}");
    assert!(runs[1].starts_with("up complete "), "{runs:?}");
}

#[tokio::test]
async fn the_public_set_goes_first_and_its_failure_keeps_everybody_home() {
    let fleet = Fleet::new(3).await;
    fleet.write(&[LABEL, ("public/0100_x.up.sql", "CREATE TABLE x ();\nSELECT nonsense;")]);
    let error = fleet.run(fleet.options()).await.unwrap_err();
    assert!(error.to_string().contains("public/0100_x.up.sql`, line 2"), "{error}");
    assert!(fleet.at(101).await.is_empty());
    let status = fleet_status(&fleet.db.reader, &fleet.migrations()).await.unwrap();
    assert_eq!((status.failures[0].schema.as_str(), status.failures[0].line), ("public", Some(2)));
    assert_eq!(fleet.runs().await, ["up failed 0 0 0 0 true"]);
    // Nor do tenants go ahead of it.
    let error = fleet.run(RolloutOptions { public: false, ..fleet.options() }).await.unwrap_err();
    assert!(matches!(error, Error::Behind { needed: 100, .. }), "{error}");
    fleet.write(&[("public/0100_x.up.sql", "CREATE TABLE x ();")]);
    let mut run = fleet.start(fleet.options()).await;
    assert_eq!(counts(&run.end().await.unwrap()), (3, 0, 0, 0));
    assert!(matches!(run.events()[0], Event::Public { version: 100, .. }), "{:?}", run.events());
    let status = fleet_status(&fleet.db.reader, &fleet.migrations()).await.unwrap();
    assert!(status.failures.is_empty(), "{status:?}");
}

#[tokio::test]
async fn a_run_may_concern_some_tenants_or_end_at_a_version() {
    let fleet = Fleet::new(4).await;
    fleet.write(&[LABEL, ("tenant/0102_more.up.sql", "CREATE TABLE more ();")]);
    let some = RolloutOptions { tenants: fleet.only(&[2, 4]), public: false, ..fleet.options() };
    assert_eq!(counts(&fleet.run(some).await.unwrap()), (2, 0, 0, 0));
    assert_eq!(fleet.at(102).await, [2, 4]);
    let to = RolloutOptions { direction: Direction::Up { to: Some(101) }, ..fleet.options() };
    assert_eq!(counts(&fleet.run(to).await.unwrap()), (2, 0, 0, 0));
    assert_eq!((fleet.at(101).await, fleet.at(102).await), (vec![1, 3], vec![2, 4]));
    let none = RolloutOptions { tenants: Tenants::None, ..fleet.options() };
    assert_eq!(fleet.run(none).await.unwrap().tenants.total, 0);
    assert_eq!(counts(&fleet.to_head().await), (2, 0, 0, 0));
    fleet.assert_whole("more", 102).await;
}

#[tokio::test]
async fn whoever_was_moved_on_by_somebody_else_is_not_migrated_again() {
    let fleet = Fleet::new(2).await;
    // It would do harm twice, and not fail.
    let text = "CREATE TABLE IF NOT EXISTS label (id int); INSERT INTO item VALUES ((SELECT count(*) FROM item));";
    fleet.write(&[("tenant/0101_label.up.sql", text)]);
    let other = fleet.db.superuser().await;
    let hold =
        format!("BEGIN; SELECT FROM public.tenants WHERE id = '{}' FOR UPDATE", fleet.tenants[0]);
    other.batch_execute(&hold).await.unwrap();
    let mut run = fleet.start(fleet.options()).await;
    run.until(1, super::fleet::is_retry).await;
    let schema = fleet.schema(1);
    let moved = format!(
        "SET LOCAL search_path TO {schema}; {text}
         INSERT INTO public.migrations (schema_name, version, name, checksum, token_checksum, duration_ms)
         VALUES ('{schema}', 101, 'label', '\\x{0}', '\\x{0}', 0);
         UPDATE public.tenants SET schema_version = 101 WHERE id = '{1}'; COMMIT",
        "00".repeat(32),
        fleet.tenants[0]
    );
    other.batch_execute(&moved).await.unwrap();
    let report = run.end().await.unwrap();
    assert_eq!((report.state, counts(&report)), (RunState::Complete, (2, 0, 0, 0)), "{report:?}");
    for n in [1, 2] {
        let items = format!("SELECT count(*)::text FROM {}.item", fleet.schema(n));
        assert_eq!(texts(&fleet.superuser, &items).await, ["1"], "t{n}");
    }
    fleet.assert_whole("label", 101).await;
}
