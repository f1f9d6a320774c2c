//! Making the earlier schema beside the tenant's own: its tables, then its rows straight from the copy, then
//! indexes, keys and triggers, all in one transaction.
//!
//! Whatever is made there belongs to the owner and has the rights that provisioning gives, from its first
//! moment. Refuses to keep what is not row for row what was read.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, TryStreamExt as _};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::copy::Earlier;
use super::{BringBackError, keep, swap};
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::{CopyName, TenantId};
use crate::lifecycle::TransferProgress;
use crate::lifecycle::create::bare_schema;
use crate::lifecycle::purge::take_alone;

/// What `pg_dump` says of the schema: what goes before the rows, and what after.
#[derive(Debug, Clone)]
pub struct SchemaText {
    /// Types, functions, tables, views, sequences.
    pub before: String,
    /// Indexes, keys, triggers, materialized views.
    pub after: String,
}

/// An earlier state that was loaded and that nobody uses yet. It holds the tenant's lock: dropped, what was
/// loaded is nobody's, and whoever looks next drops it.
#[derive(Debug)]
pub struct Loaded {
    pub(super) client: Client,
    pub(super) earlier: Earlier,
    /// How many rows.
    pub rows: u64,
}

/// How long the swap's own wait for a lock may be; the load has none to wait for.
const LOCK_TIMEOUT: &str = "10s";

/// Rows come one by one, and go on together.
const BATCH_BYTES: usize = 64 * 1024;

/// As `pg_dump` would set them, and for the rows one way of writing on both sides.
const SETTINGS: &str = "
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL standard_conforming_strings = on; SET LOCAL client_encoding = 'UTF8';
    SET LOCAL check_function_bodies = off; SET LOCAL xmloption = content; SET LOCAL row_security = off;
    SET LOCAL client_min_messages = warning; SET LOCAL search_path TO '';
    SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC';
    SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'";

