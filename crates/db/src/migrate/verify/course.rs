//! A set's migrations one after another, each with its way back.

use super::scratch::Scratch;
use super::seed::{Rows, Seed, count};
use super::{Report, VerifyCheck, VerifyStep, compare, new_check};
use crate::error::Error;
use crate::migrate::sql::Statement;
use crate::migrate::{Fingerprint, Migration, MigrationSet, Script, SetKind, outside};

/// One way through a set, from nothing to its head.
pub(super) struct Course<'a> {
    scratch: &'a Scratch<'a>,
    set: &'a MigrationSet,
    seed: Option<Seed>,
}

/// A schema as it stands: what the catalog says, and how many rows there are.
#[derive(Clone, Default)]
struct State {
    shape: Fingerprint,
    rows: Rows,
}

impl<'a> Course<'a> {
    pub(super) fn new(scratch: &'a Scratch<'a>, set: &'a MigrationSet, seed: Option<Seed>) -> Self {
        Self { scratch, set, seed }
    }

    /// Goes it, and leaves the schema at head. Yields what the catalog says of each version, first of
    /// none; nothing if there was no way through. `others` is what it said on another course.
    pub(super) async fn run(
        mut self,
        others: Option<&[Fingerprint]>,
        report: &mut Report<'_>,
    ) -> Result<Option<Vec<Fingerprint>>, Error> {
        if self.set.kind() == SetKind::Tenant {
            self.scratch.make_schema().await?;
        }
        let mut states = vec![self.state().await?];
        for migration in self.set.migrations() {
            let before = states.last().cloned().unwrap_or_default();
            let mut check = new_check(self.set, self.seed.is_some(), VerifyStep::UpDownUp);
            check.version = Some(migration.version);
            check.file = Some(migration.up.file.clone());
            let other = others.and_then(|others| others.get(states.len()));
            let after = self.migration(migration, &before, other, &mut check).await?;
            report.add(check);
            match after {
                Some(after) => states.push(after),
                None => return Ok(None),
            }
        }
        if !self.set.migrations().is_empty() {
            let mut check = self.chain(&states).await?;
            check.notes.extend(self.seed.iter().flat_map(Seed::never_ran));
            report.add(check);
        }
        Ok(Some(states.into_iter().map(|state| state.shape).collect()))
    }

    async fn state(&self) -> Result<State, Error> {
        let shape = self.scratch.fingerprint(self.set.kind()).await?;
        let rows = match self.seed {
            Some(_) => count(self.scratch, self.set.kind()).await?,
            None => Rows::new(),
        };
        Ok(State { shape, rows })
    }

    /// Up, down, and up again; stays up, with new rows in what is new. Nothing if it does not go up.
    async fn migration(
        &mut self,
        migration: &Migration,
        before: &State,
        other: Option<&Fingerprint>,
        check: &mut VerifyCheck,
    ) -> Result<Option<State>, Error> {
        let set = self.set.kind();
        check.notes.extend(left_out(&migration.up));
        check.problems.extend(lost_on_new_tenants(&migration.up));
        if let Err(problem) = self.scratch.up(set, migration).await? {
            check.problems.push(format!("up: {problem}"));
            return Ok(None);
        }
        let after = self.state().await?;
        if let Some(other) = other {
            let what = "the file does something else where there are rows";
            compare(check, what, other, &after.shape);
        }
        check.notes.extend(fewer(&before.rows, &after.rows).map(|lost| format!("up: {lost}")));
        match &migration.down {
            Some(down) => {
                check.notes.extend(left_out(down));
                self.scratch.mark("there").await?;
                self.back_and_forth(migration, down, (before, &after), check).await?;
                self.scratch.back("there").await?;
            }
            None => check.notes.push("irreversible: not taken back".to_owned()),
        }
        let Some(seed) = &mut self.seed else { return Ok(Some(after)) };
        let empty = seed.sow(self.scratch, set).await?;
        check
            .notes
            .extend(empty.into_iter().map(|table| format!("not verified with rows: {table}")));
        let rows = count(self.scratch, set).await?;
        Ok(Some(State { shape: after.shape, rows }))
    }

