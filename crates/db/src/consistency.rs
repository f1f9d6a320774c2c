//! Consistency tokens: a position in the WAL that travels with a client, so that no read shows it an older
//! state than it has written or seen, whichever process answers, and no process keeps anything for it.
//!
//! A token is sealed with a key of the installation's for one tenant: a WAL position says how much
//! everybody together has written, which is no tenant's business. It grants nothing. One that can't be
//! opened (forged, damaged, another tenant's) costs a read on the primary.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio_postgres::types::PgLsn;

use crate::ids::TenantId;
use crate::secret::{LaneSecret, Secret};

const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
const BODY_BYTES: usize = 8 + 4 + 4;
const BYTES: usize = 1 + TAG_BYTES + BODY_BYTES;

/// Where a server's WAL stood, in which history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lsn: PgLsn,
    pub(crate) timeline: u32,
}

/// What a token asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A state that is no older than this.
    Position(Position),
    /// Nothing any more: it is so old that every replica in use has passed it.
    Nothing,
    /// Nobody knows.
    Unknown,
}

/// Seals and opens tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    key: Secret,
    ttl: Duration,
}

impl Tokens {
    pub(crate) fn new(secret: &LaneSecret, ttl: Duration) -> Self {
        // No login has such a name, so no password is a key here.
        Self { key: secret.password("consistency token: sealing"), ttl }
    }

    /// A token for a tenant that has written or seen this.
    pub(crate) fn seal(&self, tenant: TenantId, position: Position) -> String {
        self.seal_at(now_s(), tenant, position)
    }

    /// What the token asks for, if it is this tenant's.
    pub(crate) fn open(&self, tenant: TenantId, token: &str) -> Asked {
        self.open_at(now_s(), tenant, token)
    }

    fn seal_at(&self, now_s: u32, tenant: TenantId, position: Position) -> String {
        let mut body = [0; BODY_BYTES];
        body[..8].copy_from_slice(&u64::from(position.lsn).to_be_bytes());
        body[8..12].copy_from_slice(&position.timeline.to_be_bytes());
        body[12..].copy_from_slice(&now_s.to_be_bytes());
        let tag = self.tag(tenant, &body);
        self.mask(&tag, &mut body);
        let bytes = [&[VERSION][..], &tag, &body].concat();
        BASE64URL_NOPAD.encode(&bytes)
    }

    fn open_at(&self, now_s: u32, tenant: TenantId, token: &str) -> Asked {
        let Some((tag, mut body)) = parts(token) else { return Asked::Unknown };
        self.mask(&tag, &mut body);
        // Timing tells nothing worth knowing here: a forged token only costs its sender.
        if self.tag(tenant, &body) != tag {
            return Asked::Unknown;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, rest @ ..] = body;
        let issued_s = u32::from_be_bytes(rest);
        if Duration::from_secs(now_s.saturating_sub(issued_s).into()) > self.ttl {
            return Asked::Nothing;
        }
        Asked::Position(Position {
            lsn: u64::from_be_bytes([a, b, c, d, e, f, g, h]).into(),
            timeline: u32::from_be_bytes([i, j, k, l]),
        })
    }

    /// Binds body and tenant together; also what the body is masked with, so that no two bodies share a
    /// mask (the construction is SIV's, RFC 5297, over HMAC).
    fn tag(&self, tenant: TenantId, body: &[u8; BODY_BYTES]) -> [u8; TAG_BYTES] {
        let mac = self.mac(b"tag").chain_update(tenant.as_uuid().as_bytes()).chain_update(body);
        first(&mac.finalize().into_bytes())
    }

    fn mask(&self, tag: &[u8; TAG_BYTES], body: &mut [u8; BODY_BYTES]) {
        let mask: [u8; BODY_BYTES] =
            first(&self.mac(b"mask").chain_update(tag).finalize().into_bytes());
        body.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }

    fn mac(&self, purpose: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(self.key.expose().as_bytes())
            .expect("HMAC takes a key of any length")
            .chain_update(purpose)
    }
}

fn parts(token: &str) -> Option<([u8; TAG_BYTES], [u8; BODY_BYTES])> {
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
    let bytes: [u8; BYTES] = bytes.try_into().ok()?;
    let (version, rest) = bytes.split_first()?;
    let (tag, body) = rest.split_first_chunk::<TAG_BYTES>()?;
    (*version == VERSION).then_some((*tag, *body.first_chunk()?))
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("SHA-256 has 32 bytes")
}

/// Seconds since 1970; good until 2106.
fn now_s() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(key: &str) -> Tokens {
        let secret = LaneSecret::new(Secret::new(key.repeat(32))).unwrap();
        Tokens::new(&secret, Duration::from_secs(3600))
    }

    fn at() -> Position {
        Position { lsn: 77.into(), timeline: 3 }
    }

    #[test]
    fn it_is_the_tenants_own_and_grows_old() {
        let (tokens, tenant) = (tokens("a"), TenantId::random());
        let token = tokens.seal_at(1000, tenant, at());
        assert_eq!(tokens.open_at(1000, tenant, &token), Asked::Position(at()));
        assert_eq!(tokens.open_at(900, tenant, &token), Asked::Position(at()), "a clock behind");
        assert_eq!(tokens.open_at(4600, tenant, &token), Asked::Position(at()));
        assert_eq!(tokens.open_at(4601, tenant, &token), Asked::Nothing);
        assert_eq!(tokens.open_at(1000, TenantId::random(), &token), Asked::Unknown);
        assert_eq!(self::tokens("b").open_at(1000, tenant, &token), Asked::Unknown);
    }

    #[test]
    fn it_shows_nothing_of_its_position() {
        let (tokens, tenant) = (tokens("a"), TenantId::random());
        let tokens: Vec<String> = (0..3_u64)
            .map(|n| {
                let position = Position { lsn: n.into(), timeline: 1 };
                tokens.seal_at(1000, tenant, position)
            })
            .collect();
        // Neighbours have nothing in common behind the version.
        assert!(tokens.windows(2).all(|pair| pair[0][24..34] != pair[1][24..34]), "{tokens:?}");
    }

    proptest! {
        #[test]
        fn every_position_survives(lsn: u64, timeline: u32, at: u32, id: u128) {
            let tenant = TenantId::from(uuid::Uuid::from_u128(id));
            let position = Position { lsn: lsn.into(), timeline };
            let token = tokens("a").seal_at(at, tenant, position);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(tokens("a").open_at(at, tenant, &token), Asked::Position(position));
        }

        #[test]
        fn nothing_else_opens(text in "\\PC{0,60}|AQ[A-Za-z0-9_-]{42}", flip in 0..44_usize, to: char) {
            let (tokens, tenant) = (tokens("a"), TenantId::random());
            prop_assert_eq!(tokens.open_at(1000, tenant, &text), Asked::Unknown);
            let token = tokens.seal_at(1000, tenant, at());
            let mut changed: Vec<char> = token.chars().collect();
            changed[flip] = to;
            let changed: String = changed.into_iter().collect();
            if changed != token {
                prop_assert_eq!(tokens.open_at(1000, tenant, &changed), Asked::Unknown);
            }
        }
    }
}
