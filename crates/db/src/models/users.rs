//! A tenant's `users`: one row for each person. What proves who they are never leaves the table.

use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::page::{Listed, Page, Position};
use crate::error::{Doing, Error};
use crate::tenant_db::TenantDb;
use crate::tenant_read::TenantRead;

/// A user. The password's hash is not among its fields.
#[derive(Debug, Clone)]
pub struct User {
    /// Its id.
    pub id: Uuid,
    /// Its address, in lower case.
    pub email: String,
    /// Its display name.
    pub name: String,
    /// Its role in the product.
    pub role: String,
    /// Where its picture is.
    pub avatar_url: Option<String>,
    /// Whether the address was proved.
    pub email_verified: bool,
    /// Whether signing in takes a second factor.
    pub two_factor_enabled: bool,
    /// When it last signed in.
    pub last_login_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A user to be created.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its address.
    pub email: String,
    /// Its display name.
    pub name: String,
    /// Its role in the product.
    pub role: String,
    /// Where its picture is.
    pub avatar_url: Option<String>,
    /// Whether the address was proved.
    pub email_verified: bool,
    /// Whether signing in takes a second factor.
    pub two_factor_enabled: bool,
}

/// What to change of a user. `None` leaves a field as it is; `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct UserPatch {
    /// The address.
    pub email: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// The role in the product.
    pub role: Option<String>,
    /// Where the picture is.
    pub avatar_url: Option<Option<String>>,
    /// Whether the address was proved.
    pub email_verified: Option<bool>,
    /// Whether signing in takes a second factor.
    pub two_factor_enabled: Option<bool>,
}

/// Which users to list.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Only those with this role.
    pub role: Option<String>,
    /// Only the one with this address.
    pub email: Option<String>,
}

/// The columns of [`User`], for every statement that yields one.
macro_rules! columns {
    () => {
        "id, email, name, role, avatar_url, email_verified, two_factor_enabled, last_login_at, created_at, updated_at"
    };
}

impl User {
    fn from_row(row: &Row) -> Result<Self, Error> {
        let read = || -> Result<Self, tokio_postgres::Error> {
            Ok(Self {
                id: row.try_get("id")?,
                email: row.try_get("email")?,
                name: row.try_get("name")?,
                role: row.try_get("role")?,
                avatar_url: row.try_get("avatar_url")?,
                email_verified: row.try_get("email_verified")?,
                two_factor_enabled: row.try_get("two_factor_enabled")?,
                last_login_at: row.try_get("last_login_at")?,
                created_at: row.try_get("created_at")?,
                updated_at: row.try_get("updated_at")?,
            })
        };
        read().doing("read a row of `users`")
    }

    fn position(&self) -> Position {
        Position { created_at: self.created_at, id: self.id }
    }
}

/// Lists users, oldest first.
///
/// # Errors
/// Those of [`TenantRead::query`].
pub async fn list_users(
    db: &TenantRead,
    filter: &UserFilter,
    page: &Page,
) -> Result<Listed<User>, Error> {
    let rows = db
        .query(
            concat!(
                "SELECT ",
                columns!(),
                " FROM users
                 WHERE ($1::text IS NULL OR role = $1)
                   AND ($2::text IS NULL OR email = $2)
                   AND ($3::timestamptz IS NULL OR (created_at, id) > ($3, $4))
                 ORDER BY created_at, id
                 LIMIT $5"
            ),
            &[
                (&filter.role, Type::TEXT),
                (&filter.email.as_deref().map(lower_case), Type::TEXT),
                (&page.created_at(), Type::TIMESTAMPTZ),
                (&page.id(), Type::UUID),
                (&page.rows_to_read(), Type::INT8),
            ],
        )
        .await?;
    let users = rows.iter().map(User::from_row).collect::<Result<_, _>>()?;
    Ok(page.listed(users, User::position))
}

/// Finds a user.
///
/// # Errors
/// Those of [`TenantRead::query`].
pub async fn find_user(db: &TenantRead, id: Uuid) -> Result<Option<User>, Error> {
    let row = db
        .query_opt(
            concat!("SELECT ", columns!(), " FROM users WHERE id = $1"),
            &[(&id, Type::UUID)],
        )
        .await?;
    row.as_ref().map(User::from_row).transpose()
}

/// Creates a user.
///
/// # Errors
/// [`Error::EmailTaken`], and those of [`TenantDb::query`].
pub async fn create_user(db: &TenantDb, new: &NewUser) -> Result<User, Error> {
    let row = db
        .query_one(
            concat!(
                "INSERT INTO users (email, name, role, avatar_url, email_verified, two_factor_enabled)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 RETURNING ",
                columns!()
            ),
            &[
                (&lower_case(&new.email), Type::TEXT),
                (&new.name, Type::TEXT),
                (&new.role, Type::TEXT),
                (&new.avatar_url, Type::TEXT),
                (&new.email_verified, Type::BOOL),
                (&new.two_factor_enabled, Type::BOOL),
            ],
        )
        .await
        .map_err(named)?;
    User::from_row(&row)
}

/// Changes a user, if there is one.
///
/// # Errors
/// As [`create_user`].
pub async fn update_user(
    db: &TenantDb,
    id: Uuid,
    patch: &UserPatch,
) -> Result<Option<User>, Error> {
    let row = db
        .query_opt(
            concat!(
                "UPDATE users
                 SET email = coalesce($2, email),
                     name = coalesce($3, name),
                     role = coalesce($4, role),
                     avatar_url = CASE WHEN $5 THEN $6 ELSE avatar_url END,
                     email_verified = coalesce($7, email_verified),
                     two_factor_enabled = coalesce($8, two_factor_enabled),
                     updated_at = now()
                 WHERE id = $1
                 RETURNING ",
                columns!()
            ),
            &[
                (&id, Type::UUID),
                (&patch.email.as_deref().map(lower_case), Type::TEXT),
                (&patch.name, Type::TEXT),
                (&patch.role, Type::TEXT),
                (&patch.avatar_url.is_some(), Type::BOOL),
                (&patch.avatar_url.as_ref().and_then(Option::as_deref), Type::TEXT),
                (&patch.email_verified, Type::BOOL),
                (&patch.two_factor_enabled, Type::BOOL),
            ],
        )
        .await
        .map_err(named)?;
    row.as_ref().map(User::from_row).transpose()
}

/// Deletes a user, and tells whether there was one. What it wrote stays, without an author.
///
/// # Errors
/// Those of [`TenantDb::query`].
pub async fn delete_user(db: &TenantDb, id: Uuid) -> Result<bool, Error> {
    let deleted = db.execute("DELETE FROM users WHERE id = $1", &[(&id, Type::UUID)]).await?;
    Ok(deleted > 0)
}

/// The table keeps addresses in lower case, so that its plain UNIQUE finds Ann@… beside ann@…. ASCII
/// only, like its CHECK.
fn lower_case(email: &str) -> String {
    email.to_ascii_lowercase()
}

fn named(error: Error) -> Error {
    match error.constraint() {
        Some("users_tenant_id_email_key") => Error::EmailTaken,
        _ => error,
    }
}
