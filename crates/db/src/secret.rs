//! Text that is never printed, and the passwords that are derived from one such text.

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Text that must not reach a log, an error or a screen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Every call is a place where it could leak.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The key behind the passwords of an installation's own logins (`lanes.secret`).
///
/// A password is HMAC-SHA256(key, login name) in hex. So PgBouncer's userlist, the server and the
/// service agree on 34 passwords by sharing one, and a stolen lane password tells nothing of the
/// others.
#[derive(Debug, Clone)]
pub struct LaneSecret(Secret);

impl LaneSecret {
    /// Shorter keys are refused: they could be guessed from one stolen password.
    pub const MIN_CHARS: usize = 32;

    /// Takes a key, if it is long enough.
    pub fn new(key: Secret) -> Option<Self> {
        (key.expose().chars().count() >= Self::MIN_CHARS).then_some(Self(key))
    }

    /// The password of a login.
    pub fn password(&self, login: &str) -> Secret {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose().as_bytes())
            .expect("HMAC takes a key of any length");
        mac.update(login.as_bytes());
        Secret::new(HEXLOWER.encode(&mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "(hidden)");
    }

    #[test]
    fn passwords_are_hmac_sha256_of_the_login() {
        let key = LaneSecret::new(Secret::new("0123456789abcdef0123456789abcdef")).unwrap();
        // printf tenantry_lane_00 | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        assert_eq!(
            key.password("tenantry_lane_00").expose(),
            "9b549ab22719fb231c38ec693769fe04fbf3d4cd3d1d91adea8728a16ef58a11"
        );
        assert_ne!(key.password("tenantry_lane_00"), key.password("tenantry_lane_01"));
        assert!(LaneSecret::new(Secret::new("short")).is_none());
    }
}
