//! Statements that can't run in a transaction: which they are, how a concurrent index build is
//! replaced by a plain one, and what an interrupted one leaves behind.

use std::ops::Range;

use super::sql::{self, Statement};
use super::{IndexBuild, Script};

/// What a file outside a transaction does, as far as its runner must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// May share a transaction with the note that it was done.
    Transactional,
    /// `CREATE INDEX CONCURRENTLY`.
    BuildIndex {
        /// Unquoted names as the catalog has them.
        index: String,
        table: String,
        /// Where `CONCURRENTLY` stands in the file, in bytes.
        concurrently: Range<usize>,
    },
    /// `DROP INDEX CONCURRENTLY`.
    DropIndex {
        /// Where `CONCURRENTLY` stands in the file, in bytes.
        concurrently: Range<usize>,
    },
    /// Runs on its own and does no harm twice: `VACUUM`, `REINDEX … CONCURRENTLY` and their like.
    Alone,
}

/// Says what a statement is.
///
/// # Errors
/// A sentence about an index build that could not be resumed.
pub(super) fn step(script: &Script, statement: &Statement) -> Result<Step, String> {
    let words: Vec<Word> = words(script, statement);
    let word = |at: usize| words.get(at).map_or("", |w| w.upper.as_str());
    let Some(concurrently) = words.iter().position(|w| w.upper == "CONCURRENTLY") else {
        return Ok(match word(0) {
            "VACUUM" => Step::Alone,
            _ => Step::Transactional,
        });
    };
    let range = words[concurrently].range.clone();
    match (word(0), word(1), word(2)) {
        ("CREATE", "INDEX", _) | ("CREATE", "UNIQUE", "INDEX") => {
            let mut at = concurrently + 1;
            if word(at) == "IF" {
                at += 3;
            }
            let unnamed = "an index that is built concurrently needs a name, so that a leftover of an \
                           interrupted build can be found";
            let index = words.get(at).filter(|w| w.upper != "ON").ok_or(unnamed)?.name();
            let on = at + 1 + usize::from(word(at + 2) == "ONLY");
            // `schema.table` is three tokens; lint speaks of the schema.
            let table = if word(on + 2) == "." { on + 3 } else { on + 1 };
            let table = words.get(table).ok_or("this index names no table")?.name();
            Ok(Step::BuildIndex { index, table, concurrently: range })
        }
        ("DROP", "INDEX", _) => Ok(Step::DropIndex { concurrently: range }),
        _ => Ok(Step::Alone),
    }
}

/// The file's text for a transaction: index builds plain, what only tidies up left out. `None` where
/// something in it can't be had in a transaction.
pub(super) fn in_a_transaction(script: &Script, new_schema: bool) -> Option<String> {
    let mut text = script.text.clone();
    for statement in &script.statements {
        match step(script, statement).ok()? {
            Step::Transactional => {}
            Step::BuildIndex { concurrently, .. } | Step::DropIndex { concurrently } => {
                text.replace_range(concurrently.clone(), &" ".repeat(concurrently.len()));
            }
            // A new schema has nothing to tidy up. An empty SELECT in its place keeps the count.
            Step::Alone if new_schema => {
                let mut nothing = "SELECT".to_owned();
                nothing.extend(std::iter::repeat_n(' ', statement.range.len() - nothing.len()));
                text.replace_range(statement.range.clone(), &nothing);
            }
            Step::Alone => return None,
        }
    }
    Some(text)
}

/// The tables whose size decides whether the file's indexes are built plainly.
pub(super) fn indexed_tables(script: &Script) -> Vec<(String, String)> {
    let built = |statement: &Statement| match step(script, statement) {
        Ok(Step::BuildIndex { index, table, .. }) => Some((index, table)),
        _ => None,
    };
    script.statements.iter().filter_map(built).collect()
}

/// Whether a file's concurrent index builds may be plain ones in a table of this size.
pub(super) fn builds_plainly(build: IndexBuild, largest_bytes: i64, limit_mib: u16) -> bool {
    match build {
        IndexBuild::Auto => largest_bytes <= i64::from(limit_mib) * 1024 * 1024,
        IndexBuild::Plain => true,
        IndexBuild::Concurrently => false,
    }
}

struct Word<'a> {
    text: &'a str,
    upper: String,
    range: Range<usize>,
}

impl Word<'_> {
    /// The name as the catalog has it.
    fn name(&self) -> String {
        sql::catalog_name(self.text)
    }
}

fn words<'a>(script: &'a Script, statement: &Statement) -> Vec<Word<'a>> {
    let from = statement.range.start;
    sql::tokens(script.statement(statement))
        .map(|token| Word {
            text: token.text,
            upper: token.text.to_uppercase(),
            range: from + token.range.start..from + token.range.end,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        let mut problems = Vec::new();
        let script = Script::read("x.sql", text.to_owned(), &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        script
    }

    #[test]
    fn index_builds_are_recognised_however_they_are_written() {
        for (text, index, table) in [
            ("CREATE INDEX CONCURRENTLY a ON b (c)", "a", "b"),
            (
                "create unique index /* why */ concurrently if not exists A on only B using btree (c)",
                "a",
                "b",
            ),
            ("CREATE INDEX CONCURRENTLY \"A b\" ON tenant.\"T\" (c)", "A b", "T"),
        ] {
            assert_eq!(
                indexed_tables(&script(text)),
                [(index.to_owned(), table.to_owned())],
                "{text}"
            );
            assert!(
                !in_a_transaction(&script(text), false)
                    .unwrap()
                    .to_uppercase()
                    .contains("CONCURRENTLY")
            );
        }
        let unnamed = script("-- no-transaction\nSELECT 1");
        assert!(indexed_tables(&unnamed).is_empty());
    }

    #[test]
    fn what_can_not_run_in_a_transaction_is_left_out_of_a_new_schema_only() {
        let script =
            script("VACUUM;\nCREATE INDEX CONCURRENTLY a ON b (c);\nREINDEX TABLE CONCURRENTLY b;");
        assert_eq!(in_a_transaction(&script, false), None);
        let text = in_a_transaction(&script, true).unwrap();
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            "SELECT; CREATE INDEX a ON b (c); SELECT ;"
        );
        assert_eq!(text.len(), script.text.len());
    }

    #[test]
    fn size_decides_only_where_it_is_asked() {
        let mib = 1024 * 1024;
        assert!(builds_plainly(IndexBuild::Auto, 16 * mib, 16));
        assert!(!builds_plainly(IndexBuild::Auto, 16 * mib + 1, 16));
        assert!(builds_plainly(IndexBuild::Plain, i64::MAX, 0));
        assert!(!builds_plainly(IndexBuild::Concurrently, 0, 16));
    }
}
