//! `public.audit_log`: who did what to which tenant, written in the transaction that does it.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::page::{Listed, Page, Position};
use crate::direct::{AdminDb, ReaderDb};
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// Who acts: a person at the command line, a token's subject, a background task.
#[derive(Debug, Clone)]
pub struct Actor {
    text: String,
    request_id: Option<String>,
}

impl Actor {
    /// Somebody known by this text, for instance `cli:alice`. Must not be personal data beyond what
    /// the operator chose as an account's name.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), request_id: None }
    }

    /// The same, acting by this request: entries bear its id, which ties them to the service's log.
    #[must_use]
    pub fn in_request(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// What was done, to a tenant or to the installation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Created,
    Changed,
    Suspended,
    Resumed,
    Moved,
    ChecksumRepaired,
    Deleted,
    Restored,
    Held,
    Unheld,
    PurgeBegun,
    PurgeWithdrawn,
    Purged,
    LanesResized,
    RunBegun,
    RunEnded,
    PurgedAgain,
    Certified,
    Erased,
    ReplicaDeclaredGone,
    Exported,
    Imported,
    StatementRun,
    ShellOpened,
    Rewound,
    TenantRewound,
    TenantRewindUndone,
    KeptDropped,
}

impl Action {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "tenant.created",
            Self::Changed => "tenant.changed",
            Self::Suspended => "tenant.suspended",
            Self::Resumed => "tenant.resumed",
            Self::Moved => "tenant.moved",
            Self::ChecksumRepaired => "migration.checksum_repaired",
            Self::Deleted => "tenant.deleted",
            Self::Restored => "tenant.restored",
            Self::Held => "tenant.held",
            Self::Unheld => "tenant.unheld",
            Self::PurgeBegun => "tenant.purge_begun",
            Self::PurgeWithdrawn => "tenant.purge_withdrawn",
            Self::Purged => "tenant.purged",
            Self::LanesResized => "lanes.resized",
            Self::RunBegun => "migration.run_begun",
            Self::RunEnded => "migration.run_ended",
            Self::PurgedAgain => "tenant.purged_again",
            Self::Certified => "tenant.certified",
            Self::Erased => "tenant.erased",
            Self::ReplicaDeclaredGone => "tenant.replica_declared_gone",
            Self::Exported => "tenant.exported",
            Self::Imported => "tenant.imported",
            Self::StatementRun => "tenant.statement_run",
            Self::ShellOpened => "tenant.shell_opened",
            Self::Rewound => "installation.rewound",
            Self::TenantRewound => "tenant.rewound",
            Self::TenantRewindUndone => "tenant.rewind_undone",
            Self::KeptDropped => "tenant.kept_dropped",
        }
    }
}

/// How an entry begins, for the statements that write one beside something else.
macro_rules! insert {
    () => {
        "INSERT INTO public.audit_log (actor, action, tenant_id, request_id, details) "
    };
}

pub(crate) use insert as insert_audit;

/// Writes an entry about a tenant. It stays only if the transaction does.
pub(crate) async fn record(
    tx: &impl GenericClient,
    actor: &Actor,
    action: Action,
    tenant: TenantId,
    details: &Value,
) -> Result<(), Error> {
    write(tx, actor, action, Some(*tenant.as_uuid()), details).await
}

/// Writes an entry about the installation as a whole. It stays only if the transaction does.
pub(crate) async fn record_of_installation(
    tx: &impl GenericClient,
    actor: &Actor,
    action: Action,
    details: &Value,
) -> Result<(), Error> {
    write(tx, actor, action, None, details).await
}

async fn write(
    tx: &impl GenericClient,
    actor: &Actor,
    action: Action,
    tenant: Option<Uuid>,
    details: &Value,
) -> Result<(), Error> {
    tx.execute_typed(
        concat!(insert!(), "VALUES ($1, $2, $3, $4, $5)"),
        &[
            (&actor.text, Type::TEXT),
            (&action.as_str(), Type::TEXT),
            (&tenant, Type::UUID),
            (&actor.request_id(), Type::TEXT),
            (details, Type::JSONB),
        ],
    )
    .await
    .doing("write the audit log")?;
    Ok(())
}

