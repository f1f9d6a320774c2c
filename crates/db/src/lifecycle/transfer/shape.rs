//! What a tenant's schema consists of, as far as an archive holds it: tables with their columns, and
//! sequences. Names come from the catalog, quoted there.

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::TransferError;
use super::manifest::ExportedSequence;
use crate::error::{Doing, Error};
use crate::ids::{SchemaName, TenantId};

/// How values are written and read, on both sides: the text of a value depends on these.
pub(super) fn settings(owner: &str, schema: SchemaName, lock_timeout_ms: u128) -> String {
    format!(
        "SET LOCAL ROLE {owner}; SET LOCAL search_path TO {schema}, public, pg_temp;
         SET LOCAL lock_timeout = {lock_timeout_ms}; SET LOCAL statement_timeout = 0;
         SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL row_security = off;
         SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'iso_8601';
         SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1; SET LOCAL lc_monetary = 'C';
         SET LOCAL xmloption = 'content'; SET LOCAL standard_conforming_strings = on"
    )
}

/// Refuses a tenant with a table that isn't ours: it can be neither locked nor read as the owner of the others.
pub(in crate::lifecycle) async fn require_own_tables(
    db: &impl GenericClient,
    tenant: TenantId,
    owner: &str,
) -> Result<(), Error> {
    let foreign = db
        .query_typed_opt(
            "SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND pg_get_userbyid(c.relowner) <> $2
              ORDER BY 1 LIMIT 1",
            &[(&tenant.schema().to_string(), Type::TEXT), (&owner, Type::TEXT)],
        )
        .await
        .doing("look whose the tenant's tables are")?;
    foreign.map_or(Ok(()), |row| {
        let (table, owner) = (row.get(0), row.get(1));
        Err(TransferError::ForeignOwner { tenant, table, owner }.into())
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) tables: Vec<TableShape>,
    /// By name, and quoted.
    sequences: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableShape {
    pub(super) name: String,
    /// As SQL names it, without its schema.
    pub(super) quoted: String,
    pub(super) partitioned: bool,
    pub(super) columns: Vec<ColumnShape>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnShape {
    pub(super) name: String,
    pub(super) quoted: String,
    pub(super) r#type: String,
    /// Whether a row can be made without it.
    pub(super) optional: bool,
    /// Whether it holds the tenant's own id.
    pub(super) own_id: bool,
}

impl Shape {
    /// Reads it, with [`settings`] in effect.
    pub(super) async fn read(db: &impl GenericClient, schema: SchemaName) -> Result<Self, Error> {
        let rows = db
            .query_typed(include_str!("shape.sql"), &[(&schema.to_string(), Type::TEXT)])
            .await
            .doing("look at the tenant's tables")?;
        let mut shape = Self { tables: Vec::new(), sequences: Vec::new() };
        for row in &rows {
            let (name, kind): (String, &str) = (row.get(0), row.get(1));
            match kind {
                "S" => shape.sequences.push((name, row.get(2))),
                "f" => {
                    let why = "it is a foreign table: its rows are elsewhere";
                    return Err(TransferError::Unexportable { table: name, why }.into());
                }
                kind => shape.tables.push(table(row, name, kind == "p")),
            }
        }
        Ok(shape)
    }

    /// Where the sequences stand.
    pub(super) async fn sequences(
        &self,
        db: &impl GenericClient,
    ) -> Result<Vec<ExportedSequence>, Error> {
        let mut found = Vec::new();
        for (name, quoted) in &self.sequences {
            let row = db
                .query_typed_one(&format!("SELECT last_value, is_called FROM {quoted}"), &[])
                .await
                .doing("read a sequence")?;
            let (last_value, is_called) = (row.get(0), row.get(1));
            found.push(ExportedSequence { name: name.clone(), last_value, is_called });
        }
        Ok(found)
    }

    /// A sequence's quoted name.
    pub(super) fn sequence(&self, name: &str) -> Option<&str> {
        self.sequences.iter().find(|(known, _)| known == name).map(|(_, quoted)| quoted.as_str())
    }

    pub(super) fn sequence_names(&self) -> impl Iterator<Item = &str> {
        self.sequences.iter().map(|(name, _)| name.as_str())
    }

    /// The first thing that it has and the other one has not.
    pub(super) fn beyond(&self, other: &Self) -> Option<String> {
        let tables = self.tables.iter().find_map(|table| {
            let Some(known) = other.tables.iter().find(|known| known.name == table.name) else {
                return Some(format!("table `{}`", table.name));
            };
            let is_known = |name: &str| known.columns.iter().any(|column| column.name == name);
            let column = table.columns.iter().find(|column| !is_known(&column.name));
            column.map(|column| format!("column `{}.{}`", table.name, column.name))
        });
        let mut sequences = self.sequence_names();
        tables.or_else(|| {
            let name = sequences.find(|name| other.sequence(name).is_none());
            name.map(|name| format!("sequence `{name}`"))
        })
    }

    /// The tables' quoted names, after one another.
    pub(super) fn list(&self, schema: SchemaName) -> String {
        let names: Vec<String> =
            self.tables.iter().map(|table| format!("{schema}.{}", table.quoted)).collect();
        names.join(", ")
    }
}

fn table(row: &Row, name: String, partitioned: bool) -> TableShape {
    let [names, quoted, types] = [3, 4, 5].map(|at| row.get::<_, Vec<String>>(at));
    let [optional, own_id] = [6, 7].map(|at| row.get::<_, Vec<bool>>(at));
    let columns = names.into_iter().zip(quoted).zip(types).zip(optional).zip(own_id);
    let columns = columns
        .map(|((((name, quoted), r#type), optional), own_id)| ColumnShape {
            name,
            quoted,
            r#type,
            optional,
            own_id,
        })
        .collect();
    TableShape { name, quoted: row.get(2), partitioned, columns }
}
