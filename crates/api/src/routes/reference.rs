//! `/api/countries`, `/api/timezones`, `/api/platform-metadata`: what all tenants share, read as the
//! caller's tenant.

use axum::Json;
use serde::Serialize;
use serde_json::Value;
use tenantry_db::models::reference::{self as rows, Country, Platform, Timezone};

use super::list::List;
use crate::body::Query;
use crate::middleware::db::ReadTenant;
use crate::problem::Problem;

#[derive(Serialize)]
pub(super) struct CountryJson {
    alpha2: String,
    alpha3: String,
    numeric_code: String,
    name: String,
}

impl From<Country> for CountryJson {
    fn from(Country { alpha2, alpha3, numeric_code, name }: Country) -> Self {
        Self { alpha2, alpha3, numeric_code, name }
    }
}

#[derive(Serialize)]
pub(super) struct TimezoneJson {
    name: String,
    alias_of: Option<String>,
    country_codes: Vec<String>,
}

impl From<Timezone> for TimezoneJson {
    fn from(Timezone { name, alias_of, country_codes }: Timezone) -> Self {
        Self { name, alias_of, country_codes }
    }
}

#[derive(Serialize)]
pub(super) struct PlatformJson {
    key: String,
    name: String,
    kind: String,
    data: Value,
}

impl From<Platform> for PlatformJson {
    fn from(Platform { key, name, kind, data }: Platform) -> Self {
        Self { key, name, kind, data }
    }
}

pub(super) async fn countries(
    ReadTenant(db): ReadTenant,
    Query(fields): Query,
) -> Result<Json<List>, Problem> {
    fields.finish()?;
    Ok(List::whole::<CountryJson, _>(rows::list_countries(&db).await?))
}

pub(super) async fn timezones(
    ReadTenant(db): ReadTenant,
    Query(fields): Query,
) -> Result<Json<List>, Problem> {
    fields.finish()?;
    Ok(List::whole::<TimezoneJson, _>(rows::list_timezones(&db).await?))
}

pub(super) async fn platforms(
    ReadTenant(db): ReadTenant,
    Query(fields): Query,
) -> Result<Json<List>, Problem> {
    fields.finish()?;
    Ok(List::whole::<PlatformJson, _>(rows::list_platforms(&db).await?))
}
