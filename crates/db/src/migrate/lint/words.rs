//! A file as words: names and texts decoded (`U&"…"`, `E'…'`, case), function bodies opened.
//!
//! The rules that guard the wall between tenants read these and not the parse tree, so that a
//! statement the parser does not know can't hide from them.

use squawk_lexer::{LiteralKind, TokenKind};
use squawk_syntax::decoded_text::DecodedText;
use squawk_syntax::unescape::{decode_esc_string, decode_plain_string, decode_unicode_esc_string};

/// Bodies within bodies are opened to this depth.
const MAX_DEPTH: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word without quotes, in lower case.
    Name,
    /// A name in quotes, decoded.
    Quoted,
    /// A text, decoded.
    Text,
    /// Everything else, as it stands.
    Sign,
}

#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) kind: Kind,
    pub(super) text: String,
    /// Where it stands in the file, in bytes.
    pub(super) at: usize,
    /// Of a text: which byte of the file each of its own comes from.
    decoded: Option<DecodedText>,
}

impl Word {
    /// Whether it is this keyword, which can't be quoted.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Name && self.text == keyword
    }

    /// Whether it is this sign.
    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// The name it may stand for, quoted or not.
    pub(super) fn name(&self) -> Option<&str> {
        matches!(self.kind, Kind::Name | Kind::Quoted).then_some(self.text.as_str())
    }
}

/// A statement, or a part of one that begins like one.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) words: Vec<Word>,
    /// Whether it stands in the body of a function or of a DO.
    pub(super) in_body: bool,
}

impl Piece {
    /// Whether it begins with these keywords.
    pub(super) fn opens(&self, keywords: &[&str]) -> bool {
        self.words.len() >= keywords.len()
            && self.words.iter().zip(keywords).all(|(word, keyword)| word.is(keyword))
    }

    /// Whether these keywords follow one another in it; and where.
    pub(super) fn find(&self, keywords: &[&str]) -> Option<usize> {
        let fits = |at: &[Word]| at.iter().zip(keywords).all(|(word, keyword)| word.is(keyword));
        self.words.windows(keywords.len()).position(fits)
    }

    /// The place of its first word.
    pub(super) fn at(&self) -> usize {
        self.words.first().map_or(0, |word| word.at)
    }

    /// Of CREATE, ALTER or DROP: what kind of thing, past the words that only modify it.
    pub(super) fn object(&self) -> Option<(&str, &str)> {
        const MODIFIERS: &[&str] = &[
            "or",
            "replace",
            "global",
            "local",
            "temp",
            "temporary",
            "unlogged",
            "recursive",
            "trusted",
            "procedural",
            "unique",
        ];
        let verb =
            self.words.first().filter(|w| ["create", "alter", "drop"].iter().any(|v| w.is(v)))?;
        let object =
            self.words.iter().skip(1).find(|word| !MODIFIERS.iter().any(|m| word.is(m)))?;
        Some((verb.text.as_str(), object.text.as_str()))
    }
}

/// The pieces of a file's text, those of bodies behind the statement that holds them.
pub(super) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    split(words(text, &|at| at), false, 0, &mut pieces);
    pieces
}

/// In a body, statements also begin behind these.
const OPENERS: &[&str] = &["begin", "then", "else", "loop"];

fn split(words: Vec<Word>, in_body: bool, depth: usize, pieces: &mut Vec<Piece>) {
    let mut current: Vec<Word> = Vec::new();
    let mut finish = |current: &mut Vec<Word>| {
        let piece = Piece { words: std::mem::take(current), in_body };
        let bodies = if depth < MAX_DEPTH { bodies(&piece) } else { Vec::new() };
        if !piece.words.is_empty() {
            pieces.push(piece);
        }
        for body in bodies {
            split(body, true, depth + 1, pieces);
        }
    };
    for word in words {
        let ends = word.is_sign(";");
        let opens = word.is("atomic") || (in_body && OPENERS.iter().any(|opener| word.is(opener)));
        if !ends {
            current.push(word);
        }
        if ends || opens {
            finish(&mut current);
        }
    }
    finish(&mut current);
}

/// The texts of a piece that are run as statements.
fn bodies(piece: &Piece) -> Vec<Vec<Word>> {
    let routine = matches!(piece.object(), Some(("create", "function" | "procedure")));
    // Of EXECUTE only what stands there as a text can be seen.
    let runs_text = piece.opens(&["do"]) || (piece.in_body && piece.find(&["execute"]).is_some());
    let mut bodies = Vec::new();
    for (before, word) in
        std::iter::once(None).chain(piece.words.iter().map(Some)).zip(&piece.words)
    {
        let is_body = runs_text || (routine && before.is_some_and(|before| before.is("as")));
        if let (true, Kind::Text, Some(decoded)) = (is_body, word.kind, &word.decoded) {
            let place = |at: usize| usize::from(decoded.source_pos(offset(at).into()));
            bodies.push(words(&word.text, &place));
        }
    }
    bodies
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

struct Token<'a> {
    kind: TokenKind,
    text: &'a str,
    at: usize,
}

