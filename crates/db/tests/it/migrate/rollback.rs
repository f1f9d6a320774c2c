//! The way back: whom it takes along, in which order, and what it refuses.

use tenantry_db::migrate::{
    Direction, Event, MigrationError, Portion, RolloutOptions, RolloutReport, RunState,
    fleet_status, plan_back, steps_back,
};
use tenantry_db::{Error, ErrorKind};

use super::failure;
use super::fleet::{Fleet, LABEL, LABEL_DOWN, is_retry};
use crate::texts;

const TAG: (&str, &str) = ("tenant/0102_tag.up.sql", "CREATE TABLE tag (id int);");
const TAG_DOWN: (&str, &str) = ("tenant/0102_tag.down.sql", "DROP TABLE tag;");

/// A fleet at version 102.
async fn at_102(tenants: usize) -> Fleet {
    let fleet = Fleet::new(tenants).await;
    fleet.write(&[LABEL, LABEL_DOWN, TAG, TAG_DOWN]).to_head().await;
    fleet
}

async fn assert_whole(fleet: &Fleet) {
    fleet.assert_whole("label", 101).await;
    fleet.assert_whole("tag", 102).await;
}

fn accepting(options: RolloutOptions) -> RolloutOptions {
    let Direction::Down { to, .. } = options.direction else { panic!("{options:?}") };
    RolloutOptions { direction: Direction::Down { to, accept_data_loss: true }, ..options }
}

fn losses(error: Error) -> Vec<String> {
    assert_eq!(error.kind(), ErrorKind::Refused);
    match error {
        Error::Migration(MigrationError::DataLoss { losses }) => {
            losses.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other}"),
    }
}

fn done(report: &RolloutReport) -> (RunState, usize, usize) {
    (report.state, report.tenants.done, report.left)
}

