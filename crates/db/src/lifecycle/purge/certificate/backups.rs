//! Until when the backups hold a purged tenant's data, and the statement that they were seen to hold it no more.
//!
//! That statement comes weeks after the certificate is complete and final. So it is an entry of the audit log, in
//! the chain that is sealed, and the document with it follows from both. Refuses to call something gone that was
//! only computed to be, or that another repository may still hold.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_postgres::GenericClient;
use tokio_postgres::types::PgLsn;

use super::document::{self, BackupsHold};
use crate::error::Error;
use crate::ids::TenantId;
use crate::models::audit::{self, Action, Actor};
use crate::models::certificates::{self, CertificateRow};
use crate::models::holding::Holding;

/// What is known of the backups, for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backups {
    pub(super) hold: BackupsHold,
    pub(super) repository: Option<String>,
}

impl Backups {
    pub(super) fn unknown() -> Self {
        Self { hold: BackupsHold::Unknown, repository: None }
    }

    /// What they hold of the tenant of a document, whose purge was over by this position and time.
    pub(super) fn of(
        holding: Option<&Holding>,
        document: &Value,
        position: Option<PgLsn>,
        ended_at: Timestamp,
    ) -> Self {
        let Some(holding) = holding else { return Self::unknown() };
        let created_at = time(&document["tenant"]["created_at"]);
        let hold = judge(holding, created_at, position, ended_at);
        Self { hold, repository: Some(holding.repository.clone()) }
    }

    /// As a document has it.
    pub(super) fn of_document(document: &Value) -> Self {
        let backups = &document["backups"];
        let hold = serde_json::from_value(backups["hold"].clone()).unwrap_or(BackupsHold::Unknown);
        Self { hold, repository: backups["repository"].as_str().map(str::to_owned) }
    }

    pub(super) fn document(&self) -> Value {
        json!({ "hold": self.hold, "says": self.hold.says(), "repository": self.repository })
    }
}

fn judge(
    holding: &Holding,
    created_at: Option<Timestamp>,
    position: Option<PgLsn>,
    ended_at: Timestamp,
) -> BackupsHold {
    let former = holding.former.iter().map(|former| former.until);
    // One that ended before there was the tenant has nothing of it.
    let former = former.filter(|until| created_at.is_none_or(|created| *until >= created)).max();
    if let Some(until) = former {
        return BackupsHold::Former(until);
    }
    if holding.covers_from > ended_at {
        // What was in use at that time, nobody knows.
        return BackupsHold::Unknown;
    }
    // By the log's positions, which no clock moves; and by time, since after a recovery they go back.
    let oldest: Option<PgLsn> = holding.oldest_position.parse().ok();
    let is_behind = oldest.zip(position).is_some_and(|(oldest, position)| oldest >= position);
    if is_behind && holding.oldest_at > ended_at {
        return BackupsHold::Gone(holding.seen_at);
    }
    let expires_after = SignedDuration::from_secs(holding.expires_after_s);
    BackupsHold::Until(ended_at.checked_add(expires_after).unwrap_or(Timestamp::MAX))
}

