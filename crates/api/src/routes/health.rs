//! `/health/live`: the process answers. `/health/ready`: it can serve tenants.
//!
//! Nobody needs a token for these, so one answer serves everybody for a moment: a flood of questions
//! costs the database nothing.

use std::future::Future;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use futures_util::future::join;
use serde_json::{Value, json};
use tenantry_db::migrate::set_status;
use tenantry_db::models::page::Page;
use tenantry_db::models::tenants::{Status, TenantFilter, list_tenants};
use tenantry_db::{Error, ErrorKind, Installation, pooler};
use tokio::sync::Mutex;

use crate::problem::{Code, FieldError, Problem};
use crate::state::ApiState;

/// The last answer, and when it was found.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    last: Mutex<Option<(Instant, Vec<FieldError>)>>,
}

impl Readiness {
    const GOOD_FOR: Duration = Duration::from_secs(1);

    /// What is wrong, by name; nothing if all is well. Askers wait for one another's answer.
    async fn reasons(&self, installation: &Installation) -> Vec<FieldError> {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, reasons)) if at.elapsed() < Self::GOOD_FOR => reasons.clone(),
            _ => {
                let (database, pgbouncer) =
                    join(database(installation), pgbouncer(installation)).await;
                let reasons: Vec<_> = database.into_iter().chain(pgbouncer).collect();
                *last = Some((Instant::now(), reasons.clone()));
                reasons
            }
        }
    }
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

pub(super) async fn ready(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    let mut reasons = state.readiness().reasons(state.installation()).await;
    let code = match (reasons.is_empty(), state.verifier().has_keys()) {
        (true, true) => return Ok(Json(ready_with(&state))),
        (true, false) => Code::KeysUnavailable,
        (false, _) => Code::DatabaseUnavailable,
    };
    if !state.verifier().has_keys() {
        reasons.push(reason("keys", "the keys for tokens were not fetched yet"));
    }
    Err(Problem::new(code, "the service can't serve tenants").with_errors(reasons))
}

/// Whatever is wrong with the backups or the replicas, tenants are served: the primary answers.
fn ready_with(state: &ApiState) -> Value {
    let mut body = json!({ "status": "ready" });
    let warnings = state.backups().warnings();
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    let views = state.installation().replicas().views();
    if !views.is_empty() {
        // Without addresses: anybody may ask.
        let shown = views.iter().map(|v| json!({ "state": v.state, "reasons": v.reasons }));
        body["replicas"] = shown.collect();
    }
    body
}

/// The direct connection, and whether the public schema is what this program needs.
async fn database(installation: &Installation) -> Option<FieldError> {
    let public = &installation.migrations().public;
    match within(set_status(installation.reader(), public, "public")).await {
        Ok(status) if status.pending.is_empty() => {
            let erased = within(installation.require_erased_stay_erased()).await;
            erased.err().map(|()| reason("erasure", "tenants are back that were erased"))
        }
        Ok(_) => Some(reason("migrations", "the public schema is older than this program")),
        Err(()) => Some(reason("database", "does not answer")),
    }
}

/// The way of tenants' own statements: a lane, the bind, a tenant's schema. Before there is any
/// tenant, PgBouncer's console has to do.
async fn pgbouncer(installation: &Installation) -> Option<FieldError> {
    let tried = async {
        let filter = TenantFilter { status: Some(Status::Active), ..TenantFilter::default() };
        let first = list_tenants(installation.reader(), &filter, &Page::first(1)).await?;
        let Some(tenant) = first.rows.first() else {
            return pooler::lane_pools(installation.config()).await.map(drop);
        };
        match installation.directory().find(tenant.id).await? {
            Some(entry) => installation.probe(&entry).await,
            None => Ok(()),
        }
    };
    let answered = within(async {
        match tried.await {
            // It answered, if not with what was asked for.
            Err(error) if !is_away(&error) => Ok(()),
            answer => answer,
        }
    });
    answered.await.err().map(|()| reason("pgbouncer", "a lane does not reach the database"))
}

fn is_away(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Timeout => true,
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Invalid
        | ErrorKind::Refused
        | ErrorKind::Busy
        | ErrorKind::TooManyRequests
        | ErrorKind::Internal => false,
    }
}

/// A load balancer wants an answer soon, also when the database gives none.
async fn within<T>(check: impl Future<Output = Result<T, Error>>) -> Result<T, ()> {
    const LIMIT: Duration = Duration::from_secs(3);
    match tokio::time::timeout(LIMIT, check).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            Err(())
        }
        Err(_) => Err(()),
    }
}

fn reason(name: &str, message: &str) -> FieldError {
    FieldError { field: name.to_owned(), message: message.to_owned() }
}