/// An entry of the log, with its seal.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Its number: given when it was written, not when it was committed.
    pub id: i64,
    /// When it was written.
    pub recorded_at: Timestamp,
    /// Who acted.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To which tenant; none for the installation as a whole.
    pub tenant_id: Option<Uuid>,
    /// By which request.
    pub request_id: Option<String>,
    /// With which particulars.
    pub details: Value,
    /// Its place in the chain, once it is sealed.
    pub position: Option<i64>,
    /// Its seal, once it is sealed.
    pub hash: Option<Vec<u8>>,
}

/// Which entries to list.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only those about this tenant.
    pub tenant_id: Option<Uuid>,
    /// Only those of this action.
    pub action: Option<String>,
    /// Only those of this actor.
    pub actor: Option<String>,
    /// Only those written at that moment or later.
    pub since: Option<Timestamp>,
    /// Only those written before that moment.
    pub until: Option<Timestamp>,
}

impl AuditEntry {
    fn from_row(row: &Row) -> Result<Self, Error> {
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Self {
                id: row.try_get("id")?,
                recorded_at: row.try_get("recorded_at")?,
                actor: row.try_get("actor")?,
                action: row.try_get("action")?,
                tenant_id: row.try_get("tenant_id")?,
                request_id: row.try_get("request_id")?,
                details: row.try_get("details")?,
                position: row.try_get("position")?,
                hash: row.try_get("hash")?,
            })
        };
        read().doing("read an entry of the audit log")
    }

    /// Lists have ids of 128 bits.
    fn position(&self) -> Position {
        let id = u128::try_from(self.id).unwrap_or_default();
        Position { created_at: self.recorded_at, id: Uuid::from_u128(id) }
    }
}

/// The tenants that were made of an archive or an earlier state of this one, and are still there: their
/// subdomains.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn list_made_from(admin: &AdminDb, source: TenantId) -> Result<Vec<String>, Error> {
    let db = admin.connection().await?;
    let rows = db
        .query_typed(
            "SELECT DISTINCT t.subdomain FROM public.audit_log l JOIN public.tenants t ON t.id = l.tenant_id
             WHERE l.details ->> 'source_tenant_id' = $1::uuid::text AND t.id <> $1
               AND t.status IN ('active', 'suspended', 'deleted') AND t.subdomain IS NOT NULL
             ORDER BY t.subdomain",
            &[(source.as_uuid(), Type::UUID)],
        )
        .await
        .doing("look for tenants that were made of this one")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Lists entries, oldest first.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn list_entries(
    reader: &ReaderDb,
    filter: &AuditFilter,
    page: &Page,
) -> Result<Listed<AuditEntry>, Error> {
    let db = reader.connection().await?;
    let after = page.id().map(|id| i64::try_from(id.as_u128()).unwrap_or(i64::MAX));
    // The page first, then its seals: joined before LIMIT, all of them might be looked at.
    let rows = db
        .query_typed(
            "SELECT l.id, l.recorded_at, l.actor, l.action, l.tenant_id, l.request_id, l.details,
                    s.position, s.hash
             FROM (SELECT id, recorded_at, actor, action, tenant_id, request_id, details
                   FROM public.audit_log
                   WHERE ($1::uuid IS NULL OR tenant_id = $1)
                     AND ($2::text IS NULL OR action = $2)
                     AND ($3::text IS NULL OR actor = $3)
                     AND ($4::timestamptz IS NULL OR recorded_at >= $4)
                     AND ($5::timestamptz IS NULL OR recorded_at < $5)
                     AND ($6::timestamptz IS NULL OR (recorded_at, id) > ($6, $7))
                   ORDER BY recorded_at, id LIMIT $8) l
             LEFT JOIN public.audit_seals s ON s.entry_id = l.id
             ORDER BY l.recorded_at, l.id",
            &[
                (&filter.tenant_id, Type::UUID),
                (&filter.action, Type::TEXT),
                (&filter.actor, Type::TEXT),
                (&filter.since, Type::TIMESTAMPTZ),
                (&filter.until, Type::TIMESTAMPTZ),
                (&page.created_at(), Type::TIMESTAMPTZ),
                (&after, Type::INT8),
                (&page.rows_to_read(), Type::INT8),
            ],
        )
        .await
        .doing("list the audit log")?;
    let entries = rows.iter().map(AuditEntry::from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.listed(entries, AuditEntry::position))
}
