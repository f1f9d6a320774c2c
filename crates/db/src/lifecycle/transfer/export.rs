//! Exporting a tenant: all of its tables in one snapshot, as one archive that is written as it is read.
//!
//! Refuses to hand out half of it: an archive without its last file is no archive. Needs the memory of a few
//! rows, however many there are. A purge that begins meanwhile goes before: the export fails then.

use std::io::Write;

use futures_util::TryStreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::TransferError;
use super::manifest::{ExportedColumn, MANIFEST, Manifest};
use super::shape::{Shape, TableShape};
use super::snapshot::{describe, snapshot, status};
use super::tally::Tally;
use super::zip_out::{self, PIECE_BYTES, PIECES, Part};
use crate::config::{self, Config};
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::Tenant;

/// An export whose snapshot is taken. Dropped, it lets go of it at once.
#[derive(Debug)]
pub struct Export {
    admin: AdminDb,
    limits: config::Export,
    tenant: Tenant,
    shape: Shape,
    manifest: Manifest,
    client: Client,
    /// Drives the connection. Ended with it, not after: a driver that is left alone reads on to the last
    /// row of a table that nobody wants any more.
    _driver: JoinSet<()>,
}

/// How an export is to be made.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// Leave out what `export.omit` names.
    pub omit_secrets: bool,
}

/// How far an export or an import came.
#[derive(Debug, Clone, Copy)]
pub struct TransferProgress<'a> {
    /// The table that is being copied.
    pub table: &'a str,
    /// Tables done before it.
    pub tables_done: usize,
    /// All tables.
    pub tables: usize,
    /// Bytes copied so far, unpacked.
    pub bytes: u64,
}

