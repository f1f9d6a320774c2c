//! Exporting a tenant: all of its tables in one snapshot, as one archive that is written as it is read.
//!
//! Refuses to hand out half of it: an archive without its last file is no archive. Needs the memory of a few
//! rows, however many there are. A purge that begins meanwhile goes before: the export fails then.

use std::io::Write;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use super::TransferError;
use super::manifest::{
    AppliedFile, CsvForm, ExportedColumn, ExportedTable, ExportedTenant, MANIFEST, Manifest,
    file_of,
};
use super::shape::{self, Shape, TableShape};
use super::tally::Tally;
use super::zip_out::{self, PIECE_BYTES, PIECES, Part};
use crate::config::{self, Config, OmittedColumn};
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::{TenantId, TenantRef};
use crate::models::audit::{self, Action, Actor};
use crate::models::tenants::{Status, Tenant, tenant_columns};

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
        const TRIES: usize = 5;
        let (client, connection) = admin.driven_session().await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its errors reach the client's own calls.
            let _ = connection.await;
        });
        for _ in 0..TRIES {
            let Some((row, shape)) = snapshot(&client, admin, tenant).await? else {
                continue;
            };
            let omit = if options.omit_secrets { config.export.omit.as_slice() } else { &[] };
            let manifest = describe(&client, &row, &shape, omit).await?;
            record(admin, &manifest, actor).await?;
            return Ok(Self {
                admin: admin.clone(),
                limits: config.export.clone(),
                tenant: row,
                shape,
                manifest,
                client,
                _driver: driver,
            });
        }
        Err(Error::Busy(format!("the schema of tenant `{tenant}`")))
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

/// Locks the tables, then takes the snapshot, so that it sees them as they stay. None if a migration came
/// in between.
async fn snapshot(
    client: &Client,
    admin: &AdminDb,
    tenant: TenantId,
) -> Result<Option<(Tenant, Shape)>, Error> {
    let schema = tenant.schema();
    let lock_ms = admin.limits.lock_timeout.as_millis().max(1);
    let settings = shape::settings(&admin.roles.owner(), schema, lock_ms);
    client.batch_execute(&format!("BEGIN; {settings}")).await.doing("begin a transaction")?;
    require_status(client, tenant).await?;
    let before = Shape::read(client, schema).await?;
    client.batch_execute("COMMIT").await.doing("end a transaction")?;
    let mut opening = format!("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; {settings}; ");
    if !before.tables.is_empty() {
        opening += &format!("LOCK TABLE {} IN ACCESS SHARE MODE; ", before.list(schema));
    }
    match client.batch_execute(&opening).await {
        Ok(()) => {}
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(Error::Busy(format!("the schema of tenant `{tenant}`")));
        }
        // Renamed or dropped since we looked.
        Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => return roll_back(client).await,
        Err(e) => return Err(e).doing("lock the tenant's tables"),
    }
    let row = require_status(client, tenant).await?;
    let shape = Shape::read(client, schema).await?;
    if shape == before { Ok(Some((row, shape))) } else { roll_back(client).await }
}

async fn roll_back<T>(client: &Client) -> Result<Option<T>, Error> {
    client.batch_execute("ROLLBACK").await.doing("end a transaction")?;
    Ok(None)
}

async fn require_status(db: &impl GenericClient, tenant: TenantId) -> Result<Tenant, Error> {
    let row = db
        .query_typed_opt(
            concat!(
                "SELECT ",
                tenant_columns!(),
                " FROM public.tenants WHERE id = $1 AND status <> 'ready'"
            ),
            &[(tenant.as_uuid(), Type::UUID)],
        )
        .await
        .doing("look up the tenant")?;
    let missing = || Error::TenantNotFound(TenantRef::Id(tenant));
    let row = Tenant::from_row(&row.ok_or_else(missing)?)?;
    match row.status {
        Status::Active | Status::Suspended | Status::Deleted => Ok(row),
        Status::Ready => Err(missing()),
        status @ (Status::Purging | Status::Purged) => {
            Err(Error::InvalidState { tenant, status, step: "exported" })
        }
    }
}

/// Where the tenant stands, if that forbids an export.
async fn status(db: &impl GenericClient, tenant: TenantId) -> Result<Option<Status>, Error> {
    match require_status(db, tenant).await {
        Err(Error::InvalidState { status, .. }) => Ok(Some(status)),
        other => other.map(|_| None),
    }
}

/// Everything of the manifest that is known before the rows.
async fn describe(
    db: &impl GenericClient,
    tenant: &Tenant,
    shape: &Shape,
    omit: &[OmittedColumn],
) -> Result<Manifest, Error> {
    let schema = tenant.schema().to_string();
    let now = db
        .query_typed_one(
            "SELECT now(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
                    (SELECT max(version) FROM public.migration_progress WHERE schema_name = $1)",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("look where the server stands")?;
    let exported_at: Timestamp = now.get(0);
    let applied = db
        .query_typed(
            "SELECT version, name, encode(checksum, 'hex'), encode(token_checksum, 'hex') FROM public.migrations
             WHERE schema_name = $1 ORDER BY version",
            &[(&schema, Type::TEXT)],
        )
        .await
        .doing("read the migration ledger")?;
    let migrations = applied
        .iter()
        .map(|row| AppliedFile {
            version: row.get(0),
            name: row.get(1),
            checksum: row.get(2),
            token_checksum: row.get(3),
        })
        .collect();
    let (tables, omitted) = tables(shape, omit)?;
    let (format, format_version) = Manifest::format();
    let settings = tenant.settings.as_object().cloned().unwrap_or_default();
    Ok(Manifest {
        format,
        format_version,
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        tenant: ExportedTenant {
            id: tenant.id,
            name: tenant.name.clone(),
            subdomain: tenant.subdomain.clone(),
            tier: tenant.tier.clone(),
            settings,
            created_at: tenant.created_at,
        },
        exported_at,
        snapshot_lsn: now.get(1),
        schema_version: tenant.schema_version,
        half_way_to: now.get(2),
        migrations,
        csv: CsvForm::ours(),
        omitted,
        tables,
        sequences: shape.sequences(db).await?,
    })
}

fn tables(
    shape: &Shape,
    omit: &[OmittedColumn],
) -> Result<(Vec<ExportedTable>, Vec<String>), Error> {
    let mut used = vec![false; omit.len()];
    let mut tables = Vec::new();
    for (number, table) in shape.tables.iter().enumerate() {
        let mut columns = Vec::new();
        for column in &table.columns {
            let rule = omit.iter().position(|o| o.table == table.name && o.column == column.name);
            match rule {
                Some(rule) => used[rule] = true,
                None => columns.push(ExportedColumn {
                    name: column.name.clone(),
                    r#type: column.r#type.clone(),
                }),
            }
        }
        if columns.is_empty() {
            let why = "it has no column of its own that may leave";
            return Err(TransferError::Unexportable { table: table.name.clone(), why }.into());
        }
        tables.push(ExportedTable {
            name: table.name.clone(),
            file: file_of(&table.name, number + 1),
            rows: 0,
            bytes: 0,
            sha256: String::new(),
            columns,
        });
    }
    let (found, missed): (Vec<_>, Vec<_>) = omit.iter().zip(used).partition(|(_, used)| *used);
    for (rule, _) in missed {
        tracing::warn!(%rule, "`export.omit` names a column that this tenant does not have");
    }
    Ok((tables, found.into_iter().map(|(rule, _)| rule.to_string()).collect()))
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
