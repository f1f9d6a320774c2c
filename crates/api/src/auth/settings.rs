//! The section `[auth]`: which tokens are believed, and where the keys for them come from.

use std::time::Duration;

use tenantry_db::config::Reader;
use tenantry_db::{Error, Secret};

use super::algorithm::Algorithm;
use super::key::Key;
use super::key_set::KeySet;
use super::origin::{JwksUrl, Unread, read_file};
use super::rotating::Intervals;

/// Which tokens the service believes, and how it signs its own.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    pub(crate) source: Option<Source>,
    /// What tokens must say in `iss`.
    pub issuer: String,
    /// What tokens must say in `aud`.
    pub audience: String,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// One secret, shared with whoever issues tokens.
    Secret(Secret),
    /// One public key.
    PublicKey(Key),
    /// A set of public keys that changes.
    Jwks { place: Place, allowed: Vec<Algorithm>, intervals: Intervals },
}

/// Where a set of keys is kept.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Url(JwksUrl),
    /// A file, and what it held at the start.
    File(std::path::PathBuf, KeySet),
}

/// The settings that name a source. At most one may be set.
const SOURCES: [&str; 4] =
    ["auth.secret", "auth.public_key_file", "auth.jwks_file", "auth.jwks_url"];
const ALGORITHMS: &str = "auth.algorithms";

impl AuthSettings {
    /// RFC 7518 asks for a key as long as the hash; a shorter one can be guessed from a token.
    pub const MIN_SECRET_BYTES: usize = 32;

    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let mut set = |key: &str| {
            let text = reader.text(key);
            if text.is_empty() {
                reader.problem(key, "must not be empty");
            }
            text
        };
        let (issuer, audience) = (set("auth.issuer"), set("auth.audience"));
        let leeway = reader.duration("auth.leeway");
        Self { source: source(reader), issuer, audience, leeway }
    }

    /// Whether tokens can be issued here: with a secret. Public keys only check them.
    pub fn can_issue(&self) -> bool {
        matches!(self.source, Some(Source::Secret(_)))
    }

    /// The secret, to sign with.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none.
    pub(crate) fn secret(&self) -> Result<&Secret, Error> {
        match self.source()? {
            Source::Secret(secret) => Ok(secret),
            Source::PublicKey(_) | Source::Jwks { .. } => Err(refused(
                "`auth.secret` is not set: with public keys, only their owner can issue tokens",
            )),
        }
    }

    /// Where keys come from.
    ///
    /// # Errors
    /// [`Error::Config`] if nothing says so.
    pub(crate) fn source(&self) -> Result<&Source, Error> {
        self.source.as_ref().ok_or_else(|| {
            refused(
                "no key for tokens is configured: set one of `auth.secret` \
                 (TENANTRY_AUTH__SECRET), `auth.public_key_file`, `auth.jwks_file`, \
                 `auth.jwks_url`",
            )
        })
    }
}

pub(super) fn refused(problem: impl Into<String>) -> Error {
    Error::Config { problems: vec![problem.into()] }
}

/// Reads everything, so that all problems come at once, also with several sources.
fn source(reader: &mut Reader<'_>) -> Option<Source> {
    let set: Vec<_> = SOURCES.into_iter().filter(|key| !reader.text(key).is_empty()).collect();
    if let [first, others @ ..] = &*set {
        for other in others {
            let rule = format!("can't stand beside `{first}`: keys come from one place");
            reader.problem(other, &rule);
        }
    }
    let intervals = intervals(reader);
    let secret = set.contains(&"auth.secret");
    let allowed = algorithms(reader, secret && set.len() == 1, !secret && !set.is_empty());
    let sources = [
        of_secret(reader),
        of_public_key(reader, &allowed),
        of_jwks_file(reader, &allowed, intervals),
        of_jwks_url(reader, &allowed, intervals),
    ];
    sources.into_iter().flatten().next()
}

fn intervals(reader: &mut Reader<'_>) -> Intervals {
    let intervals = Intervals {
        refresh: reader.duration("auth.jwks_refresh_interval"),
        min_refetch: reader.duration("auth.jwks_min_refetch_interval"),
        timeout: reader.duration("auth.jwks_timeout"),
    };
    if intervals.refresh < intervals.min_refetch {
        let rule = "must not be shorter than `auth.jwks_min_refetch_interval`";
        reader.problem("auth.jwks_refresh_interval", rule);
    }
    intervals
}

