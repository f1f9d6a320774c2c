//! A schema's fingerprint: everything the catalog says of it, with the tenant's own names taken out,
//! so that two tenants at one version have the same.
//!
//! Not part of it, because it does not belong to a schema: event triggers, publications, and what the
//! tenant's role has elsewhere, which `doctor` looks at.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::direct::{ReaderDb, begin};
use crate::error::{Doing, Error};
use crate::ids::SchemaName;

/// What the catalog says of a schema, one line for each object, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    lines: Vec<String>,
}

impl Fingerprint {
    fn new(mut lines: Vec<String>) -> Self {
        lines.sort_unstable();
        Self { lines }
    }

    /// The lines, each with its kind and name first: `index users.by_hand: …`.
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

    /// As [`difference`](Self::difference), without regard to the order of columns: one that was dropped
    /// and comes back stands last, and no statement of ours minds.
    pub(super) fn difference_in_kind(&self, other: &Self) -> Vec<String> {
        self.unnumbered().difference(&other.unnumbered())
    }

    fn unnumbered(&self) -> Self {
        let bare = |line: &String| match line.split_once(": #") {
            Some((column, rest)) if line.starts_with("column ") => {
                let rest = rest.split_once(", ").map_or("", |(_, rest)| rest);
                format!("{column}: {rest}")
            }
            _ => line.clone(),
        };
        Self::new(self.lines.iter().map(bare).collect())
    }

    /// This one without some lines.
    pub(super) fn without(&self, unwanted: impl Fn(&str) -> bool) -> Self {
        Self { lines: self.lines.iter().filter(|line| !unwanted(line)).cloned().collect() }
    }

    /// SHA-256 of the lines, as the server computes it in [`digests`].
    pub(super) fn digest(&self) -> Vec<u8> {
        Sha256::digest(self.lines.join("\n")).to_vec()
    }
}

impl fmt::Display for Fingerprint {
    /// SHA-256 of the lines, in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.digest()))
    }
}

/// What the catalog's words depend on, whoever asks: with an empty path it qualifies every name.
/// Compiling the statement would take longer than running it.
pub(super) const SETTLE: &str = "SET LOCAL search_path = ''; SET LOCAL TimeZone = 'UTC'; \
     SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex'; \
     SET LOCAL extra_float_digits = 1; SET LOCAL quote_all_identifiers = off; SET LOCAL jit = off";

/// Reads a tenant schema's fingerprint.
///
/// # Errors
/// [`Error::SchemaMissing`]; [`Error::Unavailable`] or [`Error::Database`].
pub async fn fingerprint(reader: &ReaderDb, schema: SchemaName) -> Result<Fingerprint, Error> {
    let mut db = reader.connection().await?;
    let tx = begin(&mut db).await?;
    tx.batch_execute(SETTLE).await.doing("set the search path")?;
    let mut found = fingerprints(&tx, &[schema.to_string()], "").await?;
    found.remove(&schema.to_string()).ok_or(Error::SchemaMissing(schema))
}

/// Reads the fingerprints of several schemas, after [`SETTLE`]. Those that do not exist are absent.
/// Rights of `stand_in`, unless it is empty, count as those of the tenant's own role.
pub(super) async fn fingerprints(
    db: &impl GenericClient,
    schemas: &[String],
    stand_in: &str,
) -> Result<HashMap<String, Fingerprint>, Error> {
    let rows = db
        .query_typed(
            include_str!("fingerprint.sql"),
            &[(&schemas, Type::TEXT_ARRAY), (&stand_in, Type::TEXT)],
        )
        .await
        .doing("read the catalog")?;
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for row in &rows {
        found.entry(row.get(0)).or_default().push(row.get(1));
    }
    Ok(found.into_iter().map(|(schema, lines)| (schema, Fingerprint::new(lines))).collect())
}

/// As [`fingerprints`], with the lines left where they are: a digest for each schema.
pub(super) async fn digests(
    db: &impl GenericClient,
    schemas: &[String],
) -> Result<HashMap<String, Vec<u8>>, Error> {
    let statement = concat!(
        "SELECT schema, pg_catalog.sha256(pg_catalog.convert_to(
                    pg_catalog.string_agg(line, E'\\n' ORDER BY line COLLATE \"C\"), 'UTF8'))
         FROM (",
        include_str!("fingerprint.sql"),
        ") AS lines GROUP BY schema"
    );
    let rows = db
        .query_typed(statement, &[(&schemas, Type::TEXT_ARRAY), (&"", Type::TEXT)])
        .await
        .doing("read the catalog")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
