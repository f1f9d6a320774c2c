//! A request's parts: its JSON body, its query string, the id in its path.

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
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
            let detail =
                "send the body with `Content-Type: application/json`, in UTF-8, not compressed";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        let http = state.http();
        let read = read(request.into_body(), http.body_limit_bytes);
        let bytes = tokio::time::timeout(http.body_timeout, read).await.map_err(|_| {
            let detail = format!("the body took longer than {} s", http.body_timeout.as_secs_f32());
            Problem::new(Code::RequestTimeout, detail)
        })??;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| unreadable(&bytes, &error))
    }
}

/// The fields of a JSON body that may be left out altogether.
pub(crate) struct MaybeJsonBody(pub(crate) Fields);

impl FromRequest<ApiState> for MaybeJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            return Ok(Self(Fields::default()));
        }
        JsonBody::from_request(request, state).await.map(|JsonBody(fields)| Self(fields))
    }
}

/// What is wrong with a body, in our own words: the parser's repeat pieces of it.
fn unreadable(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let detail = if bytes.is_empty() {
        "the body is empty, and a JSON object is needed".to_owned()
    } else if error.is_data() {
        "the body must be a JSON object".to_owned()
    } else {
        let (line, column) = (error.line(), error.column());
        format!("the body can't be read as JSON beyond line {line}, column {column}")
    };
    Problem::new(Code::InvalidRequest, detail)
}

fn says_json(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let value = text(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let json =
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    // A reader before us may have read it in the charset it names.
    let utf8 = parts
        .filter_map(|part| part.strip_prefix("charset="))
        .all(|charset| charset.trim_matches('"') == "utf-8");
    let plain = text(header::CONTENT_ENCODING).is_none_or(|c| c.eq_ignore_ascii_case("identity"));
    json && utf8 && plain
}

async fn read(body: Body, limit_bytes: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let detail = format!("a body has at most {limit_bytes} bytes");
        Problem::new(Code::PayloadTooLarge, detail)
    };
    // As announced by `Content-Length`: refused before anything of it is read.
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(too_large());
    }
    let mut read = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|_| Problem::new(Code::InvalidRequest, "the body broke off before its end"))?;
        if read.len() + chunk.len() > limit_bytes {
            return Err(too_large());
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
