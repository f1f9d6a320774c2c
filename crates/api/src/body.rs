//! A request's parts: its JSON body, its query string, the id in its path.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use serde_json::Value;
use uuid::Uuid;

use crate::fields::Fields;
use crate::problem::{Code, Problem};
use crate::state::ApiState;

/// The fields of a JSON body. Comes last among a handler's arguments, so that nobody without the
/// right to the route has a body read.
pub(crate) struct JsonBody(pub(crate) Fields);

impl FromRequest<ApiState> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        if !says_json(request.headers()) {
            let detail = "send the body with `Content-Type: application/json`";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        let bytes = read(request.into_body(), state.http().body_limit_bytes).await?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(Self(Fields::new(fields))),
            Ok(_) => Err(Problem::new(Code::InvalidRequest, "the body must be a JSON object")),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let detail = format!("the body is not JSON: line {line}, column {column}");
                Err(Problem::new(Code::InvalidRequest, detail))
            }
        }
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

async fn read(body: Body, limit_bytes: usize) -> Result<Vec<u8>, Problem> {
    let mut read = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|_| Problem::new(Code::InvalidRequest, "the body broke off before its end"))?;
        if read.len() + chunk.len() > limit_bytes {
            let detail = format!("a body has at most {limit_bytes} bytes");
            return Err(Problem::new(Code::PayloadTooLarge, detail));
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

/// The parameters of the query string.
pub(crate) struct Query(pub(crate) Fields);

impl FromRequestParts<ApiState> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        Ok(Self(Fields::of_query(parts.uri.query())))
    }
}

/// The path's `{id}`. What is no id can't be anybody's: 404.
pub(crate) struct PathId(pub(crate) Uuid);

impl FromRequestParts<ApiState> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        let id = params.iter().find_map(|(name, value)| (name == "id").then_some(value));
        id.filter(|id| id.len() == 36)
            .and_then(|id| Uuid::try_parse(id).ok())
            .map(Self)
            .ok_or_else(Problem::not_found)
    }
}
