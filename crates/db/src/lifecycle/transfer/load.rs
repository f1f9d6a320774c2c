//! Loading an archive's rows into a schema that was built a moment ago and that nobody sees yet.
//!
//! Each file is counted and hashed on its way into the server, and compared with the manifest when it is
//! through. Refuses to keep a foreign key that does not hold.

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::manifest::{ExportedTable, Manifest};
use super::shape::{Shape, TableShape};
use super::tally::Tally;
use super::{Archive, TransferError, TransferProgress};
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// What is loaded, and where.
pub(super) struct Loading<'a> {
    pub(super) tx: &'a Transaction<'a>,
    pub(super) tenant: TenantId,
    pub(super) manifest: &'a Manifest,
    pub(super) shape: &'a Shape,
}

/// Loads all of it. The transaction acts as the owner, with the settings of `shape`.
pub(super) async fn load(
    loading: &Loading<'_>,
    mut archive: Archive,
    progress: &mut (dyn FnMut(&TransferProgress<'_>) + Send),
) -> Result<(), Error> {
    let (tx, schema) = (loading.tx, loading.tenant.schema());
    let put_back = put_aside(loading).await?;
    if !loading.shape.tables.is_empty() {
        // What the migrations put there, the archive has too, as it has become since.
        let empty = format!("TRUNCATE {}", loading.shape.list(schema));
        tx.batch_execute(&empty).await.doing("empty the new tables")?;
    }
    let mut before = 0;
    for (at, table) in loading.manifest.tables.iter().enumerate() {
        let Some(here) = loading.shape.tables.iter().find(|here| here.name == table.name) else {
            continue;
        };
        let mut say = |bytes| {
            progress(&TransferProgress {
                table: &table.name,
                tables_done: at,
                tables: loading.manifest.tables.len(),
                bytes: before + bytes,
            });
        };
        say(0);
        loading.rewrite_ids(here, at).await?;
        archive = loading.copy_in(here, table, archive, &mut say).await?;
        loading.stop_rewriting(here, at).await?;
        before += table.bytes;
    }
    tx.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(broken_rule)?;
    loading.set_sequences().await?;
    if !loading.shape.tables.is_empty() {
        // Without it, checking the keys would be planned blindly.
        let analyze = format!("ANALYZE {}", loading.shape.list(schema));
        tx.batch_execute(&analyze).await.doing("analyse the new tables")?;
    }
    for statement in put_back {
        tx.batch_execute(&statement).await.map_err(broken_rule)?;
    }
    loading.refresh_views().await
}

/// Yields the statements that put it back.
async fn put_aside(loading: &Loading<'_>) -> Result<Vec<String>, Error> {
    let schema = loading.tenant.schema().to_string();
    let rows = loading
        .tx
        .query_typed(include_str!("aside.sql"), &[(&schema, Type::TEXT)])
        .await
        .doing("look for keys and triggers")?;
    for row in &rows {
        loading.tx.batch_execute(row.get(0)).await.doing("put keys and triggers aside")?;
    }
    Ok(rows.iter().map(|row| row.get(1)).collect())
}

impl Loading<'_> {
    /// Puts the new tenant's id where the rows have the old one.
    async fn rewrite_ids(&self, table: &TableShape, number: usize) -> Result<(), Error> {
        let (old, new, schema) = (self.manifest.tenant.id, self.tenant, self.tenant.schema());
        let rewrites: Vec<String> = table
            .columns
            .iter()
            .filter(|column| column.own_id)
            .map(|column| {
                let column = &column.quoted;
                format!("IF NEW.{column} = '{old}' THEN NEW.{column} := '{new}'; END IF;")
            })
            .collect();
        if rewrites.is_empty() {
            return Ok(());
        }
        let (name, body, table) = (rewriter(number), rewrites.join(" "), &table.quoted);
        let statement = format!(
            "CREATE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql
                 AS $import$ BEGIN {body} RETURN NEW; END $import$;
             CREATE TRIGGER {name} BEFORE INSERT ON {schema}.{table}
                 FOR EACH ROW EXECUTE FUNCTION {schema}.{name}()"
        );
        self.tx.batch_execute(&statement).await.doing("prepare a table for the new id")
    }

    async fn stop_rewriting(&self, table: &TableShape, number: usize) -> Result<(), Error> {
        if !table.columns.iter().any(|column| column.own_id) {
            return Ok(());
        }
        let (schema, name, table) = (self.tenant.schema(), rewriter(number), &table.quoted);
        let statement =
            format!("DROP TRIGGER {name} ON {schema}.{table}; DROP FUNCTION {schema}.{name}()");
        self.tx.batch_execute(&statement).await.doing("finish a table")
    }

    /// Hands the file to the server and compares it with the manifest. Yields the archive back.
    async fn copy_in(
        &self,
        here: &TableShape,
        table: &ExportedTable,
        archive: Archive,
        say: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Archive, Error> {
        let columns = table.columns.iter().filter_map(|column| {
            here.columns.iter().find(|known| known.name == column.name).map(|known| &known.quoted)
        });
        let columns: Vec<&str> = columns.map(String::as_str).collect();
        let statement = format!(
            "COPY {}.{} ({}) FROM STDIN (FORMAT csv, HEADER MATCH)",
            self.tenant.schema(),
            here.quoted,
            columns.join(", ")
        );
        let sink = self.tx.copy_in::<_, Bytes>(&statement).await.doing("load a table")?;
        let mut sink = std::pin::pin!(sink);
        let mut unpacking = archive.unpack(table);
        let mut tally = Tally::default();
        let mut refused = false;
        while let Some(piece) = unpacking.pieces.recv().await {
            tally.take(&piece);
            // More than the manifest says: what it is does not matter any more.
            if tally.bytes() > table.bytes {
                break;
            }
            say(tally.bytes());
            // The server has refused a row: it says which at the end.
            if sink.send(Bytes::from(piece)).await.is_err() {
                refused = true;
                break;
            }
        }
        drop(unpacking.pieces);
        let damaged = |what: String| TransferError::damaged(&table.file, what);
        let unpacked = unpacking.done.await;
        let (archive, unpacked) = unpacked.map_err(|e| damaged(e.to_string()))?;
        unpacked?;
        let counted = tally.counted();
        let same = (counted.bytes, counted.rows, &counted.sha256)
            == (table.bytes, table.rows, &table.sha256);
        if !refused && !same {
            return Err(damaged(
                "it is not what the manifest says (size, rows or SHA-256)".to_owned(),
            )
            .into());
        }
        let rows = sink.finish().await.map_err(|e| of_rows(&table.file, e))?;
        if rows != table.rows {
            return Err(damaged(format!("{rows} rows arrived of {}", table.rows)).into());
        }
        Ok(archive)
    }

    async fn set_sequences(&self) -> Result<(), Error> {
        for sequence in &self.manifest.sequences {
            let Some(quoted) = self.shape.sequence(&sequence.name) else { continue };
            let statement = format!(
                "SELECT setval('{}.{}', $1, $2)",
                self.tenant.schema(),
                quoted.replace('\'', "''")
            );
            let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
                [(&sequence.last_value, Type::INT8), (&sequence.is_called, Type::BOOL)];
            self.tx.query_typed(&statement, &params).await.map_err(broken_rule)?;
        }
        Ok(())
    }

    /// Materialized views hold what there was before the rows: nothing.
    async fn refresh_views(&self) -> Result<(), Error> {
        let schema = self.tenant.schema().to_string();
        let rows = self
            .tx
            .query_typed(
                "SELECT format('REFRESH MATERIALIZED VIEW %I.%I', n.nspname, c.relname)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relkind = 'm' AND c.relispopulated ORDER BY c.oid",
                &[(&schema, Type::TEXT)],
            )
            .await
            .doing("look for materialized views")?;
        for row in rows {
            self.tx.batch_execute(row.get(0)).await.doing("refresh a materialized view")?;
        }
        Ok(())
    }
}

fn rewriter(number: usize) -> String {
    format!("tenantry_import_{number}")
}

/// What the server says of rows: a value that is none of its type, or a rule that does not hold. The line
/// that it names stands in DETAIL and CONTEXT, which repeat values.
fn of_rows(file: &str, source: tokio_postgres::Error) -> Error {
    match source.code().map(|code| code.code()) {
        // Data exceptions, and a heading or a number of fields that is not as it must be.
        Some(code) if code.starts_with("22") => {
            let said = source.as_db_error().map_or_else(String::new, |e| e.message().to_owned());
            TransferError::damaged(file, crate::ids::excerpt(&said)).into()
        }
        _ => broken_rule(source),
    }
}

fn broken_rule(source: tokio_postgres::Error) -> Error {
    let of_rule = source.code().is_some_and(|code| {
        code.code().starts_with("23") || *code == SqlState::NUMERIC_VALUE_OUT_OF_RANGE
    });
    match (of_rule, source.as_db_error()) {
        (true, Some(said)) => TransferError::Rule(said.message().to_owned()).into(),
        _ => Error::Database { doing: "load the archive".to_owned(), source },
    }
}
