//! A tenant's life: one file for each step.

mod access;
mod create;
mod delete_schema;
mod relocate;
mod suspend;

pub(crate) use create::empty_schema;
pub use create::{NewTenant, create_tenant};
pub use delete_schema::delete_tenant_schema;
pub use relocate::{Relocated, resize_lanes};
pub use suspend::{resume_tenant, suspend_tenant, suspend_tenant_now};
