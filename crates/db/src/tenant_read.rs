//! Reads of a tenant that a replica may answer, and that never show an older state than they must.
//!
//! A read goes to a healthy replica; there, bind, check, statement and COMMIT are one round trip, as on
//! the primary. Whatever a replica can't do, the primary does, once: no row was handed on before, and
//! nothing was written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

use crate::bind::{self, COMMIT_AND_TELL_REPLAYED};
use crate::consistency::{Asked, Position};
use crate::directory::TenantEntry;
use crate::door;
use crate::error::{Error, server_is_away};
use crate::ids::TenantRef;
use crate::models::tenants::Status;
use crate::replicas::{Choice, Lease, ReadOn};
use crate::tenant_db::{Access, TenantDb};
use crate::trace::ServedBy;
use crate::trip::{self, Answer, Broken, Params};

/// Between two attempts of a read that waits for a replica (`replicas.wait`).
const PAUSE: Duration = Duration::from_millis(5);

/// A handle for reads of one tenant. Cheap to clone; holds no connection.
///
/// Whatever it is told to run, the database refuses to write.
#[derive(Debug, Clone)]
pub struct TenantRead {
    db: TenantDb,
    /// From a token: no state older than this.
    after: Option<PgLsn>,
    /// There was a token, and nobody knows what it asks for.
    blind: bool,
}

impl TenantRead {
    pub(crate) fn new(db: TenantDb) -> Self {
        Self { db, after: None, blind: false }
    }

    /// The same, for a client that holds this token: it is shown nothing older than what the token stands
    /// for. One that can't be read costs a read on the primary, and is no error.
    #[must_use]
    pub fn after(mut self, token: &str) -> Self {
        let replicas = self.db.installation.replicas();
        if replicas.is_empty() {
            return self;
        }
        match replicas.tokens().open(self.db.tenant.id, token) {
            Asked::Position(Position { lsn, timeline })
                if Some(timeline) == replicas.timeline() =>
            {
                self.after = self.after.max(Some(lsn));
            }
            // Of another history: what it stands for may be lost, and only the primary is sure to have the
            // rest.
            Asked::Position(_) | Asked::Unknown => self.blind = true,
            Asked::Nothing => {}
        }
        self
    }

    /// The tenant, as it was when the handle was made.
    pub fn tenant(&self) -> &TenantEntry {
        self.db.tenant()
    }

    /// See [`TenantDb::token`].
    pub fn token(&self) -> Option<String> {
        self.db.token()
    }

    /// Who answered the last read.
    pub fn served_by(&self) -> Option<ServedBy> {
        self.db.served_by()
    }

