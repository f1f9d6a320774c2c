//! `/api/audit`: who did what to which tenant, with the seals that show that nobody changed it since.

use axum::Json;
use axum::extract::State;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tenantry_db::models::audit::{self as rows, AuditEntry, AuditFilter};
use uuid::Uuid;

use super::list::{self, List};
use crate::body::Query;
use crate::fields::{text, timestamp, uuid};
use crate::middleware::auth::{AuditRead, Platform};
use crate::problem::Problem;
use crate::state::ApiState;

/// As long as a token's `sub` may be, with what the log puts before it.
const MAX_ACTOR_CHARS: usize = 300;
const MAX_ACTION_CHARS: usize = 100;

/// An entry, as clients see one.
#[derive(Serialize)]
pub(super) struct EntryJson {
    id: i64,
    recorded_at: Timestamp,
    actor: String,
    action: String,
    tenant_id: Option<Uuid>,
    request_id: Option<String>,
    details: Value,
    position: Option<i64>,
    hash: Option<String>,
}

impl From<AuditEntry> for EntryJson {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id,
            recorded_at: entry.recorded_at,
            actor: entry.actor,
            action: entry.action,
            tenant_id: entry.tenant_id,
            request_id: entry.request_id,
            details: entry.details,
            position: entry.position,
            hash: entry.hash.map(|hash| HEXLOWER.encode(&hash)),
        }
    }
}

pub(super) async fn list(
    _: Platform<AuditRead>,
    State(state): State<ApiState>,
    Query(mut fields): Query,
) -> Result<Json<List>, Problem> {
    let page = list::page(&mut fields);
    let filter = AuditFilter {
        tenant_id: fields.optional("tenant_id", uuid),
        action: fields.optional("action", text(MAX_ACTION_CHARS)),
        actor: fields.optional("actor", text(MAX_ACTOR_CHARS)),
        since: fields.optional("since", timestamp),
        until: fields.optional("until", timestamp),
    };
    fields.finish()?;
    let reader = state.installation().reader();
    Ok(List::page::<EntryJson, _>(rows::list_entries(reader, &filter, &page).await?))
}
