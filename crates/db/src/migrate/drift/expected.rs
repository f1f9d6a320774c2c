//! What a tenant's schema should be like: what its version's files make on a scratch schema.

use std::collections::HashMap;

use tokio_postgres::error::SqlState;

use crate::direct::AdminDb;
use crate::error::{Error, ErrorKind};
use crate::migrate::fingerprint::Fingerprint;
use crate::migrate::standing::Standing;
use crate::migrate::verify::Scratch;
use crate::migrate::{MigrationSet, Migrations, SetKind, ledger};

/// What decides which shape a tenant should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Kind {
    pub(super) version: i64,
    repeatables: Edition,
}

/// Which repeatable files a schema has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Edition {
    /// There are none, and it never had one.
    None,
    /// Those of today.
    Present,
    /// Others, or some that a way back left: nobody knows their views and functions.
    Other,
}

impl Kind {
    pub(super) fn of(at: &Standing, set: &MigrationSet) -> Self {
        let present = set.repeatable_digest();
        let repeatables = match at.repeatables.as_slice() {
            [] if present.is_empty() => Edition::None,
            has if has == present && at.version == set.head() => Edition::Present,
            _ => Edition::Other,
        };
        Self { version: at.version, repeatables }
    }

    pub(super) fn seen(self, shape: &Fingerprint) -> Fingerprint {
        match self.repeatables {
            Edition::None | Edition::Present => shape.clone(),
            Edition::Other => without_views_and_functions(shape),
        }
    }
}

fn without_views_and_functions(shape: &Fingerprint) -> Fingerprint {
    let views: Vec<String> = shape
        .lines()
        .iter()
        .filter_map(|line| line.strip_prefix("view ")?.split_once(": "))
        .map(|(name, _)| name.to_owned())
        .collect();
    shape.without(|line| {
        let of_view = |name: &String| {
            [
                format!("relation {name}:"),
                format!("right on relation {name}:"),
                format!("column {name}."),
            ]
            .iter()
            .any(|start| line.starts_with(start))
        };
        ["view ", "function ", "right on function "].iter().any(|kind| line.starts_with(kind))
            || views.iter().any(of_view)
    })
}

pub(super) fn may_ask_the_majority(error: &Error) -> bool {
    let refused = [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::INSUFFICIENT_PRIVILEGE];
    match error {
        Error::Database { source, .. } => source.code().is_some_and(|code| refused.contains(code)),
        other => matches!(
            other.kind(),
            ErrorKind::Unavailable | ErrorKind::Refused | ErrorKind::Busy | ErrorKind::Invalid
        ),
    }
}

pub(super) fn said(error: &Error) -> String {
    match std::error::Error::source(error).and_then(std::error::Error::source) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The shape of each kind that there is, from the files. A sentence if a file fails.
pub(super) async fn expected(
    admin: &AdminDb,
    migrations: &Migrations,
    kinds: &[Kind],
) -> Result<Result<HashMap<Kind, Fingerprint>, String>, Error> {
    let (set, tenant) = (&migrations.tenant, SetKind::Tenant);
    let mut scratch = Scratch::open(admin).await?;
    let applied = ledger::applied_to(scratch.client(), "public").await?;
    if ledger::newest(&applied) != migrations.public.head() {
        scratch.close().await?;
        scratch = Scratch::open_apart(admin).await?;
        if let Err(problem) = scratch.public_at_head(&migrations.public).await? {
            return Ok(Err(problem));
        }
    }
    scratch.make_schema().await?;
    let mut shapes = HashMap::new();
    let versions = std::iter::once(0).chain(set.migrations().iter().map(|m| m.version));
    for version in versions {
        if let Some(migration) = set.find(version)
            && let Err(problem) = scratch.up(tenant, migration).await?
        {
            return Ok(Err(problem));
        }
        let here: Vec<&Kind> = kinds.iter().filter(|kind| kind.version == version).collect();
        if here.is_empty() {
            continue;
        }
        let shape = scratch.fingerprint(tenant).await?;
        for kind in here.into_iter().filter(|kind| kind.repeatables != Edition::Present) {
            shapes.entry(*kind).or_insert_with(|| kind.seen(&shape));
        }
    }
    let present = kinds.iter().find(|kind| kind.repeatables == Edition::Present);
    if let Some(kind) = present {
        if let Err(problem) = scratch.repeat(tenant, set.repeatables()).await? {
            return Ok(Err(problem));
        }
        shapes.insert(*kind, scratch.fingerprint(tenant).await?);
    }
    scratch.close().await?;
    Ok(Ok(shapes))
}
