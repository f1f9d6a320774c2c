//! `Consistency-Token` and `Served-By`: what a client has written or seen, and who answered its reads.
//!
//! The tenant's handle knows both once the handler is done; its route here is the request's extensions, so
//! that no handler has to think of it.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tenantry_db::{TenantDb, TenantRead};

const TOKEN: HeaderName = HeaderName::from_static("consistency-token");
const SERVED_BY: HeaderName = HeaderName::from_static("served-by");

/// The tenant's handle of one request, left here by the extractor.
#[derive(Debug, Clone, Default)]
struct Handle(Arc<OnceLock<TenantDb>>);

/// The handle for reads that the request may have: after what its token stands for. Who sends several
/// tokens has seen all of it.
pub(super) fn read(parts: &Parts, db: &TenantDb) -> TenantRead {
    // What is no text can't be a token of ours; it is read like any other that is none.
    let tokens = parts.headers.get_all(TOKEN).iter().map(|value| value.to_str().unwrap_or("?"));
    tokens.fold(db.read(), TenantRead::after)
}

pub(super) fn remember(parts: &Parts, db: &TenantDb) {
    if let Some(Handle(slot)) = parts.extensions.get::<Handle>() {
        // There is one extractor of a tenant in a handler.
        let _ = slot.set(db.clone());
    }
}

/// Adds to an answer what the tenant's handle has learned.
pub(crate) async fn pass(mut request: Request, next: Next) -> Response {
    let handle = Handle::default();
    request.extensions_mut().insert(handle.clone());
    let mut response = next.run(request).await;
    if let Some(db) = handle.0.get() {
        let headers = response.headers_mut();
        if let Some(token) = db.token().and_then(|token| HeaderValue::try_from(token).ok()) {
            headers.insert(TOKEN, token);
        }
        if let Some(by) = db.served_by() {
            headers.insert(SERVED_BY, HeaderValue::from_static(by.as_str()));
        }
    }
    response
}
