//! A tenant's life: one file for each step.

mod create;
mod delete_schema;

pub use create::{NewTenant, create_tenant};
pub use delete_schema::delete_tenant_schema;
