//! The anchor: heads of the chain in `audit-heads.jsonl`, a chained file outside the database.
//!
//! Whoever can rewrite the whole database can also seal it anew; what they can't change is what this file
//! said before. It lies beside the erasure ledger. Refuses to anchor a log that no longer has the head
//! which was anchored last.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::error::AuditError;
use super::seal::{newest_seal, seal_entries};
use crate::background;
use crate::chained_file::{Chain, ChainedEntry, ChainedFile, Recorded};
use crate::config::Config;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::installation::Installation;

/// The file of an installation.
#[derive(Debug, Clone)]
pub struct Anchor {
    file: ChainedFile,
}

/// One line: a head of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchoredHead {
    /// The line's number, from 1.
    pub sequence: i64,
    /// When it was written, by the clock of whoever did.
    pub recorded_at: Timestamp,
    /// The newest seal of that time; 0 if there was none.
    pub position: i64,
    /// Its hash, in hex.
    pub hash: String,
    /// The database was restored to an earlier time: seals behind this one that earlier lines name are
    /// gone with what was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// SHA-256 of the line before, in hex; zeros for the first.
    pub previous: String,
}

impl ChainedEntry for AnchoredHead {
    fn sequence(&self) -> i64 {
        self.sequence
    }

    fn previous(&self) -> &str {
        &self.previous
    }
}

impl Anchor {
    const FILE: &str = "audit-heads.jsonl";

    /// The file beside the erasure ledger that the configuration names; none if it names none.
    pub fn find(config: &Config) -> Option<Self> {
        config.erasure.ledger_dir.as_deref().map(Self::in_dir)
    }

    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self { file: ChainedFile::new(dir.to_owned(), Self::FILE) }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.file.path()
    }

    /// All lines, oldest first. None if there is no file yet.
    ///
    /// # Errors
    /// [`AuditError::AnchorDamaged`] where the chain of lines is broken.
    pub fn heads(&self) -> Result<Vec<AnchoredHead>, Error> {
        let chain: Chain<AnchoredHead> = self.file.read().map_err(AuditError::from)?;
        Ok(chain.entries)
    }

    pub(super) async fn read(&self) -> Result<Chain<AnchoredHead>, AuditError> {
        Ok(self.file.read_beside().await?)
    }
}

/// Writes the chain's head to the file, unless it stands there already. Yields the seal's place, if a line
/// was written.
///
/// Dropped, it leaves the line or none; one that the database does not know of does no harm.
///
/// # Errors
/// [`AuditError`]: then nothing was written.
pub async fn anchor_head(admin: &AdminDb, anchor: &Anchor) -> Result<Option<i64>, Error> {
    write(admin, anchor, false).await
}

/// Goes on after a restore of the database to an earlier time: says in the file that what was anchored
/// behind the log's present head is lost. For whoever restores; verifying tells of it from then on.
///
/// # Errors
/// [`AuditError`]: then nothing was written.
pub async fn continue_after_restore(admin: &AdminDb, anchor: &Anchor) -> Result<i64, Error> {
    write(admin, anchor, true).await.map(Option::unwrap_or_default)
}

async fn write(admin: &AdminDb, anchor: &Anchor, restored: bool) -> Result<Option<i64>, Error> {
    // Locked until the line is there. What the database says is asked for after that, so that it is not
    // older than what another service has just written.
    let open = anchor.file.open::<AnchoredHead>().await.map_err(AuditError::from)?;
    let db = admin.connection().await?;
    let client: &tokio_postgres::Client = &db;
    open.chain().require(newest_known(client).await?).map_err(AuditError::from)?;
    let head = newest_seal(client).await?;
    let last = open.chain().entries.last().cloned();
    if let Some(last) = &last.as_ref().filter(|_| !restored) {
        let (path, position) = (anchor.path(), last.position);
        if !has_seal(client, last).await? {
            return Err(AuditError::Rewritten { path, position }.into());
        }
    }
    let written = last.as_ref().map_or(0, |last| last.position);
    if !restored && head.position == written {
        // What a killed process wrote, the database learns now.
        if let Some(recorded) = last.and_then(|_| open.chain().newest()) {
            remember(client, recorded, head.position).await?;
        }
        return Ok(None);
    }
    let (position, hash) = (head.position, HEXLOWER.encode(&head.hash));
    let line = move |sequence, previous| AnchoredHead {
        sequence,
        recorded_at: Timestamp::now(),
        position,
        hash,
        restored,
        previous,
    };
    let recorded = open.append(line).await.map_err(AuditError::from)?;
    remember(client, recorded, position).await?;
    tracing::debug!(position, line = recorded.sequence, "audit log anchored");
    Ok(Some(position))
}

/// The newest line that this database knows of.
async fn newest_known(db: &impl GenericClient) -> Result<Option<(i64, Vec<u8>)>, Error> {
    let row = db
        .query_typed_opt(
            "SELECT sequence, line_hash FROM public.audit_anchors ORDER BY sequence DESC LIMIT 1",
            &[],
        )
        .await
        .doing("look what the audit anchor must hold")?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

async fn has_seal(db: &impl GenericClient, head: &AnchoredHead) -> Result<bool, Error> {
    if head.position == 0 {
        return Ok(true);
    }
    let row = db
        .query_typed_opt(
            "SELECT encode(hash, 'hex') FROM public.audit_seals WHERE position = $1",
            &[(&head.position, Type::INT8)],
        )
        .await
        .doing("look for the seal that was anchored")?;
    Ok(row.is_some_and(|row| row.get::<_, &str>(0) == head.hash))
}

async fn remember(db: &impl GenericClient, line: Recorded, position: i64) -> Result<(), Error> {
    db.execute_typed(
        "INSERT INTO public.audit_anchors (sequence, line_hash, position) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
        &[
            (&line.sequence, Type::INT8),
            (&line.hash.as_slice(), Type::BYTEA),
            (&position, Type::INT8),
        ],
    )
    .await
    .doing("remember the anchored head")?;
    Ok(())
}

/// Seals what is committed and anchors it, after something that must not be taken back unseen. It has
/// happened by then, so that a failure here is logged and not its own.
pub(crate) async fn seal_and_anchor(admin: &AdminDb, dir: &Path) {
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(50);
    let both = async {
        for _ in 0..TRIES {
            if !seal_entries(admin).await?.elsewhere {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        anchor_head(admin, &Anchor::in_dir(dir)).await
    };
    if let Err(error) = both.await {
        let hint = error.hint().unwrap_or_default();
        tracing::warn!(%error, hint, "the audit log's head was not anchored");
    }
}

/// Anchors the head every `audit.anchor_every`, if it moved, until `stop` is done. Does nothing where
/// `erasure.ledger_dir` is not set.
pub async fn keep_anchoring(installation: Installation, stop: impl Future<Output = ()>) {
    // After a failure, the next try does not wait for hours.
    const LOOK_EVERY: Duration = Duration::from_secs(60);
    let Some(anchor) = Anchor::find(installation.config()) else {
        tracing::info!(
            "`erasure.ledger_dir` is not set: this service does not anchor the audit log"
        );
        return;
    };
    let every = installation.config().audit.anchor_every;
    // When it last went well.
    let last: Mutex<Option<Instant>> = Mutex::new(None);
    let since = || *last.lock().unwrap_or_else(PoisonError::into_inner);
    background::repeat("anchor the audit log", every.min(LOOK_EVERY), stop, async || {
        if since().is_none_or(|last| last.elapsed() >= every) {
            anchor_head(installation.admin(), &anchor).await?;
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(())
    })
    .await;
}
