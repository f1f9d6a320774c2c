//! Recomputing everything: seals, anchored heads, the erasure ledger.
//!
//! One snapshot of the database, as the reader, while others write. It changes nothing, and goes on after
//! a finding. The file of heads is read before the snapshot, since it must not be newer than that, and
//! again after it, since it must not be older than what the database knows.

mod chain;
mod finding;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, IsolationLevel, RowStream, Transaction};

use self::chain::{Link, Walk};
use self::finding::Findings;
use super::anchor::{Anchor, AnchoredHead};
use super::error::AuditError;
use super::link::entry_columns;
use crate::chained_file::Chain;
use crate::config::Config;
use crate::direct::ReaderDb;
use crate::error::{Doing, Error};
use crate::lifecycle::{ErasureError, ErasureLedger};
use crate::migrate::{Migrations, require_public_head};

pub use finding::{Finding, FindingKind, Head};

/// What verifying found.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// Whether all is as it was sealed.
    pub intact: bool,
    /// The moment that it speaks of, by the server's clock.
    pub verified_at: Timestamp,
    /// Entries that have a seal.
    pub sealed: i64,
    /// Entries that wait for theirs. Nothing protects these yet.
    pub unsealed: i64,
    /// The newest seal.
    pub head: Option<Head>,
    /// The file of anchored heads that was compared with.
    pub anchor_file: Option<PathBuf>,
    /// The newest head in it.
    pub anchored: Option<AnchoredHead>,
    /// What is wrong: the first of it, in the chain's order.
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub findings_count: u64,
    /// What was not looked at, and what is to be known.
    pub notes: Vec<String>,
}

/// Verifies the whole log. Calls `progress` with how many seals were looked at, and how many there are.
///
/// # Errors
/// [`Error::Behind`] where there are no seals yet; [`Error::Unavailable`] or [`Error::Database`]. What is
/// wrong with the log is no error.
pub async fn verify(
    reader: &ReaderDb,
    config: &Config,
    migrations: &Migrations,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verification, Error> {
    let (mut client, connection) = reader.session().await?;
    // Ends when the client is dropped. Its errors reach the client's own calls.
    tokio::spawn(connection);
    require_public_head(&client, &migrations.public).await?;
    let mut found = Findings::default();
    let mut notes = Vec::new();
    let anchor = Anchor::find(config);
    let chain = match &anchor {
        Some(anchor) => read_anchor(anchor, &mut found).await,
        None => None,
    };
    let lines = chain.map(|chain| chain.entries).unwrap_or_default();
    let anchored = lines.last().cloned();
    let heads = still_to_be_met(lines, &mut notes);
    let verified_at;
    let (sealed, head, unsealed);
    {
        let tx = snapshot(&mut client).await?;
        let row = tx
            .query_typed_one("SELECT now(), (SELECT count(*) FROM public.audit_seals)", &[])
            .await
            .doing("count the seals")?;
        verified_at = row.get(0);
        sealed = row.get(1);
        let (newest, broken) = walk(&tx, heads, sealed, &mut progress).await?;
        head = newest;
        found.take(broken);
        unsealed = look_at_unsealed(&tx, &mut found).await?;
        match &anchor {
            Some(anchor) => compare_anchor(&tx, anchor, &mut found).await?,
            None => notes.push(
                "not anchored: `erasure.ledger_dir` is not set here, so nothing outside the database \
                 was compared"
                    .to_owned(),
            ),
        }
        check_ledger(&tx, config, &mut found).await?;
        tx.commit().await.doing("end the look at the audit log")?;
    }
    look_for_a_sealer(&client, verified_at, &mut found).await?;
    if anchor.is_some() && anchored.is_none() && sealed > 0 {
        notes.push("no head was anchored yet: a running service does it".to_owned());
    }
    Ok(Verification {
        intact: found.count == 0,
        verified_at,
        sealed,
        unsealed,
        head,
        anchor_file: anchor.map(|anchor| anchor.path()),
        anchored,
        findings: found.shown,
        findings_count: found.count,
        notes,
    })
}

async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Error> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .doing("begin to look at the audit log")
}

/// What is wrong with the file is a finding; nothing is compared with it then.
async fn read_anchor(anchor: &Anchor, found: &mut Findings) -> Option<Chain<AnchoredHead>> {
    match anchor.read().await {
        Ok(chain) => Some(chain),
        Err(error) => {
            let kind = match &error {
                AuditError::AnchorDamaged { .. } => FindingKind::AnchorDamaged,
                _ => FindingKind::AnchorUnreadable,
            };
            found.add(Finding::new(kind, with_cause(&error)));
            None
        }
    }
}

/// The heads that the chain must have. After a restore to an earlier time, those are lost that were
/// anchored behind where the log went on.
fn still_to_be_met(lines: Vec<AnchoredHead>, notes: &mut Vec<String>) -> Vec<AnchoredHead> {
    let mut heads: Vec<AnchoredHead> = Vec::new();
    for line in lines {
        if line.restored {
            let before = heads.len();
            heads.retain(|head| head.position <= line.position);
            notes.push(format!(
                "the database was restored before {}: the log went on at position {}, and {} anchored \
                 heads behind that are lost (line {})",
                line.recorded_at,
                line.position,
                before - heads.len(),
                line.sequence
            ));
        }
        heads.push(line);
    }
    heads
}

async fn stream(tx: &Transaction<'_>, query: &'static str) -> Result<RowStream, Error> {
    let none = std::iter::empty::<(i64, Type)>();
    tx.query_typed_raw(query, none).await.doing("read the audit log")
}

