//! One tenant: where it stands, what is next for it, and taking it there, one batch for each migration.
//!
//! The tenant's row is the lock: taken without waiting, and only if it stands where it was expected. So
//! two runners never apply twice, a suspension or purge never meets half a migration, and there is no
//! lock key that a tenant could hold.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::batch::{BatchError, tenant_path};
use super::claim::{claim, ledger_entry, look_only, unrecord};
use super::session::Session;
use super::standing::{Standing, look};
use super::stepwise::{self, Stepwise};
use super::{AppliedNow, Batch, Migration, MigrationError, MigrationSet, loss, outside};
use crate::direct::AdminDb;
use crate::error::Error;
use crate::ids::TenantId;

/// Where tenants are to go.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) set: &'a MigrationSet,
    pub(super) goal: Goal,
}

/// Tenants on their way, with what takes them along.
#[derive(Clone, Copy)]
pub(super) struct Journey<'a> {
    pub(super) admin: &'a AdminDb,
    pub(super) route: Route<'a>,
    pub(super) run: Option<Uuid>,
}

/// The end of a journey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Up to this version; at the newest, with the repeatable files.
    Up(i64),
    /// Down to this version, 0 for none.
    Down {
        /// The version.
        to: i64,
        /// Whether rows may be lost.
        accept_data_loss: bool,
    },
}

/// How it ended for a tenant that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It stands where it was to go, or beyond.
    There,
    /// It is being purged, or gone.
    Gone,
}

impl<'a> Route<'a> {
    /// Up to a version, or to the newest.
    pub(super) fn up(set: &'a MigrationSet, to: Option<i64>) -> Self {
        Self { set, goal: Goal::Up(to.map_or_else(|| set.head(), |to| set.at_or_before(to))) }
    }

    /// Back to a version.
    pub(super) fn down(set: &'a MigrationSet, to: i64, accept_data_loss: bool) -> Self {
        Self { set, goal: Goal::Down { to: set.at_or_before(to), accept_data_loss } }
    }

    /// Whether there is anything to do for a tenant that stands there.
    pub(super) fn concerns(&self, standing: &Standing) -> bool {
        match self.goal {
            Goal::Up(to) => {
                standing.version < to
                    || self.wants_repeatables(standing.version)
                        && standing.repeatables != self.set.repeatable_digest()
            }
            Goal::Down { to, .. } => standing.version > to,
        }
    }

    fn wants_repeatables(&self, version: i64) -> bool {
        self.goal == Goal::Up(self.set.head()) && version == self.set.head()
    }

    /// The migrations that a tenant at a version meets on its way.
    pub(super) fn migrations_from(&self, version: i64) -> Vec<&'a Migration> {
        match self.goal {
            Goal::Up(to) => {
                let ahead = |m: &&Migration| m.version > version && m.version <= to;
                self.set.migrations().iter().filter(ahead).collect()
            }
            Goal::Down { to, .. } => self.set.down_from(version, to).collect(),
        }
    }
}

