//! The cursor: a row's position in a list, opaque to clients.
//!
//! A version byte, the moment in microseconds, the id; base64url. It holds no secret and grants
//! nothing: whoever forges one gets another page of a list that they may read anyway.

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use tenantry_db::models::page::Position;
use uuid::Uuid;

const VERSION: u8 = 1;
const BYTES: usize = 1 + 8 + 16;

pub(crate) fn encode(position: &Position) -> String {
    let mut bytes = [VERSION; BYTES];
    bytes[1..9].copy_from_slice(&position.created_at.as_microsecond().to_be_bytes());
    bytes[9..].copy_from_slice(position.id.as_bytes());
    BASE64URL_NOPAD.encode(&bytes)
}

/// The position, if the text is what [`encode`] made.
pub(crate) fn decode(text: &str) -> Option<Position> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let bytes: [u8; BYTES] = bytes.try_into().ok()?;
    let (version, rest) = bytes.split_first()?;
    let (moment, id) = rest.split_first_chunk::<8>()?;
    let created_at = Timestamp::from_microsecond(i64::from_be_bytes(*moment)).ok()?;
    // No row is older, and PostgreSQL's calendar ends before jiff's.
    let usable = *version == VERSION && created_at >= Timestamp::UNIX_EPOCH;
    usable.then_some(Position { created_at, id: Uuid::from_slice(id).ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_forged_position_beyond_the_calendar_is_refused() {
        let year_9000_bc = Timestamp::from_second(-346_000_000_000).unwrap();
        let text = encode(&Position { created_at: year_9000_bc, id: Uuid::nil() });
        assert_eq!(decode(&text), None);
    }

    proptest! {
        #[test]
        fn a_position_survives(micros in 0..253_402_207_200_000_000_i64, id: u128) {
            let created_at = Timestamp::from_microsecond(micros).unwrap();
            let position = Position { created_at, id: Uuid::from_u128(id) };
            let text = encode(&position);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(decode(&text), Some(position));
        }

        #[test]
        fn what_can_be_read_was_written_by_us(text in "\\PC{0,40}|[A-Za-z0-9_-]{33,35}|AQA[A-Za-z0-9_-]{31}") {
            if let Some(position) = decode(&text) {
                prop_assert_eq!(encode(&position), text);
            }
        }
    }
}
