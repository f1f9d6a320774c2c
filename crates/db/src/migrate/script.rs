//! One SQL file: its statements, and what its comments ask of whoever runs it.
//!
//! `-- no-transaction` in the first line, and `-- tenantry: …` anywhere: `lock_timeout=2s`,
//! `statement_timeout=10min`, `index=auto|concurrently|plain`, `irreversible`, and
//! `allow=<rule> reason="…"`. An option that nobody knows is an error: it was meant to do something.

use std::time::Duration;

use jiff::SignedDuration;

use super::outside;
use super::sql::{self, Statement};

/// The text of a file, read and understood as far as running it takes.
#[derive(Debug, Clone)]
pub struct Script {
    /// The file, as people find it.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Whether it runs as a whole in one transaction; if not, statement by statement.
    pub transactional: bool,
    /// What its comments ask for.
    pub options: ScriptOptions,
    pub(crate) statements: Vec<Statement>,
}

/// What a file's comments ask for. What is absent is as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptOptions {
    /// How long one statement waits for a lock.
    pub lock_timeout: Option<Duration>,
    /// How long one statement may take.
    pub statement_timeout: Option<Duration>,
    /// How `CREATE INDEX CONCURRENTLY` is run.
    pub index: IndexBuild,
    /// There is no way back, and that is meant.
    pub irreversible: bool,
    /// Lint rules that the file may break.
    pub allow: Vec<Allow>,
}

/// A lint rule that a file may break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// The rule's name.
    pub rule: String,
    /// Why it is right here.
    pub reason: String,
    /// The line of the comment, from 1.
    pub line: usize,
}

/// How `CREATE INDEX CONCURRENTLY` is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IndexBuild {
    /// As a plain CREATE INDEX where the table is small: that takes milliseconds, while the concurrent
    /// one waits for every older snapshot in the database.
    #[default]
    Auto,
    /// As it is written.
    Concurrently,
    /// Always as a plain CREATE INDEX, which keeps writers out meanwhile.
    Plain,
}

impl Script {
    /// Reads a file's text; what is wrong with it is added to the problems.
    pub(super) fn read(file: &str, text: String, problems: &mut Vec<String>) -> Self {
        let statements = sql::statements(&text);
        let first_line = text.lines().next().unwrap_or_default().trim_end();
        let transactional = first_line != "-- no-transaction";
        if text.contains('\0') {
            problems.push(format!("`{file}` holds a NUL byte"));
        }
        if statements.is_empty() {
            problems.push(format!("`{file}` holds no statement"));
        }
        for statement in statements.iter().filter(|s| sql::controls_transaction(s)) {
            problems.push(format!(
                "`{file}`, line {}: `{}` would split the transaction that makes the file whole or absent",
                statement.line, statement.opening
            ));
        }
        let options = ScriptOptions::read(file, &text, problems);
        let script = Self { file: file.to_owned(), text, transactional, options, statements };
        for statement in script.statements.iter().filter(|_| !transactional) {
            if let Err(problem) = outside::step(&script, statement) {
                problems.push(format!("`{file}`, line {}: {problem}", statement.line));
            }
        }
        script
    }

    /// A statement's own text.
    pub(super) fn statement(&self, statement: &Statement) -> &str {
        &self.text[statement.range.clone()]
    }

