//! Counting a CSV file as it passes: bytes, rows, SHA-256. Export writes what it yields into the manifest,
//! import compares.

use sha2::{Digest as _, Sha256};

/// A file that passes by, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Tally {
    bytes: u64,
    lines: u64,
    quoted: bool,
    hash: Sha256,
}

/// What a file was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) bytes: u64,
    /// Without the heading.
    pub(super) rows: u64,
    pub(super) sha256: String,
}

impl Tally {
    /// Takes the next piece, wherever it begins and ends.
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
        // A quote within a field is written twice, so whoever has met an odd number stands in a field,
        // where a line's end belongs to the value.
        for (n, part) in piece.split(|byte| *byte == b'"').enumerate() {
            self.quoted ^= n > 0;
            if !self.quoted {
                self.lines += part.iter().filter(|byte| **byte == b'\n').count() as u64;
            }
        }
    }

    /// How many bytes have passed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn counted(self) -> Counted {
        Counted {
            bytes: self.bytes,
            rows: self.lines.saturating_sub(1),
            sha256: data_encoding::HEXLOWER.encode(&self.hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(pieces: &[&str]) -> u64 {
        let mut tally = Tally::default();
        pieces.iter().for_each(|piece| tally.take(piece.as_bytes()));
        tally.counted().rows
    }

    #[test]
    fn a_line_within_a_field_is_no_row() {
        assert_eq!(rows(&["a,b\n"]), 0);
        assert_eq!(rows(&["a\n\n\n"]), 2, "a row of one NULL is an empty line");
        assert_eq!(rows(&["a,b\n1,\"two\nlines\"\n"]), 1);
        assert_eq!(rows(&["a\n\"say \"\"x\n\"\" y\"\n"]), 1);
        assert_eq!(rows(&["a\n\"x", "\n", "\"", "\"\n\"\nz\n"]), 2);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_piece_ends(text in "[a\"\n,]{0,60}", cut in 0_usize..60) {
            let cut = cut.min(text.len());
            prop_assert_eq!(rows(&[&text]), rows(&[&text[..cut], &text[cut..]]));
        }
    }
}
