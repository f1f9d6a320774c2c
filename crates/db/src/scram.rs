//! SCRAM-SHA-256 verifiers (RFC 5803), as PostgreSQL stores them in `pg_authid`.
//!
//! `init` sends verifiers, never passwords, so that no password reaches the server's log. And it
//! compares before it sets: a password that is set anew, even to the same text, makes PgBouncer's
//! clients hang until `query_wait_timeout`.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// A new verifier of the password, with a random salt.
pub(crate) fn verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}

/// Whether the stored verifier belongs to the password.
///
/// Says no for a password outside ASCII (it would have to be normalised first): such a one is set
/// anew each time, which is harmless for a login that does not go through PgBouncer.
pub(crate) fn matches(stored: &str, password: &Secret) -> bool {
    password.expose().is_ascii()
        && recomputed(stored, password).is_some_and(|again| again == stored)
}

fn recomputed(stored: &str, password: &Secret) -> Option<String> {
    let rest = stored.strip_prefix("SCRAM-SHA-256$")?;
    let (iterations, rest) = rest.split_once(':')?;
    let (salt, _keys) = rest.split_once('$')?;
    let mut salted = [0_u8; 32];
    pbkdf2_hmac::<Sha256>(
        password.expose().as_bytes(),
        &BASE64.decode(salt.as_bytes()).ok()?,
        iterations.parse().ok()?,
        &mut salted,
    );
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    Some(format!(
        "SCRAM-SHA-256${iterations}:{salt}${}:{}",
        BASE64.encode(&stored_key),
        BASE64.encode(&server_key),
    ))
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_recognised_by_its_password_only() {
        let password = Secret::new("correct horse battery staple");
        let stored = verifier(&password);
        assert!(stored.starts_with("SCRAM-SHA-256$4096:"), "{stored}");
        assert!(matches(&stored, &password));
        assert!(!matches(&stored, &Secret::new("wrong")));
        for foreign in
            ["", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$", "SCRAM-SHA-256$x:y$z"]
        {
            assert!(!matches(foreign, &password), "{foreign}");
        }
    }
}
