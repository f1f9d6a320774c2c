//! What stands in a tenant schema, from PostgreSQL's own catalog.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::direct::ReaderDb;
use crate::error::{Doing, Error};
use crate::ids::SchemaName;

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