/// Row by row: the driver takes no more from the server than is looked at.
async fn walk(
    tx: &Transaction<'_>,
    heads: Vec<AnchoredHead>,
    all: i64,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(Option<Head>, Findings), Error> {
    const TELL_EVERY: u64 = 1000;
    let mut walk = Walk::new(heads);
    let rows = stream(
        tx,
        concat!(
            "SELECT s.position, s.entry_id, s.hash, s.sealed_at, ",
            entry_columns!(),
            " FROM public.audit_seals s LEFT JOIN public.audit_log l ON l.id = s.entry_id
             ORDER BY s.position"
        ),
    )
    .await?;
    let mut rows = pin!(rows);
    let (mut done, all) = (0, u64::try_from(all).unwrap_or(0));
    while let Some(row) = rows.try_next().await.doing("read the audit log")? {
        walk.step(Link::from_row(&row).doing("read a seal of the audit log")?);
        done += 1;
        if done % TELL_EVERY == 0 {
            progress(done, all);
        }
    }
    progress(done, all);
    Ok(walk.end())
}

/// Entries without a seal: those that wait for it, and those that should have one.
async fn look_at_unsealed(tx: &Transaction<'_>, found: &mut Findings) -> Result<i64, Error> {
    let rows = stream(
        tx,
        "SELECT coalesce(l.id, u.entry_id) AS id, l.id IS NOT NULL AS there, u.entry_id IS NOT NULL AS queued
         FROM (SELECT id FROM public.audit_log l
                WHERE NOT EXISTS (SELECT FROM public.audit_seals s WHERE s.entry_id = l.id)) l
         FULL JOIN (SELECT entry_id FROM public.audit_unsealed u
                     WHERE NOT EXISTS (SELECT FROM public.audit_seals s WHERE s.entry_id = u.entry_id)) u
           ON u.entry_id = l.id
         ORDER BY 1",
    )
    .await?;
    let mut rows = pin!(rows);
    let mut waiting = 0;
    while let Some(row) = rows.try_next().await.doing("read entries without a seal")? {
        let (id, there, queued): (i64, bool, bool) = (row.get(0), row.get(1), row.get(2));
        match (there, queued) {
            (true, true) => waiting += 1,
            (true, false) => {
                let message = format!(
                    "entry {id} has no seal and waits for none: its seal was removed, or it was put in \
                     past the trigger"
                );
                found.add(Finding::new(FindingKind::SealRemoved, message).entry(id));
            }
            (false, _) => {
                let message = format!("entry {id} was deleted before it was sealed");
                found.add(Finding::new(FindingKind::UnsealedDeleted, message).entry(id));
            }
        }
    }
    Ok(waiting)
}

/// Every line that the database knows of must be in the file.
async fn compare_anchor(
    tx: &Transaction<'_>,
    anchor: &Anchor,
    found: &mut Findings,
) -> Result<(), Error> {
    // What is wrong with it was found before.
    let Some(chain) = read_anchor(anchor, &mut Findings::default()).await else { return Ok(()) };
    let known = "SELECT sequence, line_hash FROM public.audit_anchors ORDER BY sequence";
    let mut rows = pin!(stream(tx, known).await?);
    while let Some(row) = rows.try_next().await.doing("read what was anchored")? {
        let sequence: i64 = row.get(0);
        if !chain.holds(sequence, row.get(1)) {
            let error = AuditError::AnchorIncomplete { path: anchor.path(), sequence };
            found.add(Finding::new(FindingKind::AnchorIncomplete, error.to_string()));
            return Ok(());
        }
    }
    Ok(())
}

async fn check_ledger(
    tx: &Transaction<'_>,
    config: &Config,
    found: &mut Findings,
) -> Result<(), Error> {
    let Ok(ledger) = ErasureLedger::new(config) else { return Ok(()) };
    match ledger.check(tx).await {
        Ok(()) => Ok(()),
        Err(Error::Erasure(
            error @ (ErasureError::LedgerDamaged { .. }
            | ErasureError::LedgerIncomplete { .. }
            | ErasureError::Ledger { .. }),
        )) => {
            found.add(Finding::new(FindingKind::LedgerBroken, with_cause(&error)));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Whether what was written more than a minute before the snapshot is still not sealed. A transaction that
/// took long is seen with an old time, so a sealer gets its chance.
async fn look_for_a_sealer(
    client: &Client,
    verified_at: Timestamp,
    found: &mut Findings,
) -> Result<(), Error> {
    const TRIES: u32 = 30;
    const PAUSE: Duration = Duration::from_millis(100);
    let mut left: i64 = 0;
    for n in 0..TRIES {
        let row = client
            .query_typed_one(
                "SELECT count(*) FROM public.audit_unsealed u JOIN public.audit_log l ON l.id = u.entry_id
                 WHERE l.recorded_at < $1::timestamptz - interval '1 minute'
                   AND NOT EXISTS (SELECT FROM public.audit_seals s WHERE s.entry_id = u.entry_id)",
                &[(&verified_at, Type::TIMESTAMPTZ)],
            )
            .await
            .doing("look for entries without a seal")?;
        left = row.get(0);
        if left == 0 {
            return Ok(());
        }
        if n + 1 < TRIES {
            tokio::time::sleep(PAUSE).await;
        }
    }
    let message = format!(
        "{left} entries are not sealed after more than a minute: is a service running? its log says why it \
         does not seal them"
    );
    found.add(Finding::new(FindingKind::NotSealed, message));
    Ok(())
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
