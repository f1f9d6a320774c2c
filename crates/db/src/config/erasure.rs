//! The section `[erasure]`, and how long deleted tenants are kept.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};

use super::Config;

/// How tenants are purged.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// Where the erasure ledger lies. Without it, nothing is purged.
    pub ledger_dir: Option<PathBuf>,
    /// How often to look for tenants that are due.
    pub check_every: Duration,
    /// How many purges the service begins within an hour.
    pub max_per_hour: u16,
    /// Tables of one's own, as `schema.table`, whose rows may go on naming a tenant that was purged.
    pub kept_tables: Vec<String>,
}

impl Config {
    /// How long a deleted tenant of this tier can be restored.
    pub fn retention(&self, tier: &str) -> Duration {
        self.tiers.get(tier).and_then(|tier| tier.retention).unwrap_or(self.tenants.retention)
    }
}

/// Reads how long a deleted tenant can be restored, as in «30days». Nothing is long enough as well: a
/// person's right to erasure does not wait.
///
/// # Errors
/// The rule that the text breaks, as it follows the value's name.
pub fn parse_retention(text: &str) -> Result<Duration, String> {
    const MAX: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);
    // A month has no fixed length, so none is taken.
    let parsed = text.parse::<Span>().ok().filter(|s| s.get_months() == 0 && s.get_years() == 0);
    parsed
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
        .filter(|duration| *duration <= MAX)
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| {
            "takes a duration from \"0s\" to ten years such as \"30days\" or \"12h\"".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::error::Error;

    fn read(text: &str) -> Result<Config, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tenantry.toml");
        std::fs::write(&path, text).unwrap();
        Config::from_layers(Layers::defaults().file(&path).unwrap())
    }

    #[test]
    fn the_default_is_thirty_days() {
        assert_eq!(read("").unwrap().retention("pro"), Duration::from_secs(30 * 86_400));
    }

    #[test]
    fn retention_may_be_nothing_and_days_have_24_hours() {
        let text =
            "[tenants]\nretention = \"2weeks\"\n[tiers.pro]\nretention = \"0s\"\n[tiers.own]";
        let config = read(text).unwrap();
        let days = |tier| config.retention(tier).as_secs() / 86_400;
        assert_eq!((days("free"), days("pro"), days("own"), days("gone")), (14, 0, 14, 14));
        for wrong in ["soon", "-1s", "11years", "1month"] {
            let problem =
                read(&format!("[tenants]\nretention = \"{wrong}\"")).unwrap_err().to_string();
            assert!(problem.contains("such as \"30days\""), "{wrong}: {problem}");
        }
    }
}
