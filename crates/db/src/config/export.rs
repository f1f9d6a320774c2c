//! The section `[export]`: what stays out of an export, and how much of the server exports may take.

use std::fmt;
use std::time::Duration;

use super::Reader;

/// How tenants' data is handed over.
#[derive(Debug, Clone)]
pub struct Export {
    /// What never leaves over HTTP.
    pub omit: Vec<OmittedColumn>,
    /// Exports over HTTP at once.
    pub at_once: usize,
    /// How long one export may take.
    pub max_duration: Duration,
}

/// A column that is left out of exports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OmittedColumn {
    /// The table, without a schema.
    pub table: String,
    /// The column.
    pub column: String,
}

impl OmittedColumn {
    fn parse(text: &str) -> Option<Self> {
        let (table, column) = text.split_once('.')?;
        let named = !table.is_empty() && !column.is_empty() && !column.contains('.');
        named.then(|| Self { table: table.to_owned(), column: column.to_owned() })
    }
}

impl fmt::Display for OmittedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.column)
    }
}

impl Export {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        const KEY: &str = "export.omit";
        let texts = reader.list(KEY);
        let omit: Option<Vec<OmittedColumn>> =
            texts.iter().map(|text| OmittedColumn::parse(text)).collect();
        let omit = omit.unwrap_or_else(|| {
            reader.problem(KEY, "takes columns such as [\"users.password_hash\"]");
            Vec::new()
        });
        Self {
            omit,
            at_once: reader.integer("export.at_once", 1..=100).into(),
            max_duration: reader.duration("export.max_duration"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Layers};
    use crate::error::Error;

    fn read(omit: &[&str]) -> Result<Config, Error> {
        Config::from_layers(Layers::defaults().flag("test", "export.omit", omit.to_vec()))
    }

    #[test]
    fn secrets_stay_unless_somebody_says_otherwise() {
        let config = Config::from_layers(Layers::defaults()).unwrap();
        let omitted: Vec<_> = config.export.omit.iter().map(ToString::to_string).collect();
        assert_eq!(omitted, ["users.password_hash", "social_accounts.credentials"]);
        assert!(read(&[]).unwrap().export.omit.is_empty());
    }

    #[test]
    fn what_names_no_column_is_refused_and_not_passed_over() {
        for bad in ["password_hash", "users.", ".x", "public.users.x", ""] {
            let problem = read(&["users.name", bad]).unwrap_err().to_string();
            assert!(problem.contains("`export.omit` takes columns"), "{bad}: {problem}");
        }
    }
}
