//! Which tenant a request's host names: the label before the configured base domain.
//!
//! The apex, `www` and the other reserved names, deeper names, IP addresses and foreign domains name
//! nobody. What a proxy forwards counts only if the connection comes from a configured proxy: anybody
//! can send the header.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::{HOST, HeaderName};
use axum::http::request::Parts;
use ipnet::IpNet;
use tenantry_db::Subdomain;

use crate::config::HttpSettings;
use crate::problem::{Code, Problem};

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The subdomain that the request's host names, if it names one.
///
/// # Errors
/// `tenant_mismatch` for a request that names several hosts.
pub(super) fn subdomain(parts: &Parts, http: &HttpSettings) -> Result<Option<Subdomain>, Problem> {
    let Some(base) = &http.base_domain else { return Ok(None) };
    let forwarded = trusted(parts, http).then(|| only(&parts.headers, &FORWARDED_HOST));
    let host = match forwarded.transpose()?.flatten() {
        Some(host) => Some(host),
        // An address in the request line stands above the header (RFC 9112, 3.2.2).
        None => match parts.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => only(&parts.headers, &HOST)?,
        },
    };
    Ok(host.and_then(|host| label(host, base)))
}

fn trusted(parts: &Parts, http: &HttpSettings) -> bool {
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.to_canonical());
    peer.is_some_and(|peer| http.trusted_proxies.iter().any(|net: &IpNet| net.contains(&peer)))
}

/// A header's value, which must be there once at most: of several, every reader takes another.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.to_str().is_ok_and(|text| !text.contains(',')) => {
            Ok(value.to_str().ok())
        }
        _ => Err(Problem::new(Code::TenantMismatch, format!("`{name}` must name one host"))),
    }
}

/// The label before the base domain: `acme` of `acme.example.com:443`.
fn label(host: &str, base: &str) -> Option<Subdomain> {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    // The parser refuses dots, and the names that nobody may take.
    host.strip_suffix(base)?.strip_suffix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_one_plain_label_below_the_base_domain_names_a_tenant() {
        for (host, expected) in [
            ("acme.example.com", Some("acme")),
            ("ACME.Example.COM:8443", Some("acme")),
            ("acme.example.com.", Some("acme")),
            ("example.com", None),
            ("www.example.com", None),
            ("api.example.com", None),
            ("a.acme.example.com", None),
            ("acme.example.org", None),
            ("acmeexample.com", None),
            ("acme.example.com.evil.org", None),
            ("127.0.0.1", None),
            ("127.0.0.1:8080", None),
            ("[::1]:8080", None),
            (".example.com", None),
            ("-a.example.com", None),
            ("acme'.example.com", None),
            ("acme.example.com:x", None),
            ("", None),
        ] {
            let found = label(host, "example.com");
            assert_eq!(found.as_ref().map(Subdomain::as_str), expected, "{host}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_the_beginning_of_the_host(host in "\\PC{0,80}|[a-z.-]{0,30}[.]example[.]com") {
            if let Some(found) = label(&host, "example.com") {
                prop_assert!(host.to_ascii_lowercase().starts_with(found.as_str()));
            }
        }
    }
}
