//! One key that signatures are checked with, from a secret, a PEM or a JWK.
//!
//! A key knows its only algorithm from its own type. Whatever the library would find out at the
//! first token (a point that is not on the curve, a modulus that is too short) is found out here, so
//! that it is reported once, to the operator, instead of as a refused token to everybody.

use aws_lc_rs::io::Positive;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, RsaSubjectPublicKey, VerificationAlgorithm,
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value};
use tenantry_db::Secret;

use super::algorithm::Algorithm;

/// A key and its algorithm.
#[derive(Clone)]
pub(crate) struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (hidden)", self.algorithm)
    }
}

/// Why a key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it holds no `BEGIN PUBLIC KEY`")]
    NoPublicKey,
    #[error("it holds a private key, which belongs to the issuer of tokens alone")]
    Private,
    #[error(
        "it holds a certificate: take the key out of it with `openssl x509 -pubkey -noout -in …`"
    )]
    Certificate,
    #[error("it holds several keys: use a JWKS for that")]
    Several,
    #[error("it is symmetric (`oct`): whoever can read it can sign")]
    Symmetric,
    #[error("its type is not RSA, EC on P-256, or Ed25519")]
    Type,
    #[error("it is not well-formed")]
    Malformed,
    #[error("RSA needs 2048 to 8192 bits")]
    RsaLength,
    #[error("it is not for signatures (`use`, `key_ops`)")]
    Use,
    #[error("its `alg` is not supported, or not for its type")]
    Algorithm,
    #[error("`auth.algorithms` leaves out {0}")]
    NotAllowed(Algorithm),
    #[error("its `kid` is not text of at most 255 bytes")]
    KeyId,
    #[error("a key before it has the same `kid` and algorithm")]
    Duplicate,
}

/// What the DER of an Ed25519 public key begins with; 32 bytes follow (RFC 8410).
const ED25519_PREFIX: &[u8] =
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What the DER of an EC public key on P-256 begins with; an uncompressed point follows (RFC 5480).
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The object identifier `rsaEncryption`.
const RSA_OID: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

impl Key {
    /// The shared secret.
    pub(super) fn from_secret(secret: &Secret) -> Self {
        let decoding = DecodingKey::from_secret(secret.expose().as_bytes());
        Self { algorithm: Algorithm::Hs256, decoding }
    }

    /// The only public key in a PEM.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, Unusable> {
        let mut found = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section.map_err(|_| Unusable::Malformed)?;
            match kind {
                SectionKind::PublicKey if found.is_some() => return Err(Unusable::Several),
                SectionKind::PublicKey => found = Some(der),
                SectionKind::Certificate => return Err(Unusable::Certificate),
                SectionKind::PrivateKey
                | SectionKind::RsaPrivateKey
                | SectionKind::EcPrivateKey => return Err(Unusable::Private),
                _ => {}
            }
        }
        Self::from_der(&found.ok_or(Unusable::NoPublicKey)?)
    }

    fn from_der(der: &[u8]) -> Result<Self, Unusable> {
        if let Some(point) = der.strip_prefix(ED25519_PREFIX) {
            return Self::ed25519(point);
        }
        if let Some(point) = der.strip_prefix(P256_PREFIX) {
            return Self::p256(point);
        }
        // The identifier stands within the first 20 bytes, whatever the length of the key.
        if !der.iter().take(20).copied().collect::<Vec<_>>().windows(11).any(|w| w == RSA_OID) {
            return Err(Unusable::Type);
        }
        let key = RsaSubjectPublicKey::from_der(der).map_err(|_| Unusable::Malformed)?;
        let bytes = |n: Positive<'_>| n.big_endian_without_leading_zero().to_vec();
        Self::rsa(&bytes(key.modulus()), &bytes(key.exponent()))
    }

    /// A JSON Web Key (RFC 7517), whose own claims about itself must agree with its type.
    pub(super) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Unusable> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("kty") == Some("oct") {
            return Err(Unusable::Symmetric);
        }
        // Published by mistake, and so anybody's.
        if jwk.contains_key("d") {
            return Err(Unusable::Private);
        }
        let uses = |ops: &Value| ops.as_array().is_some_and(|ops| ops.contains(&"verify".into()));
        if jwk.get("use").is_some_and(|purpose| purpose != "sig")
            || jwk.get("key_ops").is_some_and(|ops| !uses(ops))
        {
            return Err(Unusable::Use);
        }
        let number = |name: &str| {
            let text = text(name).ok_or(Unusable::Malformed)?;
            BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| Unusable::Malformed)
        };
        let key = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => Self::rsa(&number("n")?, &number("e")?)?,
            (Some("EC"), Some("P-256")) => {
                let (x, y) = (number("x")?, number("y")?);
                // The point is put together from both: a shorter one must not borrow bytes.
                if x.len() != 32 || y.len() != 32 {
                    return Err(Unusable::Malformed);
                }
                Self::p256(&[&[0x04], &*x, &*y].concat())?
            }
            (Some("OKP"), Some("Ed25519")) => Self::ed25519(&number("x")?)?,
            _ => return Err(Unusable::Type),
        };
        match jwk.get("alg") {
            Some(alg) if alg != key.algorithm.as_str() => Err(Unusable::Algorithm),
            _ => Ok(key),
        }
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, Unusable> {
        fn trimmed(number: &[u8]) -> &[u8] {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            &number[zeros..]
        }
        // Some issuers write the sign byte of DER into JSON, too.
        let (n, e) = (trimmed(n), trimmed(e));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(Unusable::RsaLength);
        }
        // The library takes 1, with which every message is its own signature.
        if matches!(e, [] | [1]) || e.last().is_some_and(|low| low % 2 == 0) {
            return Err(Unusable::Malformed);
        }
        RsaPublicKeyComponents { n, e }
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_| Unusable::Malformed)?;
        let decoding = DecodingKey::from_rsa_raw_components(n, e);
        Ok(Self { algorithm: Algorithm::Rs256, decoding })
    }

    fn p256(point: &[u8]) -> Result<Self, Unusable> {
        if point.len() != 65 {
            return Err(Unusable::Malformed);
        }
        parses(&ECDSA_P256_SHA256_FIXED, point)?;
        Ok(Self { algorithm: Algorithm::Es256, decoding: DecodingKey::from_ec_der(point) })
    }

    fn ed25519(point: &[u8]) -> Result<Self, Unusable> {
        if point.len() != 32 {
            return Err(Unusable::Malformed);
        }
        parses(&ED25519, point)?;
        Ok(Self { algorithm: Algorithm::EdDsa, decoding: DecodingKey::from_ed_der(point) })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

fn parses(algorithm: &'static dyn VerificationAlgorithm, point: &[u8]) -> Result<(), Unusable> {
    ParsedPublicKey::new(algorithm, point).map(drop).map_err(|_| Unusable::Malformed)
}
