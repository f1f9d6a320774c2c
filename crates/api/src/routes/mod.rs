//! The URL tree: one file for each resource.

mod audit;
mod content;
mod deletion;
mod list;
mod reference;
mod tenant_export;
mod tenant_schema;
mod tenant_update;
mod tenants;
mod users;

pub(crate) mod health;
pub(crate) mod numbers;

use axum::Router;
use axum::routing::{get, post};

use crate::state::ApiState;

pub(crate) fn all() -> Router<ApiState> {
    Router::new()
        .route("/api/tenants", get(tenants::list).post(tenants::create))
        .route(
            "/api/tenants/{id}",
            get(tenants::show).patch(tenant_update::update).delete(deletion::delete),
        )
        .route("/api/tenants/{id}/schema", get(tenant_schema::show))
        .route("/api/tenants/{id}/export", get(tenant_export::show))
        .route("/api/tenants/{id}/suspend", post(tenants::suspend))
        .route("/api/tenants/{id}/resume", post(tenants::resume))
        .route("/api/tenants/{id}/restore", post(deletion::restore))
        .route("/api/tenants/{id}/purge", post(deletion::purge))
        .route("/api/audit", get(audit::list))
        .route("/api/tenants/{id}/certificate", get(deletion::certificate))
        .route("/api/users", get(users::list).post(users::create))
        .route("/api/users/{id}", get(users::show).patch(users::update).delete(users::delete))
        .route("/api/content", get(content::list).post(content::create))
        .route(
            "/api/content/{id}",
            get(content::show).patch(content::update).delete(content::delete),
        )
        .route("/api/countries", get(reference::countries))
        .route("/api/timezones", get(reference::timezones))
        .route("/api/platform-metadata", get(reference::platforms))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(numbers::show))
}
