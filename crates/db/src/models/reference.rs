//! What is looked up and never changed from here: the reference tables that all tenants share, read
//! as a tenant, and what the catalog says of a tenant's tables, read as the reader.

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::direct::ReaderDb;
use crate::error::{Doing, Error};
use crate::ids::SchemaName;
use crate::tenant_db::TenantDb;

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

/// A table of a tenant schema, as the catalog describes it.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many rows it had when it was last analysed; none if it never was.
    pub rows_estimate: Option<i64>,
    /// What it takes on disk, with its indexes.
    pub bytes: i64,
    /// Its columns, in order.
    pub columns: Vec<Column>,
}

/// A column of a [`Table`].
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as PostgreSQL spells it.
    pub data_type: String,
    /// Whether it may be empty.
    pub nullable: bool,
}

/// All countries, by code.
///
/// # Errors
/// Those of [`TenantDb::query`].
pub async fn list_countries(db: &TenantDb) -> Result<Vec<Country>, Error> {
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
/// Those of [`TenantDb::query`].
pub async fn list_timezones(db: &TenantDb) -> Result<Vec<Timezone>, Error> {
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
/// Those of [`TenantDb::query`].
pub async fn list_platforms(db: &TenantDb) -> Result<Vec<Platform>, Error> {
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

/// The tables of a tenant schema, by name; none for a schema that is not there.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn list_tables(reader: &ReaderDb, schema: SchemaName) -> Result<Vec<Table>, Error> {
    let db = reader.connection().await?;
    let rows = db
        .query_typed(
            "SELECT c.relname::text AS name,
                    CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows_estimate,
                    coalesce(pg_total_relation_size(c.oid), 0) AS bytes,
                    a.names, a.types, a.nullable
             FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL (
                 SELECT array_agg(attname::text ORDER BY attnum) AS names,
                        array_agg(format_type(atttypid, atttypmod) ORDER BY attnum) AS types,
                        array_agg(NOT attnotnull ORDER BY attnum) AS nullable
                 FROM pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
             ) a
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND a.names IS NOT NULL
             ORDER BY c.relname",
            &[(&schema.to_string(), Type::TEXT)],
        )
        .await
        .doing("describe a tenant's tables")?;
    let read = |row: &Row| -> Result<Table, tokio_postgres::Error> {
        let names: Vec<String> = row.try_get("names")?;
        let types: Vec<String> = row.try_get("types")?;
        let nullable: Vec<bool> = row.try_get("nullable")?;
        let columns = names.into_iter().zip(types).zip(nullable);
        Ok(Table {
            name: row.try_get("name")?,
            rows_estimate: row.try_get("rows_estimate")?,
            bytes: row.try_get("bytes")?,
            columns: columns
                .map(|((name, data_type), nullable)| Column { name, data_type, nullable })
                .collect(),
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().doing("read the description of a table")
}