    /// The beginning of a statement, on one line, for people.
    pub(super) fn excerpt(&self, statement: &Statement) -> String {
        const MAX_CHARS: usize = 120;
        let words: Vec<&str> = self.statement(statement).split_whitespace().collect();
        let line = words.join(" ");
        match line.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

impl ScriptOptions {
    fn read(file: &str, text: &str, problems: &mut Vec<String>) -> Self {
        let mut options = Self::default();
        for comment in sql::line_comments(text) {
            let words = comment.text.trim_start_matches('-').trim_start();
            let Some(asked) = words.strip_prefix("tenantry:") else {
                if words == "no-transaction" && comment.line != 1 {
                    problems.push(format!(
                        "`{file}`, line {}: `-- no-transaction` counts in the first line only",
                        comment.line
                    ));
                }
                continue;
            };
            if let Err(problem) = options.take(asked, comment.line) {
                problems.push(format!("`{file}`, line {}: {problem}", comment.line));
            }
        }
        options
    }

    fn take(&mut self, asked: &str, line: usize) -> Result<(), String> {
        let mut rest = asked.trim();
        while !rest.is_empty() {
            rest = if let Some(allow) = rest.strip_prefix("allow=") {
                self.take_allow(allow, line)?
            } else {
                let (option, rest) = rest.split_once(',').unwrap_or((rest, ""));
                self.take_plain(option.trim())?;
                rest
            };
            rest = rest.trim_start_matches([',', ' ', '\t']);
        }
        Ok(())
    }

    fn take_plain(&mut self, option: &str) -> Result<(), String> {
        match option.split_once('=').map_or((option, None), |(k, v)| (k.trim(), Some(v.trim()))) {
            ("irreversible", None) => self.irreversible = true,
            ("lock_timeout", Some(value)) => self.lock_timeout = Some(duration(value)?),
            ("statement_timeout", Some(value)) => self.statement_timeout = Some(duration(value)?),
            ("index", Some("auto")) => self.index = IndexBuild::Auto,
            ("index", Some("concurrently")) => self.index = IndexBuild::Concurrently,
            ("index", Some("plain")) => self.index = IndexBuild::Plain,
            _ => {
                return Err(format!(
                    "`{option}` is not an option: there are `lock_timeout=…`, `statement_timeout=…`, \
                     `index=auto|concurrently|plain`, `irreversible` and `allow=<rule> reason=\"…\"`"
                ));
            }
        }
        Ok(())
    }

    /// `<rule> reason="…"`; yields what follows.
    fn take_allow<'a>(&mut self, text: &'a str, line: usize) -> Result<&'a str, String> {
        const FORM: &str = "an exception is written `allow=<rule> reason=\"why it is right here\"`";
        let (rule, rest) = text.split_once(' ').ok_or(FORM)?;
        let quoted = rest.trim_start().strip_prefix("reason=\"").ok_or(FORM)?;
        let (reason, rest) = quoted.split_once('"').ok_or(FORM)?;
        if rule.is_empty() || reason.trim().is_empty() {
            return Err(FORM.to_owned());
        }
        self.allow.push(Allow { rule: rule.to_owned(), reason: reason.to_owned(), line });
        Ok(rest)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Option<SignedDuration> = text.parse().ok();
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| *duration >= Duration::from_millis(1))
        .ok_or_else(|| format!("`{text}` is not a duration such as `500ms`, `2s` or `10min`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Script, String> {
        let mut problems = Vec::new();
        let script = Script::read("x.sql", text.to_owned(), &mut problems);
        if problems.is_empty() { Ok(script) } else { Err(problems.join("\n")) }
    }

    #[test]
    fn comments_carry_options() {
        let script = read(
            "-- no-transaction\n-- tenantry: lock_timeout=500ms, statement_timeout=10min, irreversible\n\
             -- tenantry: allow=drop-column reason=\"nobody reads it, since May\", index=plain\nSELECT 1;",
        )
        .unwrap();
        assert!(!script.transactional);
        let options = &script.options;
        assert_eq!(options.lock_timeout, Some(Duration::from_millis(500)));
        assert_eq!(options.statement_timeout, Some(Duration::from_secs(600)));
        assert!(options.irreversible);
        assert_eq!(options.index, IndexBuild::Plain);
        let [allow] = options.allow.as_slice() else { panic!("{options:?}") };
        assert_eq!((allow.rule.as_str(), allow.line), ("drop-column", 3));
        assert_eq!(allow.reason, "nobody reads it, since May");
    }

    #[test]
    fn an_option_in_a_text_is_none() {
        let script = read("SELECT '\n-- tenantry: nonsense\n';").unwrap();
        assert_eq!(script.options, ScriptOptions::default());
    }

    #[test]
    fn what_was_meant_and_is_not_understood_is_an_error() {
        for (text, problem) in [
            ("-- tenantry: lock_timeuot=5s\nSELECT 1", "`lock_timeuot=5s` is not an option"),
            ("-- tenantry: lock_timeout=soon\nSELECT 1", "`soon` is not a duration"),
            ("-- tenantry: lock_timeout=0s\nSELECT 1", "`0s` is not a duration"),
            ("-- tenantry: allow=drop-column\nSELECT 1", "an exception is written"),
            ("-- tenantry: allow=drop-column reason=\" \"\nSELECT 1", "an exception is written"),
            ("-- why\n-- no-transaction\nSELECT 1", "counts in the first line only"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }
}
