//! One file for each resource, like the URL tree.

mod audit;
mod content;
mod deletion;
mod health;
mod reference;
mod sign_ups;
mod tenant_export;
mod tenant_update;
mod tenants;
mod users;