impl Export {
    /// Takes the snapshot, on a connection of its own, and enters the export in the audit log: whoever gets
    /// half of it has got half of it.
    ///
    /// Locks the tenant's tables against changes of their form, not of their rows, until the export is
    /// dropped or done.
    ///
    /// # Errors
    /// [`Error::TenantNotFound`]; [`Error::InvalidState`] once its purge has begun; [`Error::Busy`] where a
    /// migration of the tenant is under way; [`TransferError::Unexportable`].
    pub async fn open(
        admin: &AdminDb,
        config: &Config,
        tenant: TenantId,
        options: ExportOptions,
        actor: &Actor,
    ) -> Result<Self, Error> {
        let (client, connection) = admin.driven_session().await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its errors reach the client's own calls.
            let _ = connection.await;
        });
        let (row, shape) = snapshot(&client, admin, tenant).await?;
        let omit = if options.omit_secrets { config.export.omit.as_slice() } else { &[] };
        let manifest = describe(&client, &row, &shape, omit).await?;
        record(admin, &manifest, actor).await?;
        Ok(Self {
            admin: admin.clone(),
            limits: config.export.clone(),
            tenant: row,
            shape,
            manifest,
            client,
            _driver: driver,
        })
    }

    /// The tenant, as it is in the snapshot.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// What to call the archive: `acme-2026-11-24.zip`.
    pub fn file_name(&self) -> String {
        let id = self.tenant.id.to_string();
        let name = self.tenant.subdomain.as_deref().unwrap_or(&id);
        format!("{name}-{}.zip", self.manifest.exported_at.strftime("%Y-%m-%d"))
    }

    /// Writes the archive, and yields what it holds, and `out`. Calls `progress` as pieces are written.
    ///
    /// `out` is written to by a thread of its own, which may block as long as it likes: the database waits.
    /// Dropped, it ends, and what was written is no archive.
    ///
    /// # Errors
    /// [`TransferError::Output`]; [`TransferError::TimeLimit`]; [`Error::InvalidState`] if a purge began
    /// meanwhile; [`Error::Database`].
    pub async fn write<W: Write + Send + 'static>(
        mut self,
        out: W,
        mut progress: impl FnMut(&TransferProgress<'_>) + Send,
    ) -> Result<(Manifest, W), Error> {
        let (tenant, limit) = (self.tenant.id, self.limits.max_duration);
        let (send, parts) = mpsc::channel(PIECES);
        let writing = tokio::task::spawn_blocking(move || zip_out::write(out, parts));
        let work = async {
            let fed = self.feed(&send, &mut progress).await;
            // Without an end, the writer finds that it broke off.
            drop(send);
            let written = writing.await.map_err(|e| std::io::Error::other(e.to_string()));
            match (fed, written.and_then(|written| written)) {
                (Ok(()), Ok(out)) => Ok((self.manifest.clone(), out)),
                (Ok(()) | Err(Broken::Writer), Err(source)) => {
                    Err(TransferError::Output(source).into())
                }
                (Err(Broken::Writer), Ok(_)) => Err(TransferError::Output(closed()).into()),
                (Err(Broken::Database(error)), _) => Err(self.explain(error).await),
            }
        };
        match tokio::time::timeout(limit, work).await {
            Ok(written) => written,
            Err(_) => Err(TransferError::TimeLimit { tenant, limit }.into()),
        }
    }

    async fn feed(
        &mut self,
        parts: &mpsc::Sender<Part>,
        progress: &mut (dyn FnMut(&TransferProgress<'_>) + Send),
    ) -> Result<(), Broken> {
        let tables = self.manifest.tables.len();
        let mut before = 0;
        for at in 0..tables {
            let table = &self.manifest.tables[at];
            parts.send(Part::File(table.file.clone())).await?;
            let say = |bytes| TransferProgress {
                table: &table.name,
                tables_done: at,
                tables,
                bytes: before + bytes,
            };
            progress(&say(0));
            let statement = copy_out(&self.tenant, &self.shape.tables[at], &table.columns);
            let rows = self.client.copy_out(&statement).await;
            let mut rows = std::pin::pin!(rows.doing("copy a table")?);
            let (mut tally, mut piece) = (Tally::default(), Vec::with_capacity(PIECE_BYTES));
            while let Some(row) = rows.try_next().await.doing("copy a table")? {
                tally.take(&row);
                piece.extend_from_slice(&row);
                if piece.len() >= PIECE_BYTES {
                    progress(&say(tally.bytes()));
                    parts.send(Part::Bytes(std::mem::take(&mut piece))).await?;
                    piece.reserve(PIECE_BYTES);
                }
            }
            parts.send(Part::Bytes(piece)).await?;
            before += tally.bytes();
            let counted = tally.counted();
            let table = &mut self.manifest.tables[at];
            (table.rows, table.bytes) = (counted.rows, counted.bytes);
            table.sha256 = counted.sha256;
        }
        self.client.batch_execute("COMMIT").await.doing("end the snapshot")?;
        parts.send(Part::File(MANIFEST.to_owned())).await?;
        let text = serde_json::to_vec_pretty(&self.manifest).unwrap_or_default();
        parts.send(Part::Bytes(text)).await?;
        parts.send(Part::End).await?;
        Ok(())
    }

    /// A purge gives the schema another name, and then its tables are not found.
    async fn explain(&self, error: Error) -> Error {
        const GONE: [SqlState; 2] = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
        let gone = match &error {
            Error::Database { source, .. } => source.code().is_some_and(|code| GONE.contains(code)),
            _ => false,
        };
        if !gone {
            return error;
        }
        let tenant = self.tenant.id;
        let Ok(db) = self.admin.connection().await else { return error };
        match status(&**db, tenant).await {
            Ok(Some(status)) => Error::InvalidState { tenant, status, step: "exported" },
            _ => error,
        }
    }
}

enum Broken {
    Database(Error),
    /// It has ended, and knows why.
    Writer,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<mpsc::error::SendError<Part>> for Broken {
    fn from(_: mpsc::error::SendError<Part>) -> Self {
        Self::Writer
    }
}

fn closed() -> std::io::Error {
    std::io::ErrorKind::BrokenPipe.into()
}

async fn record(admin: &AdminDb, manifest: &Manifest, actor: &Actor) -> Result<(), Error> {
    let details = json!({
        "schema_version": manifest.schema_version,
        "tables": manifest.tables.len(),
        "omitted": manifest.omitted,
    });
    let db = admin.connection().await?;
    audit::record(&**db, actor, Action::Exported, manifest.tenant.id, &details).await
}

/// Named columns, in the manifest's order. A partitioned table has no rows of its own to be copied.
fn copy_out(tenant: &Tenant, table: &TableShape, columns: &[ExportedColumn]) -> String {
    let exported = |name: &str| columns.iter().any(|column| column.name == name);
    let columns: Vec<&str> = table
        .columns
        .iter()
        .filter(|column| exported(&column.name))
        .map(|column| column.quoted.as_str())
        .collect();
    let (columns, schema, table_name) = (columns.join(", "), tenant.schema(), &table.quoted);
    let source = match table.partitioned {
        true => format!("(SELECT {columns} FROM {schema}.{table_name})"),
        false => format!("{schema}.{table_name} ({columns})"),
    };
    format!("COPY {source} TO STDOUT (FORMAT csv, HEADER)")
}
