//! The section `[replicas]`: when a replica is read from.

use std::time::Duration;

use super::{Database, Reader};

/// When a replica is read from.
#[derive(Debug, Clone, Copy)]
pub struct Replicas {
    /// How often each one is looked at.
    pub poll_every: Duration,
    /// How long a look may take.
    pub poll_timeout: Duration,
    /// Bad looks in a row after which it is left.
    pub fall: u16,
    /// Good looks in a row after which it is read from again.
    pub rise: u16,
    /// How far behind it may be, in time.
    pub max_lag: Duration,
    /// How far behind it may be, in WAL.
    pub max_behind_bytes: u64,
    /// How long the primary may have sent it nothing.
    pub max_silence: Duration,
    /// How old its heartbeat may be.
    pub max_heartbeat_age: Duration,
    /// How long a read waits for a replica that is older than it must be.
    pub wait: Option<Duration>,
    /// The share of a lane's connections to the primary that reads may take.
    pub fallback_percent: u16,
}

impl Replicas {
    /// Beyond this, one minute more or less makes no difference to whoever reads.
    const MAX_LAG: Duration = Duration::from_secs(600);

    pub(super) fn read(reader: &mut Reader<'_>, database: &Database) -> Self {
        let (pooled, direct) = (database.replica_urls.len(), database.replica_direct_urls.len());
        if direct != 0 && direct != pooled {
            reader.problem(
                "database.replica_direct_urls",
                &format!(
                    "has {direct} addresses, and `database.replica_urls` has {pooled}: they name the \
                     same replicas in the same order"
                ),
            );
        }
        let max_lag = reader.duration("replicas.max_lag");
        if max_lag > Self::MAX_LAG {
            reader.problem("replicas.max_lag", "must be at most \"10min\"");
        }
        Self {
            poll_every: reader.duration("replicas.poll_every"),
            poll_timeout: reader.duration("replicas.poll_timeout"),
            fall: reader.integer("replicas.fall", 1..=100),
            rise: reader.integer("replicas.rise", 1..=100),
            max_lag,
            max_behind_bytes: u64::from(reader.integer("replicas.max_behind_mib", 1..=65_535))
                * 1024
                * 1024,
            max_silence: reader.duration("replicas.max_silence"),
            max_heartbeat_age: reader.duration("replicas.max_heartbeat_age"),
            wait: reader.optional_duration("replicas.wait"),
            fallback_percent: reader.integer("replicas.fallback_percent", 1..=100),
        }
    }

    /// How long what a tenant has written or seen is remembered. A replica that is further behind than
    /// this is not read from, whatever happens between two looks.
    pub(crate) fn memory(&self) -> Duration {
        const AT_LEAST: Duration = Duration::from_secs(30);
        AT_LEAST.max(2 * self.out_of_sight())
    }

    /// How long a token is believed.
    pub(crate) fn token_ttl(&self) -> Duration {
        const AT_LEAST: Duration = Duration::from_secs(3600);
        AT_LEAST.max(2 * self.out_of_sight())
    }

    /// Within this, a replica that stands still is left.
    fn out_of_sight(&self) -> Duration {
        let look = self.poll_every + self.poll_timeout;
        self.max_lag + look * (u32::from(self.fall) + 1)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Layers};

    const ONE: &[&str] = &["postgresql://a/b"];

    fn with(pooled: &[&str], direct: &[&str]) -> Result<Config, crate::Error> {
        let list = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        let layers = Layers::defaults().flag("test", "database.replica_urls", list(pooled)).flag(
            "test",
            "database.replica_direct_urls",
            list(direct),
        );
        Config::from_layers(layers)
    }

    #[test]
    fn both_addresses_of_a_replica_belong_together() {
        assert!(with(ONE, ONE).unwrap().remarks().iter().all(|r| !r.contains("replica")));
        let remarks = with(ONE, &[]).unwrap().remarks();
        assert!(remarks.iter().any(|r| r.contains("no replica is read from")), "{remarks:?}");
        let problem = with(&[], ONE).unwrap_err().to_string();
        assert!(
            problem.contains("has 1 addresses, and `database.replica_urls` has 0"),
            "{problem}"
        );
    }

    #[test]
    fn memory_and_tokens_outlive_every_replica_that_is_read_from() {
        let layers = |lag: &str| Layers::defaults().flag("test", "replicas.max_lag", lag);
        let replicas = |lag| Config::from_layers(layers(lag)).map(|config| config.replicas);
        let by_default = replicas("5s").unwrap();
        assert_eq!((by_default.memory().as_secs(), by_default.token_ttl().as_secs()), (30, 3600));
        let patient = replicas("10min").unwrap();
        assert!(patient.memory().as_secs() > 1200);
        assert!(replicas("11min").unwrap_err().to_string().contains("at most"));
    }
}