    async fn back_and_forth(
        &self,
        migration: &Migration,
        down: &Script,
        (before, after): (&State, &State),
        check: &mut VerifyCheck,
    ) -> Result<(), Error> {
        let set = self.set.kind();
        if let Err(problem) = self.scratch.apply(set, down).await? {
            check.problems.push(format!("down: {problem}"));
            return Ok(());
        }
        let back = self.state().await?;
        compare(check, "up and down lead elsewhere", &before.shape, &back.shape);
        check
            .problems
            .extend(other_rows(&before.rows, &back.rows).map(|d| format!("up and down: {d}")));
        if let Err(problem) = self.scratch.up(set, migration).await? {
            check.problems.push(format!("up again: {problem}"));
            return Ok(());
        }
        let again = self.state().await?;
        compare(check, "up, down and up lead elsewhere than up", &after.shape, &again.shape);
        let lost = other_rows(&after.rows, &again.rows);
        check.problems.extend(lost.map(|d| format!("up, down and up: {d}")));
        Ok(())
    }

    /// All the way down and up again, or as far as there is a way.
    async fn chain(&self, states: &[State]) -> Result<VerifyCheck, Error> {
        let mut check = new_check(self.set, self.seed.is_some(), VerifyStep::Chain);
        self.scratch.mark("there").await?;
        let (set, migrations) = (self.set.kind(), self.set.migrations());
        let mut at = migrations.len();
        while let Some(migration) = at.checked_sub(1).and_then(|last| migrations.get(last)) {
            let Some(down) = &migration.down else {
                let file = &migration.up.file;
                check.notes.push(format!("`{file}` is irreversible: nothing below it was reached"));
                break;
            };
            if let Err(problem) = self.scratch.apply(set, down).await? {
                check.problems.push(format!("down: {problem}"));
                break;
            }
            at -= 1;
            let found = self.scratch.fingerprint(set).await?;
            let what = format!("down to before {:04} leads elsewhere", migration.version);
            compare(&mut check, &what, &states[at].shape, &found);
        }
        for (migration, expected) in migrations.iter().zip(&states[1..]).skip(at) {
            if let Err(problem) = self.scratch.up(set, migration).await? {
                check.problems.push(format!("up again: {problem}"));
                break;
            }
            let found = self.scratch.fingerprint(set).await?;
            let what = format!("up again to {:04} leads elsewhere", migration.version);
            compare(&mut check, &what, &expected.shape, &found);
        }
        self.scratch.back("there").await?;
        Ok(check)
    }
}

/// What a sign-up leaves out, and does more than tidy up.
fn lost_on_new_tenants(script: &Script) -> Vec<String> {
    const TIDYING: [&str; 2] = ["VACUUM", "REINDEX"];
    alone(script)
        .into_iter()
        .filter(|text| !TIDYING.iter().any(|word| text.to_uppercase().starts_with(word)))
        .map(|text| format!("a tenant that is created later goes without `{text}`"))
        .collect()
}

/// The statements that can't be had in a transaction.
fn alone(script: &Script) -> Vec<String> {
    if script.transactional {
        return Vec::new();
    }
    let is_alone = |s: &&Statement| matches!(outside::step(script, s), Ok(outside::Step::Alone));
    script.statements.iter().filter(is_alone).map(|s| script.excerpt(s)).collect()
}

/// What a file outside a transaction loses here.
fn left_out(script: &Script) -> Option<String> {
    if script.transactional {
        return None;
    }
    let alone: Vec<String> = alone(script).iter().map(|text| format!("`{text}`")).collect();
    let file = &script.file;
    Some(match alone.as_slice() {
        [] => format!("`{file}` was tried in a transaction, its index builds plain"),
        alone => format!("`{file}` was tried in a transaction, without {}", alone.join(", ")),
    })
}

/// Tables that both have, with other numbers of rows.
fn other_rows<'a>(expected: &'a Rows, found: &'a Rows) -> impl Iterator<Item = String> + use<'a> {
    expected.iter().filter_map(|(table, rows)| {
        let found = found.get(table)?;
        (found != rows).then(|| format!("`{table}` has {found} rows, and had {rows}"))
    })
}

fn fewer<'a>(before: &'a Rows, after: &'a Rows) -> impl Iterator<Item = String> + use<'a> {
    before.iter().filter_map(|(table, rows)| {
        let after = after.get(table).filter(|after| *after < rows)?;
        Some(format!("takes {} of {rows} rows from `{table}`", rows - after))
    })
}
