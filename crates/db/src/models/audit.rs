//! `public.audit_log`: who did what to which tenant, written in the transaction that does it.

use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// Who acts: a person at the command line, a token's subject, a background task.
#[derive(Debug, Clone)]
pub struct Actor(String);

impl Actor {
    /// Somebody known by this text, for instance `cli:alice`. Must not be personal data beyond what
    /// the operator chose as an account's name.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
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
    Exported,
    Imported,
    StatementRun,
    ShellOpened,
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
            Self::Exported => "tenant.exported",
            Self::Imported => "tenant.imported",
            Self::StatementRun => "tenant.statement_run",
            Self::ShellOpened => "tenant.shell_opened",
        }
    }
}

/// How an entry begins, for the statements that write one beside something else.
macro_rules! insert {
    () => {
        "INSERT INTO public.audit_log (actor, action, tenant_id, details) "
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

/// Writes an entry about each of many tenants, in one statement.
pub(crate) async fn record_each(
    db: &impl GenericClient,
    actor: &Actor,
    action: Action,
    tenants: &[TenantId],
    details: &Value,
) -> Result<(), Error> {
    let tenants: Vec<Uuid> = tenants.iter().map(|tenant| *tenant.as_uuid()).collect();
    db.execute_typed(
        concat!(insert!(), "SELECT $1, $2, tenant, $4 FROM unnest($3) AS tenant"),
        &[
            (&actor.0, Type::TEXT),
            (&action.as_str(), Type::TEXT),
            (&tenants, Type::UUID_ARRAY),
            (details, Type::JSONB),
        ],
    )
    .await
    .doing("write the audit log")?;
    Ok(())
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
        concat!(insert!(), "VALUES ($1, $2, $3, $4)"),
        &[
            (&actor.0, Type::TEXT),
            (&action.as_str(), Type::TEXT),
            (&tenant, Type::UUID),
            (details, Type::JSONB),
        ],
    )
    .await
    .doing("write the audit log")?;
    Ok(())
}