#[tokio::test]
async fn one_wave_some_tenants_and_the_fleet_go_back() {
    let fleet = at_102(6).await;
    let wave = RolloutOptions { waves: vec![Portion::Tenants(1)], ..fleet.back_to(101) };
    assert_eq!(done(&fleet.run(wave).await.unwrap()), (RunState::Complete, 1, 5));
    assert_eq!((fleet.at(101).await, fleet.at(102).await), (vec![1], vec![2, 3, 4, 5, 6]));
    // Those that a run concerns are counted anew: the next wave is of the next.
    let wave = RolloutOptions { waves: vec![Portion::Percent(40)], ..fleet.back_to(101) };
    assert_eq!(done(&fleet.run(wave).await.unwrap()), (RunState::Complete, 2, 3));
    assert_eq!(fleet.at(101).await, [1, 2, 3]);
    let some = RolloutOptions { tenants: fleet.only(&[1, 5]), ..fleet.back_to(2) };
    assert_eq!(done(&fleet.run(some).await.unwrap()), (RunState::Complete, 2, 0));
    assert_eq!(fleet.at(2).await, [1, 5]);
    assert_whole(&fleet).await;
    // A step is one of all versions that anybody has.
    assert_eq!(steps_back(&fleet.db.admin, &fleet.options().tenants, 1).await.unwrap(), 101);
    assert_eq!(steps_back(&fleet.db.admin, &fleet.only(&[2]), 1).await.unwrap(), 2);
    let error = steps_back(&fleet.db.admin, &fleet.only(&[1]), 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(done(&fleet.run(fleet.back_to(2)).await.unwrap()), (RunState::Complete, 4, 0));
    assert_eq!(fleet.at(2).await, [1, 2, 3, 4, 5, 6]);
    assert_whole(&fleet).await;
    assert_eq!(fleet.runs().await.last().unwrap(), "down complete 4 4 0 0 true");
    // And forward again.
    fleet.to_head().await;
    assert_whole(&fleet).await;
}

#[tokio::test]
async fn the_newest_goes_first_and_a_tenant_goes_back_entirely_or_not_at_all() {
    let fleet = at_102(3).await;
    // Each way back can only follow the one after it.
    fleet.write(&[
        (LABEL_DOWN.0, "ALTER TABLE label ADD CHECK (to_regclass('tag') IS NULL); INSERT INTO label VALUES (1); DELETE FROM label; DROP TABLE label;"),
    ]);
    fleet.sql(2, "CREATE VIEW in_the_way AS SELECT FROM label").await;
    let report = fleet.run(RolloutOptions { parallel: 1, ..fleet.back_to(2) }).await.unwrap();
    assert_eq!((done(&report), report.tenants.failed), ((RunState::Failed, 1, 1), 1));
    let failed = failure(&report);
    assert!(failed.file.as_deref().unwrap().ends_with("0101_label.down.sql"), "{failed:?}");
    assert_eq!((failed.sqlstate.as_deref(), failed.version), (Some("2BP01"), 102));
    assert_eq!((fleet.at(2).await, fleet.at(102).await), (vec![1], vec![2, 3]));
    assert_whole(&fleet).await;
    // Back is where the others go, once what was in the way is gone …
    fleet.sql(2, "DROP VIEW in_the_way").await;
    fleet.run(RolloutOptions { tenants: fleet.only(&[2]), ..fleet.back_to(2) }).await.unwrap();
    assert_eq!(fleet.at(2).await, [1, 2]);
    // … or up again, those who went.
    assert_eq!(fleet.to_head().await.tenants.done, 2);
    assert_eq!(fleet.at(102).await, [1, 2, 3]);
    assert_whole(&fleet).await;
}

#[tokio::test]
async fn a_missing_way_back_is_refused_before_anything_is_done() {
    let fleet = at_102(3).await;
    fleet.remove(LABEL_DOWN.0);
    let error = fleet.run(fleet.back_to(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("0101_label.up.sql` has no down file"), "{error}");
    assert_eq!(fleet.at(102).await, [1, 2, 3]);
    assert_eq!(fleet.runs().await.len(), 1, "it did not begin");
    // The newest has one.
    fleet.run(fleet.back_to(101)).await.unwrap();
    assert_eq!(fleet.at(101).await, [1, 2, 3]);
    // A missing one of the public set is refused too, before any tenant.
    fleet.write(&[("public/0100_x.up.sql", "CREATE TABLE x ();")]).to_head().await;
    let all = RolloutOptions { public: true, ..fleet.back_to(99) };
    let error = fleet.run(all).await.unwrap_err();
    assert!(error.to_string().contains("0101_label.up.sql` has no down file"), "{error}");
    fleet.write(&[LABEL_DOWN]);
    let all = RolloutOptions { public: true, ..fleet.back_to(99) };
    let error = fleet.run(all).await.unwrap_err();
    assert!(error.to_string().contains("0100_x.up.sql` has no down file"), "{error}");
    assert_eq!(fleet.at(102).await, [1, 2, 3]);
}

#[tokio::test]
async fn rows_that_would_be_lost_are_counted_and_refused() {
    let fleet = Fleet::new(4).await;
    fleet.write(&[
        (LABEL.0, "CREATE TABLE label (id int); ALTER TABLE item ADD COLUMN colour text;"),
        (LABEL_DOWN.0, "ALTER TABLE item DROP COLUMN colour; DROP TABLE label;"),
    ]);
    fleet.to_head().await;
    fleet.sql(2, "INSERT INTO label SELECT generate_series(1, 5)").await;
    fleet.sql(4, "INSERT INTO item (id, colour) VALUES (1, 'red'), (2, NULL)").await;
    let expected = ["t2: `label` holds 5 rows", "t4: `item.colour` holds 1 row"];
    let plan = plan_back(&fleet.db.admin, &fleet.migrations(), &fleet.back_to(2), 2).await.unwrap();
    let planned: Vec<String> = plan.losses.iter().map(ToString::to_string).collect();
    assert_eq!((planned.as_slice(), plan.tenants), (expected.map(String::from).as_slice(), 4));
    assert_eq!(losses(fleet.run(fleet.back_to(2)).await.unwrap_err()), expected);
    assert_eq!(fleet.at(101).await, [1, 2, 3, 4], "nobody was touched");
    assert_eq!(fleet.runs().await.len(), 1);
    // Those who lose nothing may go.
    let some = RolloutOptions { tenants: fleet.only(&[1, 3]), ..fleet.back_to(2) };
    assert_eq!(done(&fleet.run(some).await.unwrap()), (RunState::Complete, 2, 0));
    let report = fleet.run(accepting(fleet.back_to(2))).await.unwrap();
    assert_eq!(done(&report), (RunState::Complete, 2, 0));
    fleet.assert_whole("label", 101).await;
}

#[tokio::test]
async fn a_row_that_comes_between_the_look_and_the_way_back_is_not_lost() {
    let fleet = Fleet::new(2).await;
    fleet.write(&[LABEL, LABEL_DOWN]).to_head().await;
    // Uncommitted, it is invisible to whoever looks; then it is there.
    let application = fleet.db.superuser().await;
    let insert = format!("BEGIN; INSERT INTO {}.label VALUES (7)", fleet.schema(2));
    application.batch_execute(&insert).await.unwrap();
    let mut run = fleet.start(RolloutOptions { parallel: 1, ..fleet.back_to(2) }).await;
    fleet.until_blocked().await;
    application.batch_execute("COMMIT").await.unwrap();
    let report = run.end().await.unwrap();
    assert_eq!((done(&report), report.tenants.failed), ((RunState::Failed, 1, 0), 1));
    assert!(failure(&report).message.contains("rows would be lost"), "{report:?}");
    let rows = format!("SELECT id::text FROM {}.label", fleet.schema(2));
    assert_eq!(texts(&fleet.superuser, &rows).await, ["7"]);
    assert_eq!((fleet.at(2).await, fleet.at(101).await), (vec![1], vec![2]));
    fleet.assert_whole("label", 101).await;
}

#[tokio::test]
async fn nor_is_one_lost_by_a_file_outside_a_transaction() {
    let fleet = Fleet::new(1).await;
    fleet.write(&[
        (LABEL.0, "CREATE TABLE label (id int); CREATE INDEX label_id_idx ON label (id);"),
        (
            LABEL_DOWN.0,
            "-- no-transaction\nDROP INDEX CONCURRENTLY label_id_idx; DROP TABLE label;",
        ),
    ]);
    fleet.to_head().await;
    let application = fleet.db.superuser().await;
    let insert = format!("BEGIN; INSERT INTO {}.label VALUES (7)", fleet.schema(1));
    application.batch_execute(&insert).await.unwrap();
    let mut run = fleet.start(fleet.back_to(2)).await;
    fleet.until_blocked().await;
    application.batch_execute("COMMIT").await.unwrap();
    let report = run.end().await.unwrap();
    assert!(failure(&report).message.contains("rows would be lost"), "{report:?}");
    let rows = format!("SELECT id::text FROM {}.label", fleet.schema(1));
    assert_eq!(texts(&fleet.superuser, &rows).await, ["7"]);
    // Whoever accepts it goes on from there.
    let report = fleet.run(accepting(fleet.back_to(2))).await.unwrap();
    assert_eq!(done(&report), (RunState::Complete, 1, 0));
    fleet.assert_whole("label", 101).await;
    let progress = "SELECT version::text FROM public.migration_progress";
    assert!(texts(&fleet.superuser, progress).await.is_empty());
}

#[tokio::test]
async fn the_public_set_goes_back_last_and_only_when_all_tenants_are_through() {
    let fleet = at_102(4).await;
    fleet.write(&[
        ("public/0100_x.up.sql", "CREATE TABLE x ();"),
        ("public/0100_x.down.sql", "DROP TABLE x;"),
    ]);
    fleet.to_head().await;
    let x = "SELECT relname::text FROM pg_class WHERE relname = 'x'";
    fleet.sql(3, "CREATE VIEW in_the_way AS SELECT FROM label").await;
    let all = || RolloutOptions { public: true, ..fleet.back_to(99) };
    // A tenant fails; another run concerns one wave only: the public set stays.
    let one = RolloutOptions { waves: vec![Portion::Tenants(1)], ..all() };
    for options in [one, RolloutOptions { parallel: 1, ..all() }] {
        let report = fleet.run(options).await.unwrap();
        assert_eq!(report.public, 0, "{report:?}");
        assert_eq!(texts(&fleet.superuser, x).await, ["x"]);
    }
    assert_eq!(fleet.at(2).await, [1, 2]);
    fleet.sql(3, "DROP VIEW in_the_way").await;
    let mut run = fleet.start(all()).await;
    let report = run.end().await.unwrap();
    assert_eq!((done(&report), report.public), ((RunState::Complete, 2, 0), 1));
    assert!(matches!(run.events().last().unwrap(), Event::Public { version: 100, .. }));
    assert!(texts(&fleet.superuser, x).await.is_empty());
    assert_eq!(fleet.at(2).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn nobody_runs_beside_the_way_back_of_the_public_set_and_its_failure_is_kept() {
    let fleet = Fleet::new(1).await;
    fleet.write(&[
        ("public/0100_x.up.sql", "CREATE TABLE x ();"),
        ("public/0100_x.down.sql", "SELECT pg_sleep(600);\nDROP TABLE x;"),
    ]);
    fleet.to_head().await;
    let all = RolloutOptions { public: true, ..accepting(fleet.back_to(99)) };
    let mut run = fleet.start(all).await;
    let sleeping =
        "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    fleet.until(&format!("SELECT 'yes' {sleeping}")).await;
    fleet.write(&[LABEL]);
    let tenants = RolloutOptions { public: false, ..fleet.options() };
    let error = fleet.run(tenants).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    let cancel = format!("SELECT pg_cancel_backend(pid)::text {sleeping}");
    assert_eq!(texts(&fleet.superuser, &cancel).await, ["true"]);
    let error = run.end().await.unwrap_err();
    assert!(error.to_string().contains("0100_x.down.sql`"), "{error}");
    assert_eq!(fleet.runs().await.last().unwrap(), "down failed 0 0 0 0 true");
}

#[tokio::test]
async fn the_register_is_not_dropped_while_there_are_tenants() {
    let fleet = Fleet::new(1).await;
    let all = || RolloutOptions { public: true, ..accepting(fleet.back_to(0)) };
    let error = fleet.run(all()).await.unwrap_err();
    assert!(
        matches!(error, Error::Migration(MigrationError::TenantsExist { tenants: 1, to: 0 })),
        "{error}"
    );
    assert_eq!(fleet.at(2).await, [1]);
    // Also one that comes after the look.
    fleet.superuser.batch_execute("UPDATE public.tenants SET status = 'purging'").await.unwrap();
    let register =
        "INSERT INTO public.tenants (name, subdomain, tier, lane) VALUES ('N', 'n', 'free', 0)";
    let service = fleet.db.superuser().await;
    service.batch_execute(&format!("BEGIN; {register}")).await.unwrap();
    let purge = "DELETE FROM public.tenants WHERE status = 'purging'";
    fleet.superuser.batch_execute(purge).await.unwrap();
    let mut run = fleet.start(all()).await;
    fleet.until_blocked().await;
    service.batch_execute("COMMIT").await.unwrap();
    assert_eq!(run.end().await.unwrap_err().kind(), ErrorKind::Refused);
    let there = texts(&fleet.superuser, "SELECT subdomain::text FROM public.tenants").await;
    assert_eq!(there, ["n"]);
    fleet.superuser.batch_execute("UPDATE public.tenants SET status = 'purging'").await.unwrap();
    fleet.to_head().await;
    // Nor while there is a tombstone, unless that may be lost.
    fleet
        .superuser
        .batch_execute(
            "UPDATE public.tenants SET status = 'purging';
             UPDATE public.tenants SET status = 'purged', purged_at = now(), name = '', subdomain = NULL",
        )
        .await
        .unwrap();
    let careful = RolloutOptions { public: true, ..fleet.back_to(0) };
    let lost = losses(fleet.run(careful).await.unwrap_err());
    assert!(lost.iter().any(|loss| loss == "public: `tenants` holds 1 row"), "{lost:?}");
    let report = fleet.run(all()).await.unwrap();
    assert_eq!((report.state, report.run), (RunState::Complete, None));
    let left = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(texts(&fleet.superuser, left).await, Vec::<String>::new());
    // And from nothing to head again.
    assert_eq!(fleet.run(fleet.options()).await.unwrap().public, report.public);
}

#[tokio::test]
async fn below_the_record_of_runs_no_way_leads_back_past_tenants() {
    let fleet = Fleet::new(2).await;
    let back = |to| RolloutOptions { public: true, ..accepting(fleet.back_to(to)) };
    let report = fleet.run(back(4)).await.unwrap();
    assert_eq!((report.state, report.run), (RunState::Complete, None));
    // The tenants could not be taken back without it, so nothing is.
    let error = fleet.run(back(1)).await.unwrap_err();
    assert!(matches!(error, Error::Behind { found: 4, .. }), "{error}");
    let applied = "SELECT max(version)::text FROM public.migrations WHERE schema_name = 'public'";
    assert_eq!(texts(&fleet.superuser, applied).await, ["4"]);
    fleet.to_head().await;
    assert_eq!(fleet.at(2).await, [1, 2]);
    assert_eq!(fleet.run(back(3)).await.unwrap().public, report.public + 1);
}

#[tokio::test]
async fn a_killed_way_back_is_ended_by_the_next_run_in_either_direction() {
    let fleet = at_102(5).await;
    let holder = fleet.db.superuser().await;
    for forward in [true, false] {
        // The third one's row is somebody else's for a while.
        let hold = format!(
            "BEGIN; SELECT FROM public.tenants WHERE id = '{}' FOR UPDATE",
            fleet.tenants[2]
        );
        holder.batch_execute(&hold).await.unwrap();
        let mut run = fleet.start(RolloutOptions { parallel: 1, ..fleet.back_to(2) }).await;
        run.until(1, is_retry).await;
        run.until(2, super::fleet::is_done).await;
        run.kill().await;
        holder.batch_execute("ROLLBACK").await.unwrap();
        assert!(fleet.at(2).await.len() >= 2);
        assert_whole(&fleet).await;
        if forward {
            fleet.to_head().await;
            assert_eq!(fleet.at(102).await.len(), 5);
        } else {
            fleet.run(fleet.back_to(2)).await.unwrap();
            assert_eq!(fleet.at(2).await.len(), 5);
        }
        assert_whole(&fleet).await;
    }
}

#[tokio::test]
async fn the_programs_own_public_files_stay_unless_they_are_meant() {
    let fleet = Fleet::new(2).await;
    let all = RolloutOptions { public: true, built_in: false, ..accepting(fleet.back_to(0)) };
    let report = fleet.run(all).await.unwrap();
    assert_eq!((report.state, report.tenants.done, report.public), (RunState::Complete, 2, 0));
    let head = "SELECT max(version)::text FROM public.migrations WHERE schema_name = 'public'";
    let expected = fleet.db.migrations.public.head().to_string();
    assert_eq!(texts(&fleet.superuser, head).await, [expected]);
}

#[tokio::test]
async fn nobody_goes_back_while_somebody_stands_half_way() {
    let fleet = at_102(2).await;
    let begun = format!(
        "INSERT INTO public.migration_progress (schema_name, version, direction, token_checksum, statements_begun)
         VALUES ('{}', 150, 'up', sha256('x'), 1)",
        fleet.schema(1)
    );
    fleet.superuser.batch_execute(&begun).await.unwrap();
    let error = fleet.run(fleet.back_to(2)).await.unwrap_err();
    let Error::Migration(MigrationError::Halfway { version, .. }) = error else {
        panic!("{error}")
    };
    assert_eq!(version, 150);
    let status = fleet_status(&fleet.db.reader, &fleet.migrations()).await.unwrap();
    assert_eq!(status.halfway.len(), 1);
    assert_eq!(fleet.run(fleet.back_to(150)).await.unwrap().tenants.total, 0);
}
