//! Trying the files: up, down and up again.

use tenantry_db::migrate::{self, Migrations, SetKind, Verification, VerifyCheck, VerifyStep};
use tenantry_db::{AdminDb, Config};

use crate::args::{Common, MigrateVerify, Set};
use crate::exit::Exit;
use crate::output;
use crate::steps::Progress;

pub(super) async fn run(
    common: &Common,
    config: &Config,
    migrations: &Migrations,
    args: &MigrateVerify,
) -> anyhow::Result<Exit> {
    let sets = match args.set {
        Some(Set::Public) => vec![SetKind::Public],
        Some(Set::Tenant) => vec![SetKind::Tenant],
        None => vec![SetKind::Public, SetKind::Tenant],
    };
    let all = sets.iter().map(|set| checks_of(migrations, *set)).sum();
    let admin = AdminDb::new(config)?;
    let bar = Progress::begin("checks");
    let mut done = 0;
    bar.at(done, all);
    let found = migrate::verify(&admin, migrations, &sets, |_| {
        done += 1;
        bar.at(done, all);
    })
    .await?;
    drop(bar);
    output::data(common.output, &found, text)?;
    Ok(if found.passed { Exit::Done } else { Exit::Failed })
}

/// Each file and the chain, both ways; the repeatable files; a schema made at once.
fn checks_of(migrations: &Migrations, set: SetKind) -> usize {
    let (files, fresh) = match set {
        SetKind::Public => (&migrations.public, 0),
        SetKind::Tenant => (&migrations.tenant, 1),
    };
    let repeatable = usize::from(!files.repeatables().is_empty());
    2 * (files.migrations().len() + 1) + repeatable + fresh
}

fn text(found: &Verification) -> String {
    let mut text: String = found.checks.iter().map(check_text).collect();
    for reason in &found.not_verified {
        text += &format!("not verified: {reason}\n");
    }
    let failed = found.checks.iter().filter(|check| !check.problems.is_empty()).count();
    text += &match (found.passed, failed) {
        (true, _) => format!("{} checks passed; nothing was left behind\n", found.checks.len()),
        (false, failed) => format!("{failed} of {} checks failed\n", found.checks.len()),
    };
    text
}

fn check_text(check: &VerifyCheck) -> String {
    let rows = if check.seeded { "with rows" } else { "empty" };
    let what = match (check.step, &check.file) {
        (VerifyStep::UpDownUp, Some(file)) => format!("`{file}`: up, down, up"),
        (VerifyStep::UpDownUp, None) => "up, down, up".to_owned(),
        (VerifyStep::Chain, _) => "all down, all up".to_owned(),
        (VerifyStep::Repeatable, _) => "the repeatable files, twice".to_owned(),
        (VerifyStep::Fresh, _) => "created at once, as by migrating".to_owned(),
    };
    let outcome = if check.problems.is_empty() { "ok" } else { "FAILED" };
    let mut text = format!("{:6}  {rows:9}  {what}: {outcome}\n", check.set);
    for problem in &check.problems {
        text += &format!("    {}\n", problem.trim_end().replace('\n', "\n      "));
    }
    for note in &check.notes {
        text += &format!("    note: {note}\n");
    }
    text
}