    /// Runs one statement in a read-only transaction of its own, in one round trip, and yields its rows.
    ///
    /// # Errors
    /// Those of [`TenantDb::query`]; [`Error::WriteInRead`] for a statement that writes;
    /// [`Error::TenantNotServed`] if the tenant was shut out since the handle was made.
    pub async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        self.run(sql, params).await.map(|answer| answer.rows)
    }

    /// As [`query`](Self::query), for a statement that yields one row or none.
    ///
    /// # Errors
    /// As [`query`](Self::query); more than one row is [`Error::RowCount`].
    pub async fn query_opt(
        &self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        self.run(sql, params).await?.one_or_none()
    }

    /// As [`query`](Self::query), for a statement that yields one row.
    ///
    /// # Errors
    /// As [`query`](Self::query); any other number of rows is [`Error::RowCount`].
    pub async fn query_one(&self, sql: &'static str, params: Params<'_>) -> Result<Row, Error> {
        self.run(sql, params).await?.one()
    }

    async fn run(&self, sql: &'static str, params: Params<'_>) -> Result<Answer, Error> {
        let sql = door::admit(sql)?;
        let replicas = self.db.installation.replicas();
        let entry = self.entry().await?;
        let _slot = entry.slots.acquire(entry.id, &entry.limits).await?;
        let mut permit = None;
        if !replicas.is_empty() {
            let on = match self.on_replicas(&entry, sql, params).await {
                Ok(answer) => return Ok(answer),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Primary(on)) => on,
            };
            replicas.count(on);
            tracing::debug!(tenant.id = %entry.id, why = on.as_str(), "a read goes to the primary");
            let patience = self.db.installation.config().database.acquire_timeout;
            permit = replicas.fallback(entry.lane, patience).await?;
        }
        let answer = self.db.on_primary(&entry, Access::Read, sql, params).await;
        drop(permit);
        let answer = answer.map_err(as_read)?;
        self.db.trace.note_served(ServedBy::Primary);
        Ok(answer)
    }

    /// The tenant as the directory knows it now. A replica may not know yet that it was shut out, so a
    /// handle that was made before is not relied on.
    async fn entry(&self) -> Result<Arc<TenantEntry>, Error> {
        let tenant = &self.db.tenant;
        if self.db.installation.replicas().is_empty() {
            return Ok(Arc::clone(tenant));
        }
        match self.db.installation.directory().find(tenant.id).await {
            Ok(Some(now)) => match now.status {
                Status::Active => Ok(now),
                status => Err(Error::TenantNotServed { tenant: now.id, status }),
            },
            Ok(None) => Err(Error::TenantNotFound(TenantRef::Id(tenant.id))),
            // Changes are not heard of then either, so it is the primary that will decide.
            Err(_) => Ok(Arc::clone(tenant)),
        }
    }

    async fn on_replicas(
        &self,
        entry: &TenantEntry,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Answer, Setback> {
        let installation = &self.db.installation;
        let replicas = installation.replicas();
        if !installation.directory().is_following() {
            return Err(Setback::Primary(ReadOn::Unannounced));
        }
        if self.blind {
            return Err(Setback::Primary(ReadOn::Token));
        }
        let written = replicas.memory().of(entry.id).max(self.after);
        let needed = written.map_or(entry.known_at, |written| written.max(entry.known_at));
        let until = replicas.limits().wait.map(|wait| Instant::now() + wait);
        loop {
            let outcome = match replicas.choose(needed) {
                Choice::Replica(lease) => self.on_replica(&lease, entry, needed, sql, params).await,
                Choice::Primary(on) => Err(Setback::Primary(on)),
            };
            match outcome {
                Err(Setback::Primary(ReadOn::Stale))
                    if until.is_some_and(|until| Instant::now() + PAUSE < until) =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn on_replica(
        &self,
        lease: &Lease<'_>,
        entry: &TenantEntry,
        needed: PgLsn,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Answer, Setback> {
        let trip = async {
            let Ok(mut connection) = lease.connection(entry.lane).await else {
                return Err(Setback::Primary(ReadOn::Lost));
            };
            let open = bind::on_replica(&entry.bind, needed);
            let end = COMMIT_AND_TELL_REPLAYED;
            let made = trip::make(&mut connection, &open, end, sql, params).await;
            made.map_err(|broken| setback(broken, entry))
        };
        // The server itself ends a statement after this; whatever is silent for longer is not there.
        let patience = entry.limits.statement_timeout + self.patience_beyond();
        let made = tokio::select! {
            biased;
            made = tokio::time::timeout(patience, trip) => {
                made.unwrap_or(Err(Setback::Primary(ReadOn::Lost)))
            }
            () = lease.gone() => Err(Setback::Primary(ReadOn::Lost)),
        };
        match made {
            Ok((answer, told)) => {
                self.note(lease, entry, told.lsn());
                Ok(answer)
            }
            Err(setback) => {
                match &setback {
                    Setback::Primary(ReadOn::Stale) => lease.refused(needed),
                    Setback::Primary(ReadOn::Lost | ReadOn::Broken) => lease.broken(),
                    Setback::Primary(_) | Setback::Final(_) => {}
                }
                tracing::debug!(
                    replica = lease.name(),
                    ?setback,
                    "a replica did not answer a read"
                );
                Err(setback)
            }
        }
    }

    /// For a connection, and for the way there and back.
    fn patience_beyond(&self) -> Duration {
        2 * self.db.installation.replicas().limits().poll_timeout
    }

    /// Remembers what was seen.
    fn note(&self, lease: &Lease<'_>, entry: &TenantEntry, replayed: Option<PgLsn>) {
        let replicas = self.db.installation.replicas();
        lease.answered(replayed);
        replicas.count(ReadOn::Replica);
        self.db.trace.note_served(ServedBy::Replica);
        if let Some(lsn) = replayed {
            replicas.memory().note(entry.id, lsn);
            if let Some(timeline) = replicas.timeline() {
                self.db.trace.note(Position { lsn, timeline });
            }
        }
    }
}

/// Why a replica did not answer.
#[derive(Debug)]
enum Setback {
    /// The primary may.
    Primary(ReadOn),
    /// It would say the same.
    Final(Error),
}

fn setback(broken: Broken, entry: &TenantEntry) -> Setback {
    /// The statement was cancelled for the sake of replay, or its connection was.
    const CONFLICT: [SqlState; 3] = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::DATABASE_DROPPED,
    ];
    /// What a newer schema may have.
    const MISSING: [SqlState; 9] = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::INVALID_PARAMETER_VALUE,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::DATATYPE_MISMATCH,
    ];
    let source = broken.source();
    let code = source.code();
    let is = |codes: &[SqlState]| code.is_some_and(|code| codes.contains(code));
    let of_class = |class: &str| code.is_some_and(|code| code.code().starts_with(class));
    let on = if source.as_db_error().is_none() && source.is_closed() || server_is_away(source) {
        ReadOn::Lost
    } else if is(&CONFLICT) {
        ReadOn::Conflict
    // Out of resources, an error of the operating system, damaged data: there, and not on the primary.
    } else if ["53", "58", "XX"].into_iter().any(of_class) {
        ReadOn::Broken
    } else {
        match &broken {
            Broken::Opening(_) if is(&[SqlState::DIVISION_BY_ZERO]) => ReadOn::Stale,
            Broken::Opening(_) => ReadOn::NotBound,
            Broken::Statement(_) | Broken::Ending(_) if is(&MISSING) => ReadOn::Missing,
            Broken::Statement(_) | Broken::Ending(_) => {
                return Setback::Final(as_read(broken.of_tenant(entry.id)));
            }
        }
    };
    Setback::Primary(on)
}

/// What is wrong with a primary that refuses a write is a bug of whoever writes in a read.
fn as_read(error: Error) -> Error {
    match error {
        Error::TakesNoWrites(source) => Error::WriteInRead(source),
        other => other,
    }
}