/// The algorithms that public keys may be for. A secret has only one, and no public key has it:
/// else whoever knows the public key could sign with it as a secret.
fn algorithms(reader: &mut Reader<'_>, with_secret: bool, with_public: bool) -> Vec<Algorithm> {
    let mut chosen = Vec::new();
    for name in reader.list(ALGORITHMS) {
        match Algorithm::named(&name) {
            None => {
                let rule = format!("can't hold `{name}`: there are HS256, RS256, ES256, EdDSA");
                reader.problem(ALGORITHMS, &rule);
            }
            Some(Algorithm::Hs256) if with_public => {
                let rule = "can't hold HS256 with public keys: everybody knows those";
                reader.problem(ALGORITHMS, rule);
            }
            Some(other) if with_secret && other != Algorithm::Hs256 => {
                let rule = format!("can't hold {other} with `auth.secret`: it needs a public key");
                reader.problem(ALGORITHMS, &rule);
            }
            Some(algorithm) => chosen.push(algorithm),
        }
    }
    if chosen.is_empty() { Algorithm::PUBLIC.to_vec() } else { chosen }
}

fn of_secret(reader: &mut Reader<'_>) -> Option<Source> {
    let text = reader.text("auth.secret");
    if !text.is_empty() && text.len() < AuthSettings::MIN_SECRET_BYTES {
        let rule = format!("needs at least {} bytes", AuthSettings::MIN_SECRET_BYTES);
        reader.problem("auth.secret", &rule);
    }
    (!text.is_empty()).then(|| Source::Secret(Secret::new(text)))
}

fn of_public_key(reader: &mut Reader<'_>, allowed: &[Algorithm]) -> Option<Source> {
    const KEY: &str = "auth.public_key_file";
    let path = reader.path(KEY)?;
    let pem = read_file(&path).map_err(|error| unread(reader, KEY, &error)).ok()?;
    match Key::from_pem(&pem) {
        Ok(key) if !allowed.contains(&key.algorithm()) => {
            let rule = format!("is for {}, which `{ALGORITHMS}` leaves out", key.algorithm());
            reader.problem(KEY, &rule);
            None
        }
        Ok(key) => Some(Source::PublicKey(key)),
        Err(why) => {
            reader.problem(KEY, &format!("can't be used: {why}"));
            None
        }
    }
}

fn of_jwks_file(
    reader: &mut Reader<'_>,
    allowed: &[Algorithm],
    intervals: Intervals,
) -> Option<Source> {
    const KEY: &str = "auth.jwks_file";
    let path = reader.path(KEY)?;
    let document = read_file(&path).map_err(|error| unread(reader, KEY, &error)).ok()?;
    let Some((keys, passed_over)) = KeySet::parse(&document, allowed) else {
        reader.problem(KEY, "can't be used: it is not a JWKS");
        return None;
    };
    if keys.is_empty() {
        let why = passed_over.first().map(|key| format!(": {}", key.why)).unwrap_or_default();
        reader.problem(KEY, &format!("holds no usable key{why}"));
        return None;
    }
    let place = Place::File(path, keys);
    Some(Source::Jwks { place, allowed: allowed.to_vec(), intervals })
}

fn of_jwks_url(
    reader: &mut Reader<'_>,
    allowed: &[Algorithm],
    intervals: Intervals,
) -> Option<Source> {
    const KEY: &str = "auth.jwks_url";
    let text = reader.text(KEY);
    if text.is_empty() {
        return None;
    }
    match JwksUrl::parse(&text) {
        Ok(url) => {
            let place = Place::Url(url);
            Some(Source::Jwks { place, allowed: allowed.to_vec(), intervals })
        }
        Err(rule) => {
            reader.problem(KEY, rule);
            None
        }
    }
}

fn unread(reader: &mut Reader<'_>, key: &str, error: &Unread) {
    let rule = match error {
        Unread::File(cause) => format!("can't be read: {cause}"),
        other => format!("can't be read: {other}"),
    };
    reader.problem(key, &rule);
}
