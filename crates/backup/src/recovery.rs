//! A backup brought to a moment on a scratch server, and the proof that it is that moment.
//!
//! Owns what is believed: the server is out of recovery, its log says where it stopped, it stopped on the
//! timeline that was asked for, and it knows of nothing later. Each alone has been seen to be true of a wrong
//! state.

mod log_end;
mod older;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_db::models::backups::newest_known_commit;
use tenantry_db::{AdminDb, Config};
use tenantry_stack::{Error as StackError, Scratch, files};
use tokio_postgres::{Client, NoTls};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::moment::{Start, When, for_postgres};
use crate::progress::Progress;
use crate::wal::{History, Lsn};

/// How long a recovery may take: a day of a busy server's log, from a slow repository.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Whether the restored server is kept, or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Looked,
}

/// Where a recovery stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The first commit that is not in it, if the log told of one.
    pub(crate) stopped_before: Option<Timestamp>,
    /// The last one that is.
    pub(crate) last_commit: Option<Timestamp>,
    /// The timeline that begins here.
    pub(crate) timeline: u32,
    /// Why nothing behind it can be had, if the moment is the last that can.
    pub(crate) behind: Option<String>,
}

impl Reached {
    /// Of a server that is out of recovery: its log says that it stopped at the moment, and its timeline, with
    /// this history, branches off from the one that was asked for. There is no other way to it.
    fn proved(
        told: &Told,
        when: When,
        (timeline, history): (u32, &str),
        asked: u32,
    ) -> Result<Self> {
        told.require(when)?;
        require_branch(history, asked)?;
        let Told { stopped_before, last_commit, .. } = *told;
        Ok(Self { stopped_before, last_commit, timeline, behind: None })
    }
}

impl Engine {
    /// Restores a backup into the scratch directory and recovers it there. Its server runs afterwards.
    pub(crate) async fn recover(
        &self,
        scratch: &mut Scratch,
        start: &Start<'_>,
        when: When,
        fate: Fate,
        progress: impl FnMut(Progress),
    ) -> Result<Reached> {
        self.restore_files(&start.backup.label, scratch, progress).await?;
        let directory = scratch.data_dir();
        // A backup of a replica, or of one that was about to recover, would follow something.
        files::remove_file(&directory.join("standby.signal"))?;
        files::write_private(&directory.join("recovery.signal"), "", Some(self.owner()))?;
        let asked = start.window.timeline;
        let settings = self.recovery_settings(&directory, asked, when, fate)?;
        let started = scratch.start(&directory, &settings, PATIENCE).await;
        let mut told = Told::of(&scratch.log());
        let mut behind = None;
        if let Err(error) = started {
            let error = failure(error, &scratch.log(), when, asked);
            let end = self.require_end_of_log(scratch, start, &told).await;
            if !is_of_the_end(&error) {
                return Err(end.err().unwrap_or(error));
            }
            behind = end.err().map(|error| error.to_string());
            // PostgreSQL stops before the first commit behind a moment, and here is none: the end is the moment.
            let settings = self.recovery_settings(&directory, asked, When::Now, fate)?;
            scratch.start(&directory, &settings, PATIENCE).await.map_err(Error::NotRecovered)?;
            told = Told { ends_with_it: true, ..Told::of(&scratch.log()) };
        } else if when == When::Now {
            self.require_end_of_log(scratch, start, &told).await?;
        }
        let client = self.superuser(scratch, "postgres").await?;
        let timeline = timeline_of(&client).await?;
        let file = directory.join(format!("pg_wal/{timeline:08X}.history"));
        let history = files::read_if_present(&file)?.unwrap_or_default();
        let reached = Reached::proved(&told, when, (timeline, &history), asked)?;
        Ok(Reached { behind, ..reached })
    }

