//! Beginning with an older backup where a newer one is damaged, and saying so.
//!
//! Owns what whoever restores must be told of the way that was gone. Refuses to end at another moment for it: an
//! older backup leads to the same one along the same timeline, only with more of the log. A drill does not come
//! here, since it is to find the damage.

use tenantry_stack::Scratch;

use super::{Fate, Reached};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::moment::{Start, When};
use crate::progress::Progress;
use crate::windows::Recoverable;

impl Engine {
    /// As [`recover`](Self::recover). Of backups that are damaged the next older one is taken, which `start` names
    /// afterwards.
    pub(crate) async fn recover_or_older(
        &self,
        scratch: &mut Scratch,
        start: &mut Start<'_>,
        when: When,
        fate: Fate,
        mut progress: impl FnMut(Progress),
    ) -> Result<Reached> {
        loop {
            let error = match self.recover(scratch, start, when, fate, &mut progress).await {
                Err(Error::DamagedBackup { labels, message }) => {
                    start.damaged.extend(labels);
                    Error::DamagedBackup { labels: start.damaged.clone(), message }
                }
                other => return other,
            };
            let Some(older) = start.older.pop() else { return Err(error) };
            tracing::warn!(%error, older = %older.label, "an older backup is taken");
            start.backup = older;
            scratch.empty().await?;
        }
    }
}

impl Reached {
    /// What whoever restores must be told of it.
    pub(crate) fn remarks(
        &self,
        start: &Start<'_>,
        recoverable: &Recoverable,
        when: When,
    ) -> Vec<String> {
        let last = self.last_commit.map_or_else(|| "none".to_owned(), |at| at.to_string());
        let mut remarks = Vec::new();
        if !start.damaged.is_empty() {
            remarks.push(format!(
                "damaged in the repository: backup `{}`; it began with the older `{}` instead and reached the same \
                 moment. Make a new one: `tenantry backup run --type full`",
                start.damaged.join("`, `"),
                start.backup.label,
            ));
        }
        match (when, recoverable.gap_behind(start.window)) {
            (When::Now, Some(gap)) => remarks.push(format!(
                "this is NOT the newest state of the server: {} segments of its log from `{}` on are missing, and \
                 what was committed in them and behind them is not in it, until {} at least. The last commit that it \
                 has: {last}",
                gap.segments, gap.first, gap.before,
            )),
            (When::At(_), _) if self.stopped_before.is_none() => remarks.push(match &self.behind {
                Some(behind) => format!("what was committed behind {last} can't be had: {behind}"),
                None => format!(
                    "it is the end of timeline {} in the repository: the log there has no commit behind {last}",
                    start.window.timeline,
                ),
            }),
            _ => {}
        }
        remarks
    }
}
