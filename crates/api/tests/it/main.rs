//! The service over HTTP on real servers, which `with-servers` starts once for all of these tests.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod consistency;
mod edge;
mod jwks_url;
mod matrix;
mod outage;
mod public_keys;
mod restarts;
mod routes;
mod service;
mod shutdown;
mod signer;
mod storm;
mod tenancy;
mod tokens;
