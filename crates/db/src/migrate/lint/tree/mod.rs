//! The seam to squawk: its parse tree read into facts of our own, its syntax errors and its findings.
//!
//! Nothing outside this module knows squawk's types. Its parser descends by recursion and is young, so
//! what is nested too deeply, in the file or in a body, is not handed to it, and a panic in it is a syntax error here.

mod columns;
mod facts;
mod references;
mod squawk;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use squawk_lexer::TokenKind;
use squawk_syntax::SourceFile;

pub(super) use columns::{Column, Constraint, ConstraintKind};
pub(super) use facts::{Fact, Name, What};
pub(super) use references::Reference;
pub(super) use squawk::Remark;

/// Deeper than people nest, far from what the parser's stack carries.
const MAX_NESTING: usize = 200;

/// What the parser makes of a file.
#[derive(Default)]
pub(super) struct Tree {
    /// In the order of the file, those of bodies that run at once (DO) included.
    pub(super) facts: Vec<Fact>,
    /// Names that stand for tables, types or functions, also in bodies.
    pub(super) references: Vec<Reference>,
    /// Places and messages.
    pub(super) syntax_errors: Vec<(usize, String)>,
    /// What squawk finds.
    pub(super) remarks: Vec<Remark>,
    /// Where each statement stands.
    pub(super) statements: Vec<Range<usize>>,
}

impl Tree {
    pub(super) fn read(text: &str, transactional: bool) -> Self {
        if let Some(at) = nested_too_deeply(text, true) {
            let error = format!("nested more than {MAX_NESTING} times");
            return Self { syntax_errors: vec![(at, error)], ..Self::default() };
        }
        let read = || {
            let parse = SourceFile::parse(text);
            let file = parse.tree();
            let errors = parse.errors().into_iter();
            Self {
                facts: facts::facts(&file),
                references: references::references(&file),
                syntax_errors: errors
                    .map(|e| (usize::from(e.range().start()), e.to_string()))
                    .collect(),
                remarks: squawk::remarks(&parse, text, transactional),
                statements: facts::statements(&file),
            }
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Self {
            syntax_errors: vec![(0, "the parser gave up on this file".to_owned())],
            ..Self::default()
        })
    }

    /// The table that the statement at a place is about.
    pub(super) fn table_at(&self, at: usize) -> Option<&Name> {
        let statement = self.statements.iter().find(|range| range.contains(&at))?;
        self.facts
            .iter()
            .find(|fact| statement.contains(&fact.at))
            .and_then(|fact| fact.what.table())
    }
}

/// A text without its quotes.
fn inner(text: &str) -> &str {
    let dollars = text.strip_prefix('$').and_then(|rest| rest.find('$')).map(|tag| tag + 2);
    let quote = dollars.or_else(|| text.find('\'').map(|quote| quote + 1));
    quote.and_then(|quote| text.get(quote..)).unwrap_or_default()
}

/// Where brackets are nested, or one word is repeated, beyond what the parser is given.
fn nested_too_deeply(text: &str, with_bodies: bool) -> Option<usize> {
    let (mut depth, mut repeated) = (0_usize, 0_usize);
    let mut before = "";
    let mut at = 0;
    for token in squawk_lexer::tokenize(text) {
        let piece = &text[at..at + token.len as usize];
        at += piece.len();
        if with_bodies
            && matches!(token.kind, TokenKind::Literal { .. })
            && nested_too_deeply(inner(piece), false).is_some()
        {
            return Some(at - piece.len());
        }
        match piece {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if piece.trim().is_empty() {
            continue;
        }
        repeated = if piece == before { repeated + 1 } else { 0 };
        before = piece;
        let opens =
            ["case", "begin", "select", "not"].iter().any(|w| piece.eq_ignore_ascii_case(w));
        if depth > MAX_NESTING || (repeated > MAX_NESTING && (opens || piece.len() < 3)) {
            return Some(at - piece.len());
        }
    }
    None
}