fn words(text: &str, place: &dyn Fn(usize) -> usize) -> Vec<Word> {
    let mut at = 0;
    let tokens: Vec<Token<'_>> = squawk_lexer::tokenize(text)
        .map(|token| {
            let start = at;
            at += token.len as usize;
            Token { kind: token.kind, text: &text[start..at], at: start }
        })
        .filter(|token| !is_trivia(token.kind))
        .collect();
    let mut words: Vec<Word> = Vec::with_capacity(tokens.len());
    let mut tokens_left = tokens.iter().enumerate();
    while let Some((index, token)) = tokens_left.next() {
        let escape = tokens.get(index + 1..).map_or('\\', uescape);
        let at = place(token.at);
        let (kind, text, decoded) = match token.kind {
            TokenKind::Ident => (Kind::Name, token.text.to_lowercase(), None),
            TokenKind::QuotedIdent { uescape, .. } => {
                (Kind::Quoted, quoted(token, if uescape { Some(escape) } else { None }), None)
            }
            TokenKind::Literal { kind } => match text_of(kind, token, escape, place) {
                Some(decoded) => (Kind::Text, decoded.text().to_owned(), Some(decoded)),
                None => (Kind::Sign, token.text.to_owned(), None),
            },
            _ => (Kind::Sign, token.text.to_owned(), None),
        };
        if takes_uescape(token.kind) && is_uescape(tokens.get(index + 1)) {
            tokens_left.nth(1);
        }
        // Texts behind one another are one to the server.
        match words.last_mut() {
            Some(last) if last.kind == Kind::Text && kind == Kind::Text => {
                if let (Some(into), Some(more)) = (&mut last.decoded, &decoded) {
                    into.push_str(more.text(), more.source_pos(0.into()));
                    last.text.push_str(&text);
                }
            }
            _ => words.push(Word { kind, text, at, decoded }),
        }
    }
    words
}

fn is_trivia(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::Whitespace
            | TokenKind::LineComment
            | TokenKind::BlockComment { .. }
            | TokenKind::Eof
    )
}

fn takes_uescape(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::QuotedIdent { uescape: true, .. }
            | TokenKind::Literal { kind: LiteralKind::UnicodeEscStr { .. } }
    )
}

fn is_uescape(token: Option<&Token<'_>>) -> bool {
    token.is_some_and(|token| token.text.eq_ignore_ascii_case("uescape"))
}

/// The escape character that `UESCAPE '…'` names behind a name or text.
fn uescape(rest: &[Token<'_>]) -> char {
    match rest {
        [word, text, ..] if is_uescape(Some(word)) => {
            text.text.trim_matches('\'').chars().next().unwrap_or('\\')
        }
        _ => '\\',
    }
}

fn quoted(token: &Token<'_>, escape: Option<char>) -> String {
    let inner = token.text.split_once('"').map_or("", |(_, inner)| inner);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    match escape {
        Some(escape) => {
            let mut out = DecodedText::new(0.into());
            // It reads doubled apostrophes, which a name does not have.
            decode_unicode_esc_string(&inner.replace("\"\"", "\""), 0.into(), escape, &mut out);
            out.into_text()
        }
        None => inner.replace("\"\"", "\""),
    }
}

/// A text's own characters; nothing for numbers and bits.
fn text_of(
    kind: LiteralKind,
    token: &Token<'_>,
    escape: char,
    place: &dyn Fn(usize) -> usize,
) -> Option<DecodedText> {
    let dollar = matches!(kind, LiteralKind::DollarQuotedString { .. });
    let opening = if dollar {
        2 + token.text.strip_prefix('$')?.find('$')?
    } else {
        1 + token.text.find('\'')?
    };
    let closing = if dollar { &token.text[..opening] } else { "'" };
    let inner = token.text.get(opening..)?;
    let inner = inner.strip_suffix(closing).unwrap_or(inner);
    let pos = offset(place(token.at + opening)).into();
    let mut out = DecodedText::new(pos);
    match kind {
        LiteralKind::Str { .. } | LiteralKind::NationalStr { .. } => {
            decode_plain_string(inner, pos, &mut out);
        }
        LiteralKind::EscStr { .. } => decode_esc_string(inner, pos, &mut out),
        LiteralKind::UnicodeEscStr { .. } => {
            decode_unicode_esc_string(inner, pos, escape, &mut out);
        }
        LiteralKind::DollarQuotedString { .. } => out.push_str(inner, pos),
        LiteralKind::Int { .. }
        | LiteralKind::Numeric { .. }
        | LiteralKind::ByteStr { .. }
        | LiteralKind::BitStr { .. } => return None,
    }
    Some(out)
}
