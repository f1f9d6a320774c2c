//! The SQL door: which statements may run in a tenant's transaction.
//!
//! Only text that was written into the program comes here (`&'static str`), and of that only what
//! reads and writes rows. What touches the session (SET, PREPARE, LISTEN, COPY, LOCK, …) or ends the
//! transaction is refused by its first word. The list says what may pass, so that a word that
//! nobody thought of does not.

use crate::error::Error;
use crate::ids::excerpt;

const ADMITTED: &[&str] =
    &["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE", "EXPLAIN"];

/// Lets a statement through, or says what it begins with.
pub(crate) fn admit(sql: &'static str) -> Result<&'static str, Error> {
    let word = first_word(sql);
    let admitted = ADMITTED.iter().any(|admitted| word.eq_ignore_ascii_case(admitted));
    if admitted { Ok(sql) } else { Err(Error::ForbiddenStatement { begins_with: word }) }
}

/// The same for a statement that an operator typed. The one way in for text that is not part of the
/// program: it is for [`operate`](crate::operate) alone, which has the server make sure that it is one
/// statement. No request of a client's may come here.
pub(crate) fn admit_typed(sql: &str) -> Result<(), Error> {
    let word = first_word(sql);
    let admitted = ADMITTED.iter().any(|admitted| word.eq_ignore_ascii_case(admitted));
    let refused = || Error::RefusedStatement { begins_with: excerpt(word) };
    if admitted { Ok(()) } else { Err(refused()) }
}

/// The first word after white space, comments and opening brackets.
fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '(');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if rest.starts_with("/*") {
            rest = after_block_comment(rest);
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// PostgreSQL's block comments nest.
fn after_block_comment(text: &str) -> &str {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return &text[at..];
                }
            }
            _ => at += 1,
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_written() {
        for sql in [
            "SELECT 1",
            "  select 1",
            "\n-- why\n/* a /* nested */ one */ ((SELECT 1) UNION SELECT 2)",
            "WITH x AS (SELECT 1) SELECT 1 FROM x",
            "INSERT INTO users DEFAULT VALUES",
            "UPDATE users SET name = $1",
            "DELETE FROM users",
            "VALUES (1)",
        ] {
            assert!(admit(sql).is_ok() && admit_typed(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for sql in [
            "",
            "SET ROLE x",
            "set local role x",
            "/*SELECT*/ RESET ALL",
            "-- SELECT 1",
            "/* SELECT 1",
            "DO $$ $$",
            "LISTEN x",
            "NOTIFY x",
            "PREPARE x AS SELECT 1",
            "EXECUTE x",
            "DEALLOCATE ALL",
            "COPY users TO STDOUT",
            "LOCK users",
            "CALL x()",
            "DISCARD ALL",
            "DECLARE c CURSOR FOR SELECT 1",
            "FETCH c",
            "BEGIN",
            "START TRANSACTION",
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT s",
            "CREATE TABLE x ()",
            "DROP TABLE users",
            "TRUNCATE users",
            "GRANT x TO y",
            "; SELECT 1",
            "SELECTED",
            "\u{a0}SELECT 1",
        ] {
            assert!(admit(sql).is_err() && admit_typed(sql).is_err(), "{sql}");
        }
    }
}
