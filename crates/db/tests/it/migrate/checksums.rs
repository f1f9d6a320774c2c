//! Files that changed, vanished or came late: what is refused before anybody is touched, and what is
//! only remarked.

use tenantry_db::migrate::{Event, MigrationError, RolloutOptions, RunState};
use tenantry_db::{Error, ErrorKind};

use super::fleet::{Fleet, LABEL, LABEL_DOWN};
use crate::texts;

/// Somebody has something to do, so that a run would touch them.
const MORE: (&str, &str) = ("tenant/0103_more.up.sql", "CREATE TABLE more ();");

async fn refused(fleet: &Fleet) -> MigrationError {
    let before = fleet.runs().await;
    let error = fleet.run(fleet.options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.hint().is_some());
    assert!(fleet.at(103).await.is_empty(), "somebody was touched");
    assert_eq!(fleet.runs().await, before, "it did not begin");
    match error {
        Error::Migration(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_edited_file_is_refused_with_its_name_and_its_tenants() {
    let fleet = Fleet::new(9).await;
    fleet.write(&[LABEL, LABEL_DOWN]);
    // Two have it.
    let two = RolloutOptions { tenants: fleet.only(&[3, 5]), ..fleet.options() };
    fleet.run(two).await.unwrap();
    fleet.write(&[MORE, (LABEL.0, "CREATE TABLE label (id bigint);")]);
    let message = refused(&fleet).await.to_string();
    assert!(message.contains("0101_label.up.sql` was changed"), "{message}");
    assert!(message.ends_with("applied to `t3`, `t5`"), "{message}");
    // All have the first one: some are named, and how many more there are.
    fleet.write(&[
        LABEL,
        ("tenant/0002_create_tenant_schema_tables.up.sql", "CREATE TABLE other ();"),
    ]);
    let message = refused(&fleet).await.to_string();
    assert!(message.ends_with("applied to `t1`, `t2`, `t3`, `t4`, `t5` and 4 more"), "{message}");
}

#[tokio::test]
async fn an_edited_public_file_is_refused_too() {
    let fleet = Fleet::new(2).await;
    fleet.write(&[("public/0100_x.up.sql", "CREATE TABLE x ();")]).to_head().await;
    fleet.write(&[MORE, ("public/0100_x.up.sql", "CREATE TABLE x (y int);")]);
    let message = refused(&fleet).await.to_string();
    assert!(message.contains("public/0100_x.up.sql` was changed"), "{message}");
}

#[tokio::test]
async fn a_comment_is_only_remarked() {
    let fleet = Fleet::new(2).await;
    fleet.write(&[LABEL]).to_head().await;
    let touched = format!("-- Licence: MIT\r\n{}\r\n/* the end */", LABEL.1.replace(' ', "\r\n  "));
    fleet.write(&[MORE, (LABEL.0, &touched)]);
    let mut run = fleet.start(fleet.options()).await;
    assert_eq!(run.end().await.unwrap().state, RunState::Complete);
    let remarks: Vec<String> = run.events().into_iter().filter_map(remark).collect();
    let [remark] = remarks.as_slice() else { panic!("{remarks:?}") };
    assert!(remark.contains("0101_label.up.sql` was changed in comments"), "{remark}");
    assert_eq!(fleet.at(103).await, [1, 2]);
}

fn remark(event: Event) -> Option<String> {
    match event {
        Event::Remark { remark } => Some(remark),
        _ => None,
    }
}

#[tokio::test]
async fn a_repair_records_the_file_as_it_is_and_who_did_it() {
    let fleet = Fleet::new(3).await;
    fleet.write(&[LABEL]).to_head().await;
    fleet.write(&[MORE, (LABEL.0, "CREATE TABLE label (id integer);")]);
    refused(&fleet).await;
    let entries = "SELECT version || ' ' || encode(token_checksum, 'hex') FROM public.migrations
                   WHERE version <> 101 AND version <> 103 ORDER BY 1";
    let others = texts(&fleet.superuser, entries).await;
    fleet.run(RolloutOptions { repair: true, ..fleet.options() }).await.unwrap();
    assert_eq!(fleet.at(103).await, [1, 2, 3]);
    assert_eq!(texts(&fleet.superuser, entries).await, others, "nothing else was repaired");
    let audit = "SELECT concat_ws(' ', actor, details ->> 'set', details ->> 'version', details ->> 'schemas',
                        details ->> 'checksum')
                 FROM public.audit_log WHERE action = 'migration.checksum_repaired'";
    let set = fleet.migrations().tenant;
    let checksum = set.find(101).unwrap().checksum.map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(texts(&fleet.superuser, audit).await, [format!("test tenant 101 3 {checksum}")]);
    // There is nothing more to repair, and nothing more to say of it.
    fleet.run(RolloutOptions { repair: true, ..fleet.options() }).await.unwrap();
    assert_eq!(texts(&fleet.superuser, audit).await.len(), 1);
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let fleet = Fleet::new(3).await;
    fleet.write(&[LABEL]);
    let two = RolloutOptions { tenants: fleet.only(&[1, 2]), ..fleet.options() };
    fleet.run(two).await.unwrap();
    fleet.write(&[MORE]).remove(LABEL.0);
    let message = refused(&fleet).await.to_string();
    assert!(message.starts_with("version 101 (`label`) is applied to `t1`, `t2`"), "{message}");
    // No repair helps: what is there could not be taken back, nor made in a new tenant.
    let repair = RolloutOptions { repair: true, ..fleet.options() };
    assert_eq!(fleet.run(repair).await.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn a_late_file_is_refused_with_those_who_lack_it() {
    let fleet = Fleet::new(2).await;
    fleet.write(&[("tenant/0102_later.up.sql", "CREATE TABLE later ();")]).to_head().await;
    fleet.write(&[LABEL, MORE]);
    let message = refused(&fleet).await.to_string();
    let expected =
        "0101_label.up.sql` comes before version 102, which is applied to `t1`, `t2` already";
    assert!(message.ends_with(expected), "{message}");
    // Somebody who was created since has it: the others still lack it.
    let new = fleet.create(&fleet.migrations(), "new").await;
    assert_eq!(new.schema_version, 103);
    let error = fleet.run(fleet.options()).await.unwrap_err();
    let message = error.to_string();
    assert!(message.ends_with("which is applied to `t1`, `t2` already"), "{message}");
    assert!(fleet.at(103).await.is_empty());
}
