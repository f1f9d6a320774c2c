//! The service over HTTP on real servers, which `with-servers` starts once for all of these tests.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod edge;
mod matrix;
mod outage;
mod restarts;
mod routes;
mod service;
mod shutdown;
mod storm;
mod tenancy;
mod tokens;
