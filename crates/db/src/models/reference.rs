//! The reference tables that all tenants share, read as a tenant and never changed from here.

use serde_json::Value;
use tokio_postgres::Row;

use crate::error::{Doing, Error};
use crate::tenant_read::TenantRead;

/// A country of ISO 3166-1.
#[derive(Debug, Clone)]
pub struct Country {
    /// Its code of two letters.
    pub alpha2: String,
    /// Its code of three letters.
    pub alpha3: String,
    /// Its code of three digits.
    pub numeric_code: String,
    /// Its short name in English.
    pub name: String,
}

/// A time zone of the IANA database.
#[derive(Debug, Clone)]
pub struct Timezone {
    /// Its name.
    pub name: String,
    /// The zone that it is another name of.
    pub alias_of: Option<String>,
    /// The countries that use it, by their code of two letters.
    pub country_codes: Vec<String>,
}

/// A platform that social accounts belong to.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Its key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// What sort of platform it is.
    pub kind: String,
    /// Limits and other facts.
    pub data: Value,
}

/// All countries, by code.
///
/// # Errors
/// Those of [`TenantRead::query`].
pub async fn list_countries(db: &TenantRead) -> Result<Vec<Country>, Error> {
    let rows = db
        .query(
            "SELECT alpha2, alpha3, numeric_code, name FROM public.countries ORDER BY alpha2",
            &[],
        )
        .await?;
    let read = |row: &Row| -> Result<Country, tokio_postgres::Error> {
        Ok(Country {
            alpha2: row.try_get("alpha2")?,
            alpha3: row.try_get("alpha3")?,
            numeric_code: row.try_get("numeric_code")?,
            name: row.try_get("name")?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().doing("read a row of `public.countries`")
}

/// All time zones, by name.
///
/// # Errors
/// Those of [`TenantRead::query`].
pub async fn list_timezones(db: &TenantRead) -> Result<Vec<Timezone>, Error> {
    let rows = db
        .query("SELECT name, alias_of, country_codes FROM public.timezones ORDER BY name", &[])
        .await?;
    let read = |row: &Row| -> Result<Timezone, tokio_postgres::Error> {
        Ok(Timezone {
            name: row.try_get("name")?,
            alias_of: row.try_get("alias_of")?,
            country_codes: row.try_get("country_codes")?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().doing("read a row of `public.timezones`")
}

/// All platforms, by key.
///
/// # Errors
/// Those of [`TenantRead::query`].
pub async fn list_platforms(db: &TenantRead) -> Result<Vec<Platform>, Error> {
    let rows = db
        .query("SELECT key, name, kind, data FROM public.platform_metadata ORDER BY key", &[])
        .await?;
    let read = |row: &Row| -> Result<Platform, tokio_postgres::Error> {
        Ok(Platform {
            key: row.try_get("key")?,
            name: row.try_get("name")?,
            kind: row.try_get("kind")?,
            data: row.try_get("data")?,
        })
    };
    rows.iter()
        .map(read)
        .collect::<Result<_, _>>()
        .doing("read a row of `public.platform_metadata`")
}
