//! The servers that copy this one, and how far each has replayed.

use std::collections::BTreeMap;

use tokio_postgres::GenericClient;
use tokio_postgres::types::PgLsn;

use super::document::{ReplicaSeen, Replicas};
use crate::error::{Doing, Error};

/// What the primary knows of a server of this name at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Now {
    servers: usize,
    /// Whether each of them said how far it is.
    connected: bool,
    /// How far the last of them is.
    replayed: Option<PgLsn>,
}

/// Those that stream from this primary, and those for which it keeps write-ahead log though they do not.
/// A copy that is being made (`pg_basebackup`) and an archive of log (`pg_receivewal`) are none: the one will
/// show up when it runs, the other is an archive.
async fn now(db: &impl GenericClient) -> Result<BTreeMap<String, Now>, Error> {
    let rows = db
        .query_typed(
            "SELECT coalesce(s.slot_name, nullif(r.application_name, ''), 'pid ' || r.pid)::text, r.replay_lsn
             FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
             WHERE coalesce(s.slot_type, 'physical') = 'physical' AND r.state IS DISTINCT FROM 'backup'
               AND r.application_name IS DISTINCT FROM 'pg_receivewal'
             UNION ALL
             SELECT slot_name::text, NULL FROM pg_replication_slots
             WHERE slot_type = 'physical' AND NOT active AND NOT temporary",
            &[],
        )
        .await
        .doing("ask which replicas there are")?;
    let mut servers: BTreeMap<String, Now> = BTreeMap::new();
    for row in &rows {
        let replayed: Option<PgLsn> = row.get(1);
        let seen = servers.entry(row.get(0)).or_insert(Now { connected: true, ..Now::default() });
        seen.replayed = match seen.servers {
            0 => replayed,
            _ => seen.replayed.min(replayed),
        };
        seen.connected &= replayed.is_some();
        seen.servers += 1;
    }
    Ok(servers)
}

/// Whether one of this name streams, or has a slot: whoever is gone for good has neither.
pub(super) async fn is_there(db: &impl GenericClient, replica: &str) -> Result<bool, Error> {
    Ok(now(db).await?.contains_key(replica))
}

impl Replicas {
    /// Looks again. One that was seen before and is not there now is not forgotten: it may come back.
    pub(super) async fn look(
        &mut self,
        db: &impl GenericClient,
        position: PgLsn,
        configured: usize,
    ) -> Result<(), Error> {
        let moved = self.position.as_deref() != Some(&position.to_string());
        self.position = Some(position.to_string());
        self.configured = configured;
        self.merge(&now(db).await?, position, moved);
        Ok(())
    }

    fn merge(&mut self, now: &BTreeMap<String, Now>, position: PgLsn, moved: bool) {
        for seen in self.servers.values_mut() {
            // What it had replayed before, it still has.
            let known = seen.replayed.as_deref().and_then(|text| text.parse::<PgLsn>().ok());
            if moved {
                seen.past = seen.past && known.is_some_and(|known| known >= position);
            }
            if !seen.past {
                seen.replayed = None;
            }
        }
        for (name, now) in now {
            let seen = self.servers.entry(name.clone()).or_insert(ReplicaSeen {
                servers: 0,
                replayed: None,
                past: false,
                declared_gone_by: None,
            });
            if now.replayed.is_some() {
                seen.declared_gone_by = None;
            }
            if seen.past && now.servers <= seen.servers {
                continue;
            }
            // Where there were two of this name, one alone does not speak for both.
            let all = now.servers >= seen.servers;
            seen.servers = seen.servers.max(now.servers);
            seen.replayed = now.replayed.filter(|_| now.connected && all).map(|at| at.to_string());
            seen.past = now.connected && all && now.replayed.is_some_and(|at| at >= position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(n: u64) -> PgLsn {
        PgLsn::from(n)
    }

    fn connected(servers: usize, replayed: u64) -> Now {
        Now { servers, connected: true, replayed: Some(lsn(replayed)) }
    }

    fn at(now: &[(&str, Now)]) -> BTreeMap<String, Now> {
        now.iter().map(|(name, now)| ((*name).to_owned(), *now)).collect()
    }

    #[test]
    fn one_that_went_away_is_not_forgotten_and_one_that_came_is_looked_at() {
        let mut replicas = Replicas::default();
        let past = |replicas: &Replicas| {
            replicas
                .servers
                .iter()
                .map(|(n, s)| format!("{n}{}", u8::from(s.past)))
                .collect::<Vec<_>>()
        };
        replicas.merge(&at(&[("a", connected(1, 5)), ("b", connected(1, 9))]), lsn(8), false);
        assert_eq!(past(&replicas), ["a0", "b1"]);
        replicas.merge(&at(&[]), lsn(8), false);
        assert_eq!(past(&replicas), ["a0", "b1"], "`a` may come back, `b` has replayed it");
        assert_eq!(replicas.servers["a"].replayed, None);
        replicas.merge(
            &at(&[("a", connected(1, 8)), ("c", Now { servers: 1, ..Now::default() })]),
            lsn(8),
            false,
        );
        assert_eq!(past(&replicas), ["a1", "b1", "c0"]);
        // The statistics were written anew: the end is further on.
        replicas.merge(&at(&[("a", connected(1, 9))]), lsn(10), true);
        assert_eq!(past(&replicas), ["a0", "b0", "c0"]);
        replicas.merge(&at(&[("a", connected(1, 10))]), lsn(10), false);
        assert_eq!(past(&replicas), ["a1", "b0", "c0"]);
    }

    #[test]
    fn of_two_with_one_name_one_does_not_speak_for_both() {
        let mut replicas = Replicas::default();
        replicas.merge(&at(&[("standby", connected(2, 5))]), lsn(8), false);
        replicas.merge(&at(&[("standby", connected(1, 9))]), lsn(8), false);
        assert!(!replicas.servers["standby"].past);
        replicas.merge(&at(&[("standby", connected(2, 9))]), lsn(8), false);
        assert!(replicas.servers["standby"].past);
        replicas.merge(&at(&[("standby", connected(3, 1))]), lsn(8), false);
        assert!(!replicas.servers["standby"].past, "a third one came");
    }
}