    /// The superuser on the scratch server.
    pub(crate) async fn superuser(&self, scratch: &Scratch, database: &str) -> Result<Client> {
        let config = scratch.config(&self.settings().server.user, database);
        let connected = config.connect(NoTls).await;
        let (client, connection) =
            connected.map_err(|source| Error::Scratch { action: "log in", source })?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn recovery_settings(
        &self,
        directory: &Path,
        timeline: u32,
        when: When,
        fate: Fate,
    ) -> Result<Vec<(&'static str, String)>> {
        let mut all = capacity(directory)?;
        all.push(("restore_command", self.restore_command(directory)));
        all.push(("recovery_target_timeline", timeline.to_string()));
        if let When::At(moment) = when {
            all.push(("recovery_target_time", for_postgres(moment)));
        }
        if fate == Fate::Looked {
            for name in ["fsync", "full_page_writes", "synchronous_commit"] {
                all.push((name, "off".to_owned()));
            }
        }
        Ok(all)
    }
}

/// Room for at least as many locks and prepared transactions as the server had, by its control file; erasing
/// takes many locks.
pub(crate) fn capacity(directory: &Path) -> Result<Vec<(&'static str, String)>> {
    const LEAST: [(&str, u32); 2] = [("max_connections", 100), ("max_prepared_transactions", 0)];
    // Where the server's own configuration lies in its directory, it says more; elsewhere these are plenty.
    let mut found: Vec<(&str, u32)> = LEAST.to_vec();
    for file in ["postgresql.conf", "tenantry.conf", "postgresql.auto.conf"] {
        let text = files::read_if_present(&directory.join(file))?.unwrap_or_default();
        for (name, value) in &mut found {
            *value = configured(&text, name).unwrap_or(0).max(*value);
        }
    }
    let mut all: Vec<(&'static str, String)> = vec![
        ("max_locks_per_transaction", "512".to_owned()),
        ("max_worker_processes", "64".to_owned()),
        ("max_wal_senders", "64".to_owned()),
    ];
    for ((name, _), (_, value)) in LEAST.iter().zip(&found) {
        // Prepared transactions need a place each, wherever their number was set.
        let least = if *name == "max_prepared_transactions" { 1000 } else { 0 };
        all.push((name, (*value).max(least).to_string()));
    }
    Ok(all)
}

/// The last value of a setting in a configuration's text.
fn configured(text: &str, name: &str) -> Option<u32> {
    let lines = text.lines().rev().map(str::trim);
    let mut values = lines.filter_map(|line| {
        let rest = line.strip_prefix(name)?.trim_start();
        let value = rest.strip_prefix('=').unwrap_or(rest).trim().trim_start_matches('\'');
        let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        value[..digits].parse().ok()
    });
    values.next()
}

fn failure(error: StackError, log: &str, when: When, timeline: u32) -> Error {
    if let When::At(moment) = when
        && log.contains("recovery ended before configured recovery target was reached")
    {
        let last = Told::of(log).last_commit;
        return Error::NothingBehind { moment, timeline, last };
    }
    Error::NotRecovered(error)
}

/// Whether the log ends with a commit of the moment itself, to the microsecond.
fn is_of_the_end(error: &Error) -> bool {
    let Error::NothingBehind { moment, last, .. } = error else { return false };
    last.is_some_and(|last| for_postgres(last) == for_postgres(*moment))
}

/// What the log of a recovery tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    stopped_before: Option<Timestamp>,
    last_commit: Option<Timestamp>,
    /// Where the last record that was applied begins.
    last_record: Option<Lsn>,
    /// The log was found to end with a commit of the moment.
    ends_with_it: bool,
    is_complete: bool,
}

impl Told {
    fn of(log: &str) -> Self {
        let mut told = Self::default();
        for line in log.lines() {
            if line.contains("recovery stopping ") {
                told.stopped_before = time_behind(line, ", time ").or(told.stopped_before);
            } else if line.contains("last completed transaction was at log time ") {
                told.last_commit = time_behind(line, "at log time ");
            } else if let Some((_, rest)) = line.split_once("redo done at ") {
                told.last_record = rest.split_whitespace().next().and_then(|it| it.parse().ok());
            } else if line.contains("archive recovery complete") {
                told.is_complete = true;
            }
        }
        told
    }

    fn require(&self, when: When) -> Result<()> {
        let odd = |reason: String| Err(Error::Unproven { reason });
        if !self.is_complete {
            return odd("its log does not say that the recovery is complete".to_owned());
        }
        let When::At(moment) = when else { return Ok(()) };
        match self.stopped_before {
            None if self.ends_with_it => {}
            None => return odd("its log does not say where it stopped".to_owned()),
            Some(before) if before <= moment => {
                return odd(format!("it stopped before {before}, which is not behind {moment}"));
            }
            Some(_) => {}
        }
        match self.last_commit {
            Some(last) if last > moment => {
                odd(format!("it has a commit of {last}, which is behind {moment}"))
            }
            _ => Ok(()),
        }
    }
}

fn time_behind(line: &str, mark: &str) -> Option<Timestamp> {
    line.split_once(mark)?.1.trim().parse().ok()
}

