//! One file for each resource, like the URL tree.

mod content;
mod deletion;
mod health;
mod reference;
mod tenants;
mod users;
