//! A row type and its queries for each table.

pub mod audit;
pub mod tenants;
