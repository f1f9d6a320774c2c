//! The lint reads whatever is written, and never panics.

use proptest::prelude::*;

use super::lint_files;

/// Words that lead the parser and the rules into their corners.
const SOUP: &[&str] = &[
    "CREATE",
    "TABLE",
    "ALTER",
    "DROP",
    "COLUMN",
    "ADD",
    "SET",
    "RESET",
    "LOCAL",
    "ROLE",
    "GRANT",
    "ON",
    "TO",
    "FROM",
    "SELECT",
    "INTO",
    "TEMP",
    "FUNCTION",
    "f()",
    "LANGUAGE",
    "plpgsql",
    "sql",
    "AS",
    "$$",
    "$a$",
    "'",
    "E'\\",
    "\"",
    "U&\"\\00",
    "BEGIN",
    "ATOMIC",
    "END",
    "EXECUTE",
    "DO",
    ";",
    ",",
    "(",
    ")",
    ".",
    ":",
    "::",
    "\\",
    "[",
    "]",
    "REFERENCES",
    "FOREIGN",
    "KEY",
    "PRIMARY",
    "CHECK",
    "UNIQUE",
    "INDEX",
    "CONCURRENTLY",
    "public",
    "tenants",
    "x",
    "é",
    "--",
    "/*",
    "*/",
    "\n",
    "UESCAPE",
    "'!'",
    ":\"reader\"",
    "WHERE",
    "DELETE",
    "UPDATE",
    "TYPE",
    "varchar(3)",
    "DEFAULT",
    "this_tenant()",
    "RENAME",
    "NOT",
    "NULL",
    "VALID",
    "1",
    "1e",
    "0x",
    "$1",
    "-- tenantry: irreversible\n",
];

fn look(text: &str) {
    let files = [("1_a.up.sql", text), ("1_a.down.sql", text)];
    lint_files(&files, &files);
    lint_files(&[], &[("repeatable/a.sql", text)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn of_arbitrary_text(text in "\\PC{0,200}") {
        look(&text);
    }

    #[test]
    fn of_soup(words in prop::collection::vec(prop::sample::select(SOUP), 0..60), space in "[ \\n]?") {
        look(&words.join(&space));
    }
}

proptest! {
    // Each case is a long file, read five times.
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// A good file with a piece cut out.
    #[test]
    fn of_a_mutilated_file(from in 0_usize..20_000, length in 0_usize..2_000) {
        let text = include_str!("../../../../migrations/tenant/0002_create_tenant_schema_tables.up.sql");
        let at = |at: usize| text.floor_char_boundary(at.min(text.len()));
        look(&format!("{}{}", &text[..at(from)], &text[at(from + length)..]));
    }
}

#[test]
fn of_what_is_nested_or_chained_without_end() {
    // Enough to break a parser that recurses without a bound; squawk's takes quadratic time beyond.
    let deep = 300;
    for text in [
        "(".repeat(deep),
        "[".repeat(deep),
        "SELECT ".to_owned() + &"- ".repeat(deep),
        "SELECT ".to_owned() + &"NOT ".repeat(deep),
        "SELECT ".to_owned() + &"CASE WHEN ".repeat(deep),
        "SELECT 1".to_owned() + &" + 1".repeat(deep),
        "SELECT a".to_owned() + &".a".repeat(deep),
        "SELECT 1".to_owned() + &" UNION SELECT 1".repeat(deep),
        "SELECT x".to_owned() + &"::text".repeat(deep),
        "DO $$ ".to_owned() + &"BEGIN ".repeat(deep),
        "DO $$ BEGIN ".to_owned() + &"IF x THEN ".repeat(deep),
        "SELECT * FROM a".to_owned() + &" JOIN a ON x".repeat(deep),
        "SELECT * FROM ".to_owned() + &"a JOIN ".repeat(deep),
        "WITH x AS ".repeat(deep),
        "EXPLAIN ".repeat(deep),
        "/*".repeat(deep),
        "DO ".to_owned() + &(0..100).map(|n| format!("$a{n}$ DO ")).collect::<String>(),
    ] {
        look(&text);
    }
}

/// Far beyond what the parser's stack would carry.
#[test]
fn what_is_nested_too_deeply_is_not_parsed() {
    let brackets = "(".repeat(300_000);
    for text in [
        brackets.clone(),
        format!("DO $x$ BEGIN PERFORM {brackets}; END $x$"),
        format!("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT {brackets}'"),
    ] {
        let findings = lint_files(&[], &[("1_a.up.sql", &text)]);
        assert!(findings.iter().any(|f| f.message == "nested more than 200 times"), "{findings:?}");
    }
}
