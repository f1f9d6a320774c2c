//! A tenant's life: one file for each step.

mod access;
mod create;
mod delete_schema;
mod ready_pool;
mod relocate;
mod suspend;
mod update;
mod values;

pub use create::{NewTenant, create_tenant};
pub use delete_schema::delete_tenant_schema;
pub use ready_pool::{fill_ready_pool, keep_ready_pool};
pub use relocate::{Relocated, resize_lanes};
pub use suspend::{resume_tenant, suspend_tenant, suspend_tenant_now};
pub use update::{TenantChange, UpdatedTenant, update_tenant};