/// Loads the earlier state beside the tenant's schema. Calls `progress` as rows arrive.
///
/// Dropped or killed, it has left nothing, or something that the next one drops.
///
/// # Errors
/// [`Error::Busy`] if somebody else is at the tenant's schemas; [`BringBackError::Differs`];
/// [`Error::Database`] with what the server says, for instance that a shared row is gone that a key needs.
pub async fn load_earlier(
    admin: &AdminDb,
    earlier: Earlier,
    text: &SchemaText,
    mut progress: impl FnMut(&TransferProgress<'_>) + Send,
) -> Result<Loaded, Error> {
    let mut client = take_alone(admin, earlier.tenant).await?;
    let name = CopyName::Restoring(earlier.tenant);
    keep::drop_copy(&mut client, admin, name).await?;
    let mut source = earlier.copy.connection().await?;
    let from: &mut Client = &mut source;
    let from = from.build_transaction().read_only(true).start().await.doing("read the copy")?;
    prepare(&from, &earlier.copy.roles.owner()).await?;
    let tx = client.transaction().await.doing("begin a transaction")?;
    prepare(&tx, &admin.roles.owner()).await?;
    let role = earlier.tenant.schema().to_string();
    let making =
        bare_schema(&name.to_string(), &role) + &statements(&text.before, &name.to_string());
    tx.batch_execute(&making).await.doing("make the earlier tables")?;
    let rows = copy_rows(&from, &tx, earlier.tenant, name, &mut progress).await?;
    set_sequences(&from, &tx, name).await?;
    tx.batch_execute(&statements(&text.after, &name.to_string()))
        .await
        .doing("make the earlier indexes and keys")?;
    analyze(&tx, name).await?;
    require_usable(&tx, earlier.tenant, name).await?;
    tx.commit().await.doing("commit the earlier state")?;
    drop(from);
    drop(source);
    Ok(Loaded { client, earlier, rows })
}

async fn prepare(tx: &Transaction<'_>, owner: &str) -> Result<(), Error> {
    let text =
        format!("SET LOCAL ROLE {owner}; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {SETTINGS}");
    tx.batch_execute(&text).await.doing("prepare for the earlier state")
}

/// The statements of a dump without what it sets for a session, what is meant for `psql`, and the schema.
fn statements(dump: &str, schema: &str) -> String {
    let creation = format!("CREATE SCHEMA {schema};");
    let mut in_head = true;
    let mut kept = String::with_capacity(dump.len());
    let last = dump.trim_end().rfind('\n').map_or(0, |at| at + 1);
    let mut at = 0;
    for line in dump.split_inclusive('\n') {
        let (from, text) = (at, line.trim_end());
        at += line.len();
        in_head &= !text.starts_with("-- Name: ");
        let of_session = text.starts_with("SET ")
            || text.starts_with("SELECT pg_catalog.set_config(")
            || text.starts_with("\\restrict ");
        let is_end = from == last && text.starts_with("\\unrestrict ");
        if !(in_head && of_session || is_end || text == creation) {
            kept.push_str(line);
        }
    }
    kept
}

/// The rows of all tables, partitions each for itself. Yields how many.
async fn copy_rows(
    from: &Transaction<'_>,
    to: &Transaction<'_>,
    tenant: TenantId,
    name: CopyName,
    progress: &mut (dyn FnMut(&TransferProgress<'_>) + Send),
) -> Result<u64, Error> {
    let tables = from
        .query_typed(
            "SELECT c.relname::text, format('%I.%I', n.nspname, c.relname),
                    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY c.oid",
            &[(&name.to_string(), Type::TEXT)],
        )
        .await
        .doing("list the earlier tables")?;
    let (mut bytes, mut all) = (0, 0);
    for (at, table) in tables.iter().enumerate() {
        let (shown, quoted, columns): (&str, &str, Option<&str>) =
            (table.get(0), table.get(1), table.get(2));
        let Some(columns) = columns else { continue };
        let mut say = |bytes| {
            progress(&TransferProgress {
                table: shown,
                tables_done: at,
                tables: tables.len(),
                bytes,
            });
        };
        say(bytes);
        // Not as `COPY table TO`: of partitions and inherited tables only their own rows.
        let read = format!("COPY (SELECT {columns} FROM ONLY {quoted}) TO STDOUT");
        let written = format!("COPY {quoted} ({columns}) FROM STDIN");
        let pieces = from.copy_out(&read).await.doing("read an earlier table")?;
        let sink = to.copy_in::<_, Bytes>(&written).await.doing("load an earlier table")?;
        let (mut pieces, mut sink) = (std::pin::pin!(pieces), std::pin::pin!(sink));
        let mut read_rows = 0_u64;
        let mut batch = BytesMut::with_capacity(BATCH_BYTES * 2);
        loop {
            let piece = pieces.try_next().await.doing("read an earlier table")?;
            let is_last = piece.is_none();
            // In the text format a line break is a row's end, and nothing else.
            if let Some(piece) = piece {
                read_rows += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
                batch.extend_from_slice(&piece);
            }
            if !is_last && batch.len() < BATCH_BYTES {
                continue;
            }
            bytes += batch.len() as u64;
            // The server has refused a row: it says which at the end.
            if sink.send(batch.split().freeze()).await.is_err() || is_last {
                break;
            }
            say(bytes);
        }
        let rows = sink.finish().await.doing("load an earlier table")?;
        if rows != read_rows {
            let what = format!("{rows} rows of `{shown}` arrived, and {read_rows} were read");
            return Err(BringBackError::Differs { tenant, what }.into());
        }
        all += rows;
    }
    Ok(all)
}

async fn set_sequences(
    from: &Transaction<'_>,
    to: &Transaction<'_>,
    name: CopyName,
) -> Result<(), Error> {
    for (quoted, _) in swap::sequences(from, &name.to_string()).await? {
        let row = from
            .query_typed_one(&format!("SELECT last_value, is_called FROM {quoted}"), &[])
            .await
            .doing("read a sequence")?;
        let (last, called): (i64, bool) = (row.get(0), row.get(1));
        to.query_typed(
            "SELECT setval($1::text::regclass, $2, $3)",
            &[(&quoted, Type::TEXT), (&last, Type::INT8), (&called, Type::BOOL)],
        )
        .await
        .doing("set a sequence")?;
    }
    Ok(())
}

/// So that the first queries after the swap are planned with open eyes.
async fn analyze(tx: &Transaction<'_>, name: CopyName) -> Result<(), Error> {
    let tables = tx
        .query_typed_one(
            "SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ') FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'm')",
            &[(&name.to_string(), Type::TEXT)],
        )
        .await
        .doing("list the loaded tables")?;
    match tables.get::<_, Option<&str>>(0) {
        Some(tables) => {
            tx.batch_execute(&format!("ANALYZE {tables}")).await.doing("analyse the loaded tables")
        }
        None => Ok(()),
    }
}

/// The tenant's role can write to every table there, and to those that come later.
async fn require_usable(
    tx: &impl GenericClient,
    tenant: TenantId,
    name: CopyName,
) -> Result<(), Error> {
    let closed = tx
        .query_typed(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
               AND NOT (has_table_privilege($2, c.oid, 'SELECT') AND has_table_privilege($2, c.oid, 'INSERT')
                        AND has_table_privilege($2, c.oid, 'UPDATE') AND has_table_privilege($2, c.oid, 'DELETE'))
             UNION ALL
             SELECT 'tables to come' WHERE NOT EXISTS (
                 SELECT FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace,
                      LATERAL aclexplode(d.defaclacl) a
                 WHERE n.nspname = $1 AND d.defaclobjtype = 'r' AND a.privilege_type = 'INSERT'
                   AND a.grantee = $2::text::regrole)
             LIMIT 5",
            &[(&name.to_string(), Type::TEXT), (&tenant.schema().to_string(), Type::TEXT)],
        )
        .await
        .doing("look whether the tenant could write")?;
    if closed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = closed.iter().map(|row| row.get(0)).collect();
    let what = format!("it could not write to {}", names.join(", "));
    Err(BringBackError::Differs { tenant, what }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_dump_only_what_makes_the_objects_is_left() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n\nSET statement_timeout = 0;\n\
            SELECT pg_catalog.set_config('search_path', '', false);\nSET row_security = off;\n\n--\n\
            -- Name: s; Type: SCHEMA; Schema: -; Owner: -\n--\n\nCREATE SCHEMA s;\n\nSET default_tablespace = '';\n\n\
            CREATE FUNCTION s.f() RETURNS void LANGUAGE sql AS $$\nSET x = 1;\n\\unrestrict x\n$$;\n\n\\unrestrict x\n\n";
        let kept = statements(dump, "s");
        for gone in ["restrict x\n\nSET", "set_config", "row_security", "CREATE SCHEMA"] {
            assert!(!kept.contains(gone), "{gone} in {kept}");
        }
        assert!(kept.contains("SET default_tablespace") && kept.contains("SET x = 1;"), "{kept}");
        assert!(kept.contains("$$\nSET x = 1;\n\\unrestrict x\n$$;"), "{kept}");
        assert!(kept.trim_end().ends_with("$$;"), "{kept}");
    }
}