/// When a purge was over, by its certificate: the last trace of it was in the statistics of columns.
pub(super) fn ended_at(document: &Value, statistics_rewritten_at: Option<Timestamp>) -> Timestamp {
    let finished = time(&document["purge"]["finished_at"]);
    finished.max(statistics_rewritten_at).unwrap_or(Timestamp::MAX)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// The newest state of a certificate that is stored: with the statement on the backups, if it was made.
pub(super) async fn newest(
    db: &impl GenericClient,
    tenant: TenantId,
    row: CertificateRow,
) -> Result<CertificateRow, Error> {
    if !row.is_complete() {
        return Ok(row);
    }
    let stated = certificates::find_statement(db, tenant).await?;
    Ok(match stated {
        Some(stated) if stated["supersedes_sha256"] == *hex(&row.sha256) => with(&row, &stated),
        _ => row,
    })
}

/// For one that is complete: looks whether the backups were seen without the tenant, and says so once.
pub(super) async fn look(
    tx: &impl GenericClient,
    tenant: TenantId,
    row: CertificateRow,
    holding: Option<&Holding>,
    actor: &Actor,
) -> Result<CertificateRow, Error> {
    let row = newest(tx, tenant, row).await?;
    let document = &row.document;
    // Of the purge, not of the document: one that was brought back by hand is purged anew, and its certificate stays.
    let end = certificates::end_of_purge(tx, tenant).await?;
    let Some(rewritten_at) = end.statistics_rewritten_at else { return Ok(row) };
    let ended_at = ended_at(document, Some(rewritten_at));
    let backups = Backups::of(holding, document, Some(end.position), ended_at);
    if document["erased"] == true || !matches!(backups.hold, BackupsHold::Gone(_)) {
        return Ok(row);
    }
    let mut details = json!({
        "certificate": document["certificate_id"],
        "supersedes_sha256": hex(&row.sha256),
        "backups": backups.document(),
        "oldest_backup_at": holding.map(|holding| holding.oldest_at),
        "oldest_position": holding.map(|holding| &holding.oldest_position),
        "newest_backup": holding.map(|holding| &holding.newest_backup),
        "erased_at": holding.map(|holding| holding.seen_at),
    });
    let stated = with(&row, &details);
    details["sha256"] = hex(&stated.sha256).into();
    audit::record(tx, actor, Action::Erased, tenant, &details).await?;
    tracing::info!(tenant.id = %tenant, "the backups hold nothing of the purged tenant any more");
    Ok(stated)
}

/// The final document with what was seen of the backups.
fn with(row: &CertificateRow, details: &Value) -> CertificateRow {
    let mut document = row.document.clone();
    document["erased"] = true.into();
    for field in ["erased_at", "supersedes_sha256", "backups"] {
        document[field] = details[field].clone();
    }
    for field in ["oldest_backup_at", "oldest_position", "newest_backup"] {
        document["backups"][field] = details[field].clone();
    }
    document["beyond"][0] = document::BEYOND_THE_REPOSITORY.into();
    let sha256 = document::digest(&document).to_vec();
    CertificateRow { document, sha256 }
}

fn hex(digest: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::holding::FormerRepository;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Whose oldest piece is at this second and position.
    fn holding(oldest_at: i64, oldest_position: &str) -> Holding {
        Holding {
            repository: "/r (tenantry)".to_owned(),
            covers_from: at(50),
            former: Vec::new(),
            newest_backup: "F".to_owned(),
            oldest_position: oldest_position.to_owned(),
            oldest_at: at(oldest_at),
            expires_after_s: 1000,
            seen_at: at(9000),
        }
    }

    /// The purge ended at second 100, position 1/0.
    fn judged(holding: &Holding) -> BackupsHold {
        judge(holding, Some(at(20)), "1/0".parse().ok(), at(100))
    }

    #[test]
    fn gone_is_what_was_seen_to_be_by_position_and_by_time() {
        assert_eq!(judged(&holding(101, "1/0")), BackupsHold::Gone(at(9000)));
        let until = BackupsHold::Until(at(1100));
        assert_eq!(judged(&holding(101, "0/FFFFFFFF")), until, "a piece from before");
        assert_eq!(
            judged(&holding(100, "1/0")),
            until,
            "an abandoned timeline's piece from before"
        );
        assert_eq!(judged(&holding(101, "?")), until);
        assert_eq!(judge(&holding(101, "1/0"), None, None, at(100)), until);
        // That the time is over is no sight of it.
        assert_eq!(judged(&holding(10, "0/1")), until);
    }

    #[test]
    fn another_repository_may_still_hold_it() {
        let mut moved = holding(101, "2/0");
        moved.covers_from = at(101);
        assert_eq!(judged(&moved), BackupsHold::Unknown);
        let mut moved = holding(101, "2/0");
        moved.former = vec![FormerRepository { repository: "/old".to_owned(), until: at(20) }];
        assert_eq!(judged(&moved), BackupsHold::Former(at(20)));
        moved.former[0].until = at(19);
        assert_eq!(judged(&moved), BackupsHold::Gone(at(9000)), "the tenant is younger");
    }
}
