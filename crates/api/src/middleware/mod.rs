//! What stands before every handler: the edge, and the extractors that are the authorization.

pub(crate) mod auth;
pub(crate) mod consistency;
pub(crate) mod db;
pub(crate) mod edge;
pub(crate) mod host;

mod request_id;
