//! A schema's fingerprint: everything the catalog says of it, with the tenant's own names taken out,
//! so that two tenants at one version have the same.

use std::fmt;

use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;

use crate::direct::{ReaderDb, begin};
use crate::error::{Doing, Error};
use crate::ids::SchemaName;

/// What the catalog says of a schema, one line for each object, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    lines: Vec<String>,
}

impl Fingerprint {
    /// The lines: relations, columns with defaults, constraints, indexes, functions, triggers,
    /// sequences, owners and rights.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What stands in one of two fingerprints only: `-` for this one, `+` for the other.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let only = |a: &Self, b: &Self, sign: &str| -> Vec<String> {
            a.lines
                .iter()
                .filter(|l| b.lines.binary_search(l).is_err())
                .map(|l| format!("{sign} {l}"))
                .collect()
        };
        let mut difference = only(self, other, "-");
        difference.extend(only(other, self, "+"));
        difference
    }
}

impl fmt::Display for Fingerprint {
    /// SHA-256 of the lines, in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hash = Sha256::new();
        for line in &self.lines {
            hash.update(line);
            hash.update("\n");
        }
        f.write_str(&data_encoding::HEXLOWER.encode(&hash.finalize()))
    }
}

/// Reads a tenant schema's fingerprint.
///
/// # Errors
/// [`Error::SchemaMissing`]; [`Error::Unavailable`] or [`Error::Database`].
pub async fn fingerprint(reader: &ReaderDb, schema: SchemaName) -> Result<Fingerprint, Error> {
    let mut db = reader.connection().await?;
    let tx = begin(&mut db).await?;
    // With an empty path the catalog qualifies every name, whoever asks.
    tx.batch_execute("SET LOCAL search_path = ''").await.doing("set the search path")?;
    let name = schema.to_string();
    let rows = tx
        .query_typed(include_str!("fingerprint.sql"), &[(&name, Type::TEXT)])
        .await
        .doing(format!("read the catalog of `{schema}`"))?;
    if rows.is_empty() {
        return Err(Error::SchemaMissing(schema));
    }
    let id = schema.tenant().to_string();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| row.get::<_, String>(0).replace(&name, "{schema}").replace(&id, "{tenant}"))
        .collect();
    lines.sort_unstable();
    Ok(Fingerprint { lines })
}
