//! A file's text as the lint reads it: as long as the file, so that places stay, without what must
//! not speak to the parser.

/// The text, comments blanked and the runner's placeholders filled.
pub(super) struct Source {
    pub(super) text: String,
    newlines: Vec<usize>,
}

/// What the runner replaces in the public set, and identifiers of equal length.
const PLACEHOLDERS: &[(&str, &str)] =
    &[(":\"tenant_group\"", " \"TENANT_GROUP\""), (":\"reader\"", " \"READER\"")];

impl Source {
    /// A comment can hold instructions for the linter underneath (`squawk-ignore`), which would be an
    /// exception without a reason.
    pub(super) fn read(text: &str, fills_placeholders: bool) -> Self {
        let mut text = text.to_owned();
        if fills_placeholders {
            for (placeholder, filled) in PLACEHOLDERS {
                text = text.replace(placeholder, filled);
            }
        }
        let mut masked = String::with_capacity(text.len());
        let mut at = 0;
        for token in squawk_lexer::tokenize(&text) {
            let piece = &text[at..at + token.len as usize];
            at += piece.len();
            match token.kind {
                squawk_lexer::TokenKind::LineComment
                | squawk_lexer::TokenKind::BlockComment { .. } => {
                    masked.extend(piece.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
                }
                _ => masked.push_str(piece),
            }
        }
        let newlines = masked.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at);
        Self { newlines: newlines.collect(), text: masked }
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay() {
        let text = "-- é squawk-ignore\nGRANT SELECT ON t TO :\"reader\" /* x\ny */;\n";
        let source = Source::read(text, true);
        assert_eq!(source.text.len(), text.len());
        assert!(!source.text.contains("squawk"));
        assert_eq!(source.text.find("GRANT"), text.find("GRANT"));
        assert_eq!(source.line(text.find(';').unwrap()), 3);
        assert!(source.text.contains("TO  \"READER\" "));
        assert!(Source::read(text, false).text.contains(":\"reader\""));
    }
}
