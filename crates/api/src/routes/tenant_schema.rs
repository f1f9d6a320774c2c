//! `/api/tenants/{id}/schema`: how far a tenant's schema is, and what is in it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tenantry_db::migrate::set_status;
use tenantry_db::models::catalog::{Column, Table, list_tables};
use tenantry_db::models::tenants::{Status, get_tenant};

use crate::middleware::auth::VisibleTenant;
use crate::problem::Problem;
use crate::state::ApiState;

#[derive(Serialize)]
pub(super) struct SchemaJson {
    schema: String,
    head_version: i64,
    pending_versions: Vec<i64>,
    bytes: i64,
    tables: Vec<TableJson>,
}

#[derive(Serialize)]
struct TableJson {
    name: String,
    rows_estimate: Option<i64>,
    bytes: i64,
    columns: Vec<ColumnJson>,
}

#[derive(Serialize)]
struct ColumnJson {
    name: String,
    r#type: String,
    nullable: bool,
}

impl From<Table> for TableJson {
    fn from(Table { name, rows_estimate, bytes, columns }: Table) -> Self {
        Self { name, rows_estimate, bytes, columns: columns.into_iter().map(Into::into).collect() }
    }
}

impl From<Column> for ColumnJson {
    fn from(Column { name, data_type, nullable }: Column) -> Self {
        Self { name, r#type: data_type, nullable }
    }
}

pub(super) async fn show(
    VisibleTenant(tenant): VisibleTenant,
    State(state): State<ApiState>,
) -> Result<Json<SchemaJson>, Problem> {
    let installation = state.installation();
    let reader = installation.reader();
    let tenant = get_tenant(reader, &tenant).await?;
    // A tombstone has no schema, and one that is being purged is losing it.
    if let (Status::Purging | Status::Purged, Some(problem)) =
        (tenant.status, Problem::of_status(tenant.status))
    {
        return Err(problem);
    }
    let schema = tenant.schema();
    let status = set_status(reader, &installation.migrations().tenant, &schema.to_string()).await?;
    let tables = list_tables(reader, schema).await?;
    Ok(Json(SchemaJson {
        schema: schema.to_string(),
        head_version: status.applied,
        pending_versions: status.pending.iter().map(|file| file.version).collect(),
        bytes: tables.iter().map(|table| table.bytes).sum(),
        tables: tables.into_iter().map(Into::into).collect(),
    }))
}
