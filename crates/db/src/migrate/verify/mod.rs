//! `migrate verify`: every file up, down and up again on a scratch schema, empty and with rows, with what
//! the catalog says compared; all of them down and up; the repeatable files twice; and a schema made at
//! once beside one that was migrated.
//!
//! It refuses nothing and changes nothing: a finding is a line of the report.

mod course;
mod scratch;
mod seed;

use serde::Serialize;

use self::course::Course;
use self::scratch::Public;
pub(super) use self::scratch::Scratch;
use self::seed::Seed;
use super::{Fingerprint, MigrationSet, Migrations, SetKind};
use crate::direct::AdminDb;
use crate::error::Error;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// Whether nothing is wrong.
    pub passed: bool,
    /// What was looked at, in order.
    pub checks: Vec<VerifyCheck>,
    /// What could not be looked at, and why.
    pub not_verified: Vec<String>,
}

/// One file, or one step that takes all of them.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyCheck {
    /// `public` or `tenant`.
    pub set: String,
    /// Whether the schema had rows.
    pub seeded: bool,
    /// What was done.
    pub step: VerifyStep,
    /// The migration's version, for a step of one.
    pub version: Option<i64>,
    /// The up file, for a step of one.
    pub file: Option<String>,
    /// What is wrong, with the differences as lines of `-` (expected) and `+` (found).
    pub problems: Vec<String>,
    /// What was not looked at, or does no harm.
    pub notes: Vec<String>,
}

/// What was done with files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyStep {
    /// One migration up, down, and up again.
    UpDownUp,
    /// All the way down and up again.
    Chain,
    /// The repeatable files, applied twice, and around the last migration's way back.
    Repeatable,
    /// A schema that was made at once.
    Fresh,
}

/// Tries the files of the sets that are asked for. Calls `progress` after each check.
///
/// Everything happens in one transaction that is rolled back, at the latest by the server when the
/// connection ends. Cancel-safe.
///
/// # Errors
/// [`Error::Busy`] if another one is under way, [`Error::Behind`] where the files need the
/// installation's own public schema and it is not at head; those of the server.
pub async fn verify(
    admin: &AdminDb,
    migrations: &Migrations,
    sets: &[SetKind],
    mut progress: impl FnMut(&VerifyCheck),
) -> Result<Verification, Error> {
    let scratch = Scratch::open_apart(admin).await?;
    let mut report = Report { checks: Vec::new(), progress: &mut progress };
    let mut not_verified = Vec::new();
    for set in sets {
        scratch.mark("set").await?;
        let tried = match (set, scratch.public()) {
            (SetKind::Public, Public::Real { because }) => {
                Err(format!("the public set was not tried, because {because}"))
            }
            (SetKind::Public, Public::Own) => {
                both_ways(&scratch, admin, &migrations.public, &mut report).await.map(Ok)?
            }
            (SetKind::Tenant, _) => match scratch.public_at_head(&migrations.public).await? {
                Ok(()) => {
                    both_ways(&scratch, admin, &migrations.tenant, &mut report).await.map(Ok)?
                }
                Err(problem) => Err(format!("the tenant set was not tried: {problem}")),
            },
        };
        not_verified.extend(tried.err());
        scratch.back("set").await?;
    }
    scratch.close().await?;
    let checks = report.checks;
    let failed_to_start = not_verified.iter().any(|reason| reason.starts_with("the tenant set"));
    let passed = !failed_to_start && checks.iter().all(|check| check.problems.is_empty());
    Ok(Verification { passed, checks, not_verified })
}

/// Where checks go as they are made.
struct Report<'a> {
    checks: Vec<VerifyCheck>,
    progress: &'a mut dyn FnMut(&VerifyCheck),
}

impl Report<'_> {
    fn add(&mut self, check: VerifyCheck) {
        (self.progress)(&check);
        self.checks.push(check);
    }
}

/// The set on an empty schema, on one with rows, and made at once.
async fn both_ways(
    scratch: &Scratch<'_>,
    admin: &AdminDb,
    set: &MigrationSet,
    report: &mut Report<'_>,
) -> Result<(), Error> {
    scratch.mark("ground").await?;
    let empty = Course::new(scratch, set, None).run(None, report).await?;
    let migrated = match &empty {
        Some(_) => repeatables(scratch, set, report).await?,
        None => None,
    };
    scratch.back("ground").await?;
    scratch.mark("ground").await?;
    let seed = Seed::load(&admin.limits, set.kind())?;
    Course::new(scratch, set, Some(seed)).run(empty.as_deref(), report).await?;
    scratch.back("ground").await?;
    if let (SetKind::Tenant, Some(migrated)) = (set.kind(), migrated) {
        scratch.mark("ground").await?;
        let mut check = new_check(set, false, VerifyStep::Fresh);
        match scratch.make_whole_schema(set).await? {
            Ok(()) => {
                let fresh = scratch.fingerprint(SetKind::Tenant).await?;
                let what = "a tenant that is created differs from one that was migrated";
                compare(&mut check, what, &migrated, &fresh);
            }
            Err(problem) => check.problems.push(problem),
        }
        report.add(check);
        scratch.back("ground").await?;
    }
    Ok(())
}

/// The repeatable files on a schema at head: twice, and around the last migration's way back, which meets
/// them in place. Yields the schema at head with them.
async fn repeatables(
    scratch: &Scratch<'_>,
    set: &MigrationSet,
    report: &mut Report<'_>,
) -> Result<Option<Fingerprint>, Error> {
    let (kind, files) = (set.kind(), set.repeatables());
    if files.is_empty() {
        return scratch.fingerprint(kind).await.map(Some);
    }
    let mut check = new_check(set, false, VerifyStep::Repeatable);
    let mut head = None;
    'tried: {
        if let Err(problem) = scratch.repeat(kind, files).await? {
            check.problems.push(problem);
            break 'tried;
        }
        let once = scratch.fingerprint(kind).await?;
        head = Some(once.clone());
        let mut tries = vec![("applied twice", None)];
        let last = set.migrations().last().filter(|last| last.down.is_some());
        tries.extend(last.map(|last| ("after the last migration went down and up", Some(last))));
        for (when, around) in tries {
            let mut tried = Ok(());
            if let Some((migration, down)) = around.and_then(|m| m.down.as_ref().map(|d| (m, d))) {
                tried = scratch.apply(kind, down).await?;
                if tried.is_ok() {
                    tried = scratch.up(kind, migration).await?;
                }
            }
            if tried.is_ok() {
                tried = scratch.repeat(kind, files).await?;
            }
            match tried {
                Ok(()) => {
                    let again = scratch.fingerprint(kind).await?;
                    compare(&mut check, &format!("{when}, they differ"), &once, &again);
                }
                Err(problem) => check.problems.push(format!("{when}: {problem}")),
            }
        }
    }
    report.add(check);
    Ok(head)
}

fn new_check(set: &MigrationSet, seeded: bool, step: VerifyStep) -> VerifyCheck {
    let (problems, notes) = (Vec::new(), Vec::new());
    let set = set.kind().to_string();
    VerifyCheck { set, seeded, step, version: None, file: None, problems, notes }
}

/// Adds a problem with its difference, if there is one.
fn compare(check: &mut VerifyCheck, what: &str, expected: &Fingerprint, found: &Fingerprint) {
    let difference = expected.difference_in_kind(found);
    if difference.is_empty() && expected != found {
        check.notes.push(format!("{what}, but only in the order of columns"));
    }
    if !difference.is_empty() {
        check.problems.push(format!("{what}:\n{}", difference.join("\n")));
    }
}
