//! Reading SQL as tokens: enough to compare files by meaning, and to see what a statement begins
//! with. PostgreSQL parses; this only looks.

use std::ops::Range;

use sha2::{Digest, Sha256};
use squawk_lexer::TokenKind;

/// SHA-256 of a file's bytes, line ends unified so that a checkout on Windows changes nothing.
pub(super) fn checksum(text: &str) -> [u8; 32] {
    Sha256::digest(text.replace("\r\n", "\n")).into()
}

/// SHA-256 of a file's tokens: the same for two files that differ in comments and white space only.
pub(super) fn token_checksum(text: &str) -> [u8; 32] {
    let text = text.replace("\r\n", "\n");
    let mut hash = Sha256::new();
    for token in tokens(&text) {
        // The length keeps `ab c` and `a bc` apart.
        hash.update((token.text.len() as u64).to_be_bytes());
        hash.update(token.text);
    }
    hash.finalize().into()
}

/// A statement of a file, as far as it can be known without parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Its first words, in capitals, one space between: at most two.
    pub(crate) opening: String,
    /// The line of its first token, from 1.
    pub(crate) line: usize,
    /// Where its tokens stand in the file, in bytes, without the semicolon.
    pub(crate) range: Range<usize>,
}

/// The statements of a file. `BEGIN ATOMIC … END` of a function body belongs to its statement.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut previous = String::new();
    let (mut line, mut depth) = (0, 0_usize);
    let (mut in_body, mut at_start) = (false, true);
    let mut range = 0..0;
    let statement = |words: &[String], line, range: &Range<usize>| Statement {
        opening: words[..words.len().min(2)].join(" "),
        line,
        range: range.clone(),
    };
    for token in tokens(text) {
        let word = token.text.to_uppercase();
        if token.kind == TokenKind::Semi && !in_body {
            if !words.is_empty() {
                statements.push(statement(&words, line, &range));
            }
            words.clear();
            continue;
        }
        if in_body && at_start && word == "END" {
            in_body = false;
        }
        // Anywhere else they are names, and what follows must not hide behind them.
        let opens = previous == "BEGIN" && word == "ATOMIC" && depth == 0 && makes_routine(&words);
        in_body |= opens;
        at_start = token.kind == TokenKind::Semi || opens;
        if words.is_empty() {
            (line, range, depth) = (token.line, token.range.clone(), 0);
        }
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        range.end = token.range.end;
        if words.len() < 4 {
            words.push(word.clone());
        }
        previous = word;
    }
    if !words.is_empty() {
        statements.push(statement(&words, line, &range));
    }
    statements
}

/// Whether a statement that begins so makes a function or procedure.
fn makes_routine(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["CREATE", "FUNCTION" | "PROCEDURE", ..]
            | ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE", ..]
    )
}

/// Whether the statement would end or split the transaction that the file runs in.
pub(super) fn controls_transaction(statement: &Statement) -> bool {
    let first = statement.opening.split(' ').next().unwrap_or_default();
    matches!(first, "BEGIN" | "COMMIT" | "ROLLBACK" | "ABORT" | "END" | "SAVEPOINT" | "RELEASE")
        || matches!(statement.opening.as_str(), "START TRANSACTION" | "PREPARE TRANSACTION")
}

/// A name as the catalog has it, from a token that is one.
pub(super) fn catalog_name(token: &str) -> String {
    match token.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => token.to_lowercase(),
    }
}

/// A token, with its place in the file.
pub(super) struct TokenText<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    /// From 1.
    pub(super) line: usize,
    /// In bytes.
    pub(super) range: Range<usize>,
}

/// What means something to the server: no comments, no white space.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = TokenText<'_>> {
    all_tokens(text).filter(|token| {
        !matches!(
            token.kind,
            TokenKind::Whitespace
                | TokenKind::LineComment
                | TokenKind::BlockComment { .. }
                | TokenKind::Eof
        )
    })
}

/// The comments that end with their line.
pub(super) fn line_comments(text: &str) -> impl Iterator<Item = TokenText<'_>> {
    all_tokens(text).filter(|token| token.kind == TokenKind::LineComment)
}

fn all_tokens(text: &str) -> impl Iterator<Item = TokenText<'_>> {
    let mut at = 0;
    let mut line = 1;
    squawk_lexer::tokenize(text).map(move |token| {
        let range = at..at + token.len as usize;
        at = range.end;
        let piece = &text[range.clone()];
        let starts_at = line;
        line += piece.matches('\n').count();
        TokenText { kind: token.kind, text: piece, line: starts_at, range }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_white_space_and_line_ends_do_not_change_the_token_checksum() {
        let plain = "CREATE TABLE a (b text);";
        for same in
            ["-- licence\nCREATE TABLE a (b text);", "CREATE  TABLE a\r\n(b /* why */ text);"]
        {
            assert_eq!(token_checksum(plain), token_checksum(same), "{same}");
            assert_ne!(checksum(plain), checksum(same));
        }
        for other in
            ["CREATE TABLE a (c text);", "CREATE TABLE a (b text)", "CREATE TABLE ab (text);"]
        {
            assert_ne!(token_checksum(plain), token_checksum(other), "{other}");
        }
        assert_eq!(checksum("a\r\nb"), checksum("a\nb"));
    }

    #[test]
    fn statements_are_found_where_postgres_would_find_them() {
        let text = "-- ; COMMIT\nCREATE TABLE a (b text DEFAULT ';');\n/* ROLLBACK; */\n\
                    CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $x$ COMMIT; $x$;\n\
                    CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;\n\
                    commit;";
        let found = statements(text);
        let openings: Vec<_> = found.iter().map(|s| (s.opening.as_str(), s.line)).collect();
        assert_eq!(
            openings,
            [("CREATE TABLE", 2), ("CREATE FUNCTION", 4), ("CREATE FUNCTION", 5), ("COMMIT", 6)]
        );
        let control: Vec<_> =
            found.iter().filter(|s| controls_transaction(s)).map(|s| s.line).collect();
        assert_eq!(control, [6]);
    }
}