async fn timeline_of(client: &Client) -> Result<u32> {
    let action = "ask for the timeline";
    let failed = |source| Error::Scratch { action, source };
    // The control file learns of it with the next checkpoint.
    client.batch_execute("CHECKPOINT").await.map_err(failed)?;
    let row = client
        .query_typed_one("SELECT timeline_id FROM pg_control_checkpoint()", &[])
        .await
        .map_err(failed)?;
    let timeline: i32 = row.get(0);
    u32::try_from(timeline).map_err(|_| Error::Unproven { reason: format!("timeline {timeline}") })
}

/// A new timeline has begun, and it branches off from the one that was asked for.
fn require_branch(history: &str, asked: u32) -> Result<()> {
    let parent = History::parse(history).and_then(|history| history.parent());
    if parent == Some(asked) {
        return Ok(());
    }
    let found = parent.map_or_else(|| "none".to_owned(), |parent| parent.to_string());
    Err(Error::Unproven {
        reason: format!("it comes from timeline {found}, and {asked} was asked for"),
    })
}

/// Whatever the restored database itself knows of must not be later than the moment.
pub(crate) async fn require_nothing_later(
    config: &Config,
    when: When,
) -> Result<Option<Timestamp>> {
    let known = newest_known_commit(&AdminDb::new(config)?).await?;
    match (known, when) {
        (Some(known), When::At(moment)) if known > moment => Err(Error::Unproven {
            reason: format!("it knows of {known}, which is behind {moment}"),
        }),
        _ => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-24 16:00:01.1 UTC [7] LOG:  starting point-in-time recovery to 2026-11-24 15:59:00+00
2026-11-24 16:00:02.1 UTC [7] LOG:  recovery stopping before commit of transaction 791, time 2026-11-24 15:59:00.25+00
2026-11-24 16:00:02.1 UTC [7] LOG:  last completed transaction was at log time 2026-11-24 15:58:59.75+00
2026-11-24 16:00:02.1 UTC [7] LOG:  archive recovery complete
";

    fn at(text: &str) -> When {
        text.parse().unwrap()
    }

    #[test]
    fn a_recovery_is_believed_if_its_log_says_that_it_stopped_around_the_moment() {
        let good = at("2026-11-24T15:59:00Z");
        Told::of(LOG).require(good).unwrap();
        let unproven = |log: &str, when: When| Told::of(log).require(when).unwrap_err().to_string();
        assert!(unproven(LOG, at("2026-11-24T15:59:01Z")).contains("not behind"));
        assert!(unproven(LOG, at("2026-11-24T15:58:59Z")).contains("has a commit"));
        let without = |part: &str| -> String {
            LOG.lines().filter(|line| !line.contains(part)).map(|it| format!("{it}\n")).collect()
        };
        assert!(unproven(&without("stopping"), good).contains("where it stopped"));
        assert!(unproven(&without("recovery complete"), good).contains("complete"));
        Told::of(&without("stopping")).require(When::Now).unwrap();
    }

    #[test]
    fn a_server_is_not_taken_for_restored_without_the_proof_of_its_log_and_its_timeline() {
        const HISTORY: &str = "1\t0/3000000\tbefore 2026-11-24 15:59:00.25+00\n";
        let proved = |log: &str, when: &str, history: &str| {
            Reached::proved(&Told::of(log), at(when), (2, history), 1)
                .map_err(|error| error.to_string())
        };
        let good = "2026-11-24T15:59:00Z";
        assert_eq!(proved(LOG, good, HISTORY).unwrap().timeline, 2);
        // It is up and takes writes in each of these, and has rows of another moment.
        let behind = proved(LOG, "2026-11-24T15:59:01Z", HISTORY).unwrap_err();
        assert!(behind.contains("not behind"), "{behind}");
        let ahead = proved(LOG, "2026-11-24T15:58:59Z", HISTORY).unwrap_err();
        assert!(ahead.contains("has a commit"), "{ahead}");
        let silent = proved("LOG:  database system is ready to accept connections", good, HISTORY);
        assert!(silent.unwrap_err().contains("complete"));
        let other = proved(LOG, good, "").unwrap_err();
        assert!(other.contains("timeline none"), "{other}");
    }

    #[test]
    fn settings_are_found_as_they_count() {
        let text = "#max_connections = 5\nmax_connections = 100 # x\n max_connections='450'\n";
        assert_eq!(configured(text, "max_connections"), Some(450));
        assert_eq!(configured(text, "max_prepared_transactions"), None);
    }
}
