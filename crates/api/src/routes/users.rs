//! `/api/users`: the people of a tenant. No password goes in or out here.

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use tenantry_db::models::users::{self as rows, NewUser, User, UserFilter, UserPatch};
use uuid::Uuid;

use super::list::{self, List};
use crate::body::{JsonBody, PathId, Query};
use crate::fields::{boolean, email, text, url};
use crate::middleware::db::{ReadTenant, WriteTenant};
use crate::problem::{Code, Problem};

const MAX_NAME_CHARS: usize = 255;
const MAX_ROLE_CHARS: usize = 50;

/// A user, as clients see one.
#[derive(Serialize)]
pub(super) struct UserJson {
    id: Uuid,
    email: String,
    name: String,
    role: String,
    avatar_url: Option<String>,
    email_verified: bool,
    two_factor_enabled: bool,
    last_login_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<User> for UserJson {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            name: user.name,
            role: user.role,
            avatar_url: user.avatar_url,
            email_verified: user.email_verified,
            two_factor_enabled: user.two_factor_enabled,
            last_login_at: user.last_login_at,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

pub(super) async fn list(
    ReadTenant(db): ReadTenant,
    Query(mut fields): Query,
) -> Result<Json<List>, Problem> {
    let page = list::page(&mut fields);
    let filter = UserFilter {
        role: fields.optional("role", text(MAX_ROLE_CHARS)),
        email: fields.optional("email", email),
    };
    fields.finish()?;
    Ok(List::page::<UserJson, _>(rows::list_users(&db, &filter, &page).await?))
}

pub(super) async fn show(
    ReadTenant(db): ReadTenant,
    PathId(id): PathId,
) -> Result<Json<UserJson>, Problem> {
    let user = rows::find_user(&db, id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(user.into()))
}

pub(super) async fn create(
    WriteTenant(db): WriteTenant,
    JsonBody(mut fields): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<UserJson>), Problem> {
    let new = NewUser {
        email: fields.required("email", email),
        name: fields.required("name", text(MAX_NAME_CHARS)),
        role: fields.required("role", text(MAX_ROLE_CHARS)),
        avatar_url: fields.nullable("avatar_url", url).flatten(),
        email_verified: fields.optional("email_verified", boolean).unwrap_or_default(),
        two_factor_enabled: fields.optional("two_factor_enabled", boolean).unwrap_or_default(),
    };
    fields.finish()?;
    let user = rows::create_user(&db, &new).await?;
    let location = [(header::LOCATION, format!("/api/users/{}", user.id))];
    Ok((StatusCode::CREATED, location, Json(user.into())))
}

pub(super) async fn update(
    WriteTenant(db): WriteTenant,
    PathId(id): PathId,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<UserJson>, Problem> {
    if fields.is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "the body names nothing to change"));
    }
    let patch = UserPatch {
        email: fields.optional("email", email),
        name: fields.optional("name", text(MAX_NAME_CHARS)),
        role: fields.optional("role", text(MAX_ROLE_CHARS)),
        avatar_url: fields.nullable("avatar_url", url),
        email_verified: fields.optional("email_verified", boolean),
        two_factor_enabled: fields.optional("two_factor_enabled", boolean),
    };
    fields.finish()?;
    let user = rows::update_user(&db, id, &patch).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(user.into()))
}

pub(super) async fn delete(
    WriteTenant(db): WriteTenant,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    if rows::delete_user(&db, id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}