impl Journey<'_> {
    /// After which time a try looks who keeps it waiting: well before it gives up.
    pub(super) fn look_after(&self) -> Duration {
        let own =
            self.route.set.migrations().iter().filter_map(|m| m.up.options.lock_timeout).min();
        let limit = self.admin.limits.lock_timeout;
        (own.map_or(limit, |own| own.min(limit)) / 2).max(Duration::from_millis(5))
    }

    /// Takes a tenant there. What was reached before an error stays, and is in `standing`. Once `cancel`
    /// is true, begins no further file.
    pub(super) async fn take(
        &self,
        session: &mut Session,
        standing: &mut Standing,
        cancel: &watch::Receiver<bool>,
        progress: &mut impl FnMut(AppliedNow),
    ) -> Result<Arrival, Error> {
        // More often than that nobody else moves a tenant while we look.
        let mut looks = 8;
        while self.route.concerns(standing) {
            // Between two files there is nothing in the server to be cancelled.
            if *cancel.borrow() {
                return Err(busy(standing.id));
            }
            let started = Instant::now();
            match self.step(session, standing).await {
                Ok(Some((version, name))) => {
                    progress(AppliedNow { version, name, took: started.elapsed() });
                }
                Ok(None) => {}
                Err(StepError::Guard) if looks > 0 => {
                    looks -= 1;
                    match look(session, standing.id).await? {
                        Some(now)
                            if now.version != standing.version
                                || now.repeatables != standing.repeatables =>
                        {
                            *standing = now;
                        }
                        Some(_) => return Err(busy(standing.id)),
                        None => return Ok(Arrival::Gone),
                    }
                }
                Err(StepError::Guard | StepError::Locked) => return Err(busy(standing.id)),
                Err(StepError::Other(error)) => return Err(error),
            }
        }
        Ok(Arrival::There)
    }

    async fn step(
        &self,
        session: &mut Session,
        standing: &mut Standing,
    ) -> Result<Option<(i64, String)>, StepError> {
        match self.route.goal {
            Goal::Up(_) => match self.route.migrations_from(standing.version).first() {
                Some(next) => {
                    self.up(session, standing, next).await?;
                    standing.version = next.version;
                    Ok(Some((next.version, next.name.clone())))
                }
                None => {
                    self.repeat(session, standing).await?;
                    standing.repeatables = self.route.set.repeatable_digest();
                    Ok(None)
                }
            },
            Goal::Down { to, accept_data_loss } => {
                let (reached, name) = self.down(session, standing, to, accept_data_loss).await?;
                let from = standing.version;
                standing.version = reached;
                Ok(Some((from, name)))
            }
        }
    }

    async fn up(
        &self,
        session: &mut Session,
        standing: &Standing,
        next: &Migration,
    ) -> Result<(), StepError> {
        let (schema, limits) = (standing.id.schema(), &self.admin.limits);
        let mut leftovers = String::new();
        let text = if next.up.transactional {
            next.up.text.clone()
        } else {
            let indexes = outside::indexed_tables(&next.up);
            let found = stepwise::look_at_indexes(session, &schema.to_string(), &indexes).await?;
            let plainly = outside::builds_plainly(
                next.up.options.index,
                found.largest_bytes,
                limits.plain_index_up_to_mib,
            );
            // What was begun statement by statement is ended so.
            let begun =
                stepwise::is_begun(session, &schema.to_string(), next.version, "up").await?;
            match outside::in_a_transaction(&next.up, false).filter(|_| plainly && !begun) {
                Some(text) => {
                    for index in found.invalid {
                        leftovers +=
                            &format!("DROP INDEX {schema}.{};\n", crate::ids::quoted(&index));
                    }
                    text
                }
                None => return self.up_stepwise(session, standing, next).await,
            }
        };
        let mut batch = Batch::new(schema.to_string());
        batch
            .guard(&claim(standing, next.version, None))
            .settings(&self.admin.roles, &tenant_path(schema), limits)
            .ours(&leftovers)
            .script_as(&next.up, &text, limits)
            .record(&self.ledger(standing, next));
        Ok(batch.send(session.client()).await?)
    }

    async fn up_stepwise(
        &self,
        session: &mut Session,
        standing: &Standing,
        next: &Migration,
    ) -> Result<(), StepError> {
        let file = Stepwise {
            admin: self.admin,
            schema: standing.id.schema().to_string(),
            path: tenant_path(standing.id.schema()),
            script: &next.up,
            version: next.version,
            direction: "up",
            accept_data_loss: true,
            look: look_only(standing),
            claim: claim(standing, next.version, None),
            record: self.ledger(standing, next),
        };
        file.run(session).await
    }

    fn ledger(&self, standing: &Standing, applied: &Migration) -> String {
        ledger_entry(&standing.id.schema().to_string(), applied, self.run) + ";"
    }

    async fn repeat(&self, session: &mut Session, standing: &Standing) -> Result<(), StepError> {
        let (schema, limits) = (standing.id.schema(), &self.admin.limits);
        let mut batch = Batch::new(schema.to_string());
        let digest = self.route.set.repeatable_digest();
        batch.guard(&claim(standing, standing.version, Some(&digest))).settings(
            &self.admin.roles,
            &tenant_path(schema),
            limits,
        );
        for file in self.route.set.repeatables() {
            batch.script(&file.script, limits);
        }
        Ok(batch.send(session.client()).await?)
    }

    /// All the way down in one batch, unless a file on the way can't be part of one. Yields the version
    /// that was reached, and the last file's name.
    async fn down(
        &self,
        session: &mut Session,
        standing: &Standing,
        to: i64,
        accept_data_loss: bool,
    ) -> Result<(i64, String), StepError> {
        let (schema, limits) = (standing.id.schema(), &self.admin.limits);
        let set = self.route.set;
        let way = set.down_from(standing.version, to);
        let is_whole = |m: &&Migration| m.down.as_ref().is_none_or(|down| down.transactional);
        let together: Vec<&Migration> = way.take_while(is_whole).collect();
        let Some(last) = together.last() else {
            return self.down_stepwise(session, standing, to, accept_data_loss).await;
        };
        let reached = set.before(last.version);
        let mut batch = Batch::new(schema.to_string());
        batch.guard(&claim(standing, reached, Some(&[]))).settings(
            &self.admin.roles,
            &tenant_path(schema),
            limits,
        );
        for migration in &together {
            let down = migration.require_down()?;
            if !accept_data_loss {
                for guard in loss::guards(&schema.to_string(), down) {
                    batch.loss_guard(&guard);
                }
            }
            batch.script(down, limits);
        }
        batch.record(&unrecord(standing, reached));
        match batch.send(session.client()).await {
            Err(BatchError::Loss) => {
                let schema = schema.to_string();
                Err(MigrationError::rows_came(schema, standing.subdomain.clone()).into())
            }
            sent => {
                sent?;
                Ok((reached, last.name.clone()))
            }
        }
    }

    async fn down_stepwise(
        &self,
        session: &mut Session,
        standing: &Standing,
        to: i64,
        accept_data_loss: bool,
    ) -> Result<(i64, String), StepError> {
        let set = self.route.set;
        // A version that no file has: the ledger was checked before, so somebody moved it since.
        let next = set.down_from(standing.version, to).next().ok_or(StepError::Guard)?;
        let reached = set.before(next.version);
        let file = Stepwise {
            admin: self.admin,
            schema: standing.id.schema().to_string(),
            path: tenant_path(standing.id.schema()),
            script: next.require_down()?,
            version: next.version,
            direction: "down",
            accept_data_loss,
            look: look_only(standing),
            claim: claim(standing, reached, Some(&[])),
            record: unrecord(standing, reached),
        };
        file.run(session).await?;
        Ok((reached, next.name.clone()))
    }
}

fn busy(tenant: TenantId) -> Error {
    Error::Busy(format!("tenant `{tenant}`"))
}

/// Why a step was not made.
pub(super) enum StepError {
    /// The schema is not where it was expected: look again.
    Guard,
    /// Another transaction has the tenant's row.
    Locked,
    /// Whatever else stands against it.
    Other(Error),
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<MigrationError> for StepError {
    fn from(error: MigrationError) -> Self {
        Self::Other(error.into())
    }
}

impl From<BatchError> for StepError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Guard => Self::Guard,
            BatchError::Locked => Self::Locked,
            // Only the way back has such guards, and it says what they mean.
            BatchError::Loss => Self::Guard,
            BatchError::Statement(error) => Self::Other(error.into()),
        }
    }
}
