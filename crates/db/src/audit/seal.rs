//! Sealing: entries that are committed get their place in the chain, one after another.
//!
//! Any number of services may try; a lock of the transaction lets one through. A batch is one transaction,
//! so a sealer that is killed leaves whole batches, and whoever comes next goes on from the head.

use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::future::{join, join3};
use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::link::{self, GENESIS, Hash, LogEntry, Micros, Place, entry_columns};
use crate::background;
use crate::direct::{AdminDb, begin};
use crate::error::{Doing, Error};
use crate::installation::Installation;

/// Entries in one transaction.
const BATCH: i64 = 1000;
/// Batches of one call: what is left is the next one's.
const MAX_BATCHES: usize = 1000;
/// How often a service looks for something to seal.
const EVERY: Duration = Duration::from_secs(1);

/// What a call did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Entries that got their seal.
    pub entries: usize,
    /// Whether somebody else is sealing at this moment.
    pub elsewhere: bool,
}

/// Seals what is committed, about once a second, until `stop` is done.
pub async fn keep_sealing(installation: Installation, stop: impl Future<Output = ()>) {
    background::repeat("seal the audit log", EVERY, stop, async || {
        let mut db = installation.admin().connection().await?;
        if is_waiting(&db).await? {
            seal_on(&mut db, installation.admin()).await?;
        }
        Ok(())
    })
    .await;
}

/// Seals all entries that are committed, up to a million. Never waits for another sealer.
///
/// Dropped at any point, it leaves whole batches.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Database`].
pub async fn seal_entries(admin: &AdminDb) -> Result<Sealed, Error> {
    let mut db = admin.connection().await?;
    seal_on(&mut db, admin).await
}

async fn seal_on(db: &mut Object, admin: &AdminDb) -> Result<Sealed, Error> {
    let mut sealed = Sealed::default();
    for _ in 0..MAX_BATCHES {
        match seal_batch(db, admin).await? {
            None => {
                sealed.elsewhere = true;
                break;
            }
            Some(0) => break,
            Some(entries) => sealed.entries += entries,
        }
    }
    Ok(sealed)
}

/// The newest seal.
pub(super) struct Newest {
    pub(super) position: i64,
    pub(super) hash: Vec<u8>,
}

/// Position 0 and zeros before the first.
pub(super) async fn newest_seal(db: &impl GenericClient) -> Result<Newest, Error> {
    let row = db
        .query_typed_opt(
            "SELECT position, hash FROM public.audit_seals ORDER BY position DESC LIMIT 1",
            &[],
        )
        .await
        .doing("look for the newest seal")?;
    Ok(match row {
        Some(row) => Newest { position: row.get(0), hash: row.get(1) },
        None => Newest { position: 0, hash: GENESIS.to_vec() },
    })
}

/// One small query for each look of an idle service.
async fn is_waiting(db: &Object) -> Result<bool, Error> {
    let row = db
        .query_typed_one("SELECT EXISTS (SELECT FROM public.audit_unsealed)", &[])
        .await
        .doing("look for entries without a seal")?;
    Ok(row.get(0))
}

/// How many got their seal; none if somebody else is at it.
async fn seal_batch(db: &mut Object, admin: &AdminDb) -> Result<Option<usize>, Error> {
    let tx = begin(db).await?;
    let key = format!("{}:audit_seal", admin.roles);
    let lock_params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[(&key, Type::TEXT)];
    let batch_params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] =
        &[(&BATCH, Type::INT8)];
    // One trip. The lock comes first, and what is looked for after it sees what its former holder
    // committed: a lock is released after its transaction can be seen.
    let (locked, head, entries) = join3(
        tx.query_typed_one(
            "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)), clock_timestamp()",
            lock_params,
        ),
        newest_seal(&tx),
        // An entry that was deleted before it was sealed stays in the queue, as a trace. One that has a
        // seal and was put in again would stop the sealer for ever.
        tx.query_typed(
            concat!(
                "SELECT ",
                entry_columns!(),
                " FROM public.audit_unsealed u JOIN public.audit_log l ON l.id = u.entry_id
                 WHERE NOT EXISTS (SELECT FROM public.audit_seals s WHERE s.entry_id = u.entry_id)
                 ORDER BY u.entry_id LIMIT $1"
            ),
            batch_params,
        ),
    )
    .await;
    let locked = locked.doing("see whether somebody seals the audit log")?;
    if !locked.get::<_, bool>(0) {
        return Ok(None);
    }
    let sealed_at: Timestamp = locked.get(1);
    let Newest { mut position, hash } = head?;
    let mut previous = hash.try_into().unwrap_or(GENESIS);
    let rows = entries.doing("read entries without a seal")?;
    if rows.is_empty() {
        return Ok(Some(0));
    }
    let mut seals = Seals::default();
    for row in &rows {
        let entry = LogEntry::from_row(row).doing("read an entry of the audit log")?;
        position += 1;
        let place = Place { previous, position, sealed_at: Micros::of(sealed_at) };
        previous = link::seal(place, &entry);
        seals.push(position, entry.id, previous);
    }
    seals.store(&tx, sealed_at).await?;
    tx.commit().await.doing("commit the seals")?;
    tracing::debug!(entries = rows.len(), head = position, "audit log sealed");
    Ok(Some(rows.len()))
}

#[derive(Default)]
struct Seals {
    positions: Vec<i64>,
    entries: Vec<i64>,
    hashes: Vec<Vec<u8>>,
}

impl Seals {
    fn push(&mut self, position: i64, entry: i64, hash: Hash) {
        self.positions.push(position);
        self.entries.push(entry);
        self.hashes.push(hash.to_vec());
    }

    async fn store(
        &self,
        tx: &tokio_postgres::Transaction<'_>,
        sealed_at: Timestamp,
    ) -> Result<(), Error> {
        let insert_params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[
            (&self.positions, Type::INT8_ARRAY),
            (&self.entries, Type::INT8_ARRAY),
            (&self.hashes, Type::BYTEA_ARRAY),
            (&sealed_at, Type::TIMESTAMPTZ),
        ];
        let delete_params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] =
            &[(&self.entries, Type::INT8_ARRAY)];
        let (stored, taken) = join(
            tx.execute_typed(
                "INSERT INTO public.audit_seals (position, entry_id, hash, sealed_at)
                 SELECT position, entry_id, hash, $4
                 FROM unnest($1, $2, $3) AS seal (position, entry_id, hash)",
                insert_params,
            ),
            tx.execute_typed(
                "DELETE FROM public.audit_unsealed WHERE entry_id = ANY ($1)",
                delete_params,
            ),
        )
        .await;
        stored.doing("seal entries of the audit log")?;
        taken.doing("take sealed entries from the queue")?;
        Ok(())
    }
}
