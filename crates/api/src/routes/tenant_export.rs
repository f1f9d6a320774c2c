//! `/api/tenants/{id}/export`: all of a tenant's data as one archive, without its secrets.

use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse as _, Response};
use tenantry_db::Error;
use tenantry_db::lifecycle::{Export, ExportOptions};

use crate::exports;
use crate::middleware::auth::Exporter;
use crate::problem::{Code, Problem};
use crate::state::ApiState;

pub(super) async fn show(
    exporter: Exporter,
    State(state): State<ApiState>,
    method: Method,
) -> Result<Response, Problem> {
    // An export that nobody reads would stand in the audit log.
    if method == Method::HEAD {
        return Err(Problem::new(Code::MethodNotAllowed, "an export is made for a GET only"));
    }
    let Exporter { tenant, actor } = exporter;
    let place = state.exports().begin(tenant)?;
    let installation = state.installation();
    let options = ExportOptions { omit_secrets: true };
    let (admin, config) = (installation.admin(), installation.config());
    let export = Export::open(admin, config, tenant, options, &actor).await.map_err(refusal)?;
    let disposition = format!("attachment; filename=\"{}\"", export.file_name());
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, exports::body(export, place)).into_response())
}

/// A tombstone has no data, and one that is being purged is losing it.
fn refusal(error: Error) -> Problem {
    match &error {
        Error::InvalidState { status, .. } => {
            Problem::of_status(*status).unwrap_or_else(|| error.into())
        }
        _ => error.into(),
    }
}
