//! The sections `[http]` and `[auth]`, which only the service reads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tenantry_db::config::Reader;
use tenantry_db::{Config, Error};

use crate::auth::AuthSettings;

/// What the service takes from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens, and its limits.
    pub http: HttpSettings,
    /// Which tokens it believes.
    pub auth: AuthSettings,
    /// How often somebody looks after the backups; None where there are none.
    pub backups_checked_every: Option<Duration>,
}

/// Where the service listens, and its limits.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The address to listen on.
    pub address: SocketAddr,
    /// Below which each tenant has its subdomain, if they have any.
    pub base_domain: Option<String>,
    /// Whose `X-Forwarded-Host` counts.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest request body.
    pub body_limit_bytes: usize,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long requests may go on after the service was told to stop.
    pub shutdown_grace: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Headers of one request.
    pub max_headers: usize,
    /// All headers of one request together.
    pub header_limit_bytes: usize,
    /// How long a request's headers may take to arrive.
    pub header_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
}

impl Settings {
    /// Reads both sections.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem found. A secret that is not set is none yet.
    pub fn from_config(config: &Config) -> Result<Self, Error> {
        config.section(|reader| Self {
            http: http(reader),
            auth: AuthSettings::read(reader),
            backups_checked_every: reader
                .truth("backup.enabled")
                .then(|| reader.duration("backup.check_every")),
        })
    }
}

fn http(reader: &mut Reader<'_>) -> HttpSettings {
    const KIB: usize = 1024;
    let ip = reader.text("http.bind").parse().unwrap_or_else(|_| {
        reader.problem("http.bind", "takes an IP address such as \"127.0.0.1\" or \"::\"");
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    });
    HttpSettings {
        address: SocketAddr::new(ip, reader.integer("http.port", 0..=i64::from(u16::MAX))),
        base_domain: base_domain(reader),
        trusted_proxies: trusted_proxies(reader),
        body_limit_bytes: usize::from(reader.integer("http.body_limit_kib", 1..=65_535)) * KIB,
        request_timeout: reader.duration("http.request_timeout"),
        shutdown_grace: reader.duration("http.shutdown_grace"),
        max_connections: reader.integer("http.max_connections", 1..=65_535).into(),
        max_headers: reader.integer("http.max_headers", 10..=1000).into(),
        // hyper refuses a smaller buffer.
        header_limit_bytes: usize::from(reader.integer("http.header_limit_kib", 8..=1024)) * KIB,
        header_timeout: reader.duration("http.header_timeout"),
        body_timeout: reader.duration("http.body_timeout"),
        write_timeout: reader.duration("http.write_timeout"),
    }
}

fn base_domain(reader: &mut Reader<'_>) -> Option<String> {
    const KEY: &str = "http.base_domain";
    let text = reader.text(KEY).to_ascii_lowercase();
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let is_address = text.parse::<IpAddr>().is_ok();
    if !text.is_empty() && (is_address || !text.split('.').all(label)) {
        reader.problem(
            KEY,
            "takes a domain such as \"example.com\", without a port or a dot at an end",
        );
    }
    (!text.is_empty()).then_some(text)
}

fn trusted_proxies(reader: &mut Reader<'_>) -> Vec<IpNet> {
    const KEY: &str = "http.trusted_proxies";
    let texts = reader.list(KEY);
    let net = |text: &String| {
        // A socket for both families sees IPv4 peers as mapped ones; here both are written as IPv4.
        let address = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        text.parse().or(address)
    };
    let nets: Result<Vec<IpNet>, _> = texts.iter().map(net).collect();
    nets.unwrap_or_else(|_| {
        reader.problem(KEY, "takes addresses and networks such as \"10.0.0.0/8\"");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use tenantry_db::config::Layers;

    use super::*;

    fn read(changes: &[(&str, &str)]) -> Result<Settings, Error> {
        let layers = changes
            .iter()
            .fold(Layers::defaults(), |layers, (key, value)| layers.flag("test", key, *value));
        Settings::from_config(&Config::from_layers(layers)?)
    }

    #[test]
    fn the_defaults_can_be_read_and_lack_a_secret() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.http.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(settings.http.body_limit_bytes, 256 * 1024);
        assert!(matches!(settings.auth.source(), Err(Error::Config { .. })));
    }

    #[test]
    fn all_problems_come_at_once_and_no_secret_is_shown() {
        let error = read(&[
            ("http.bind", "here"),
            ("http.base_domain", "a..b"),
            ("http.trusted_proxies", "10.0.0.0/33"),
            ("auth.secret", "hunter2"),
            ("auth.issuer", ""),
        ])
        .unwrap_err();
        insta::assert_snapshot!(error, @r#"
        the configuration is wrong in 5 places:
          - `http.bind` takes an IP address such as "127.0.0.1" or "::" (from `test`)
          - `http.base_domain` takes a domain such as "example.com", without a port or a dot at an end (from `test`)
          - `http.trusted_proxies` takes a list such as ["a", "b"] (from `test`)
          - `auth.issuer` must not be empty (from `test`)
          - `auth.secret` needs at least 32 bytes (from `test`)
        "#);
        let settings = read(&[("auth.secret", "0123456789abcdef0123456789abcdef")]).unwrap();
        assert!(!format!("{settings:?}").contains("abcdef"));
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn contradictory_sources_of_keys_are_refused_together() {
        let error = read(&[
            ("auth.secret", SECRET),
            ("auth.public_key_file", "/nowhere/key.pem"),
            ("auth.jwks_url", "http://idp.example/jwks"),
            ("auth.jwks_refresh_interval", "1s"),
        ])
        .unwrap_err();
        insta::assert_snapshot!(error, @r#"
        the configuration is wrong in 5 places:
          - `auth.public_key_file` can't stand beside `auth.secret`: keys come from one place (from `test`)
          - `auth.jwks_url` can't stand beside `auth.secret`: keys come from one place (from `test`)
          - `auth.jwks_refresh_interval` must not be shorter than `auth.jwks_min_refetch_interval` (from `test`)
          - `auth.public_key_file` can't be read: No such file or directory (os error 2) (from `test`)
          - `auth.jwks_url` must begin with `https://`; `http://` is for this machine only (from `test`)
        "#);
    }

    #[test]
    fn only_a_safe_url_is_taken() {
        for good in [
            "https://idp.example/k?a=b",
            "http://127.0.0.1:1/k",
            "http://[::1]/k",
            "http://localhost/k",
        ] {
            assert!(read(&[("auth.jwks_url", good)]).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example/k",
            "http://localhost.example/k",
            "http://127.0.0.1.example/k",
            "http://0.0.0.0/k",
            "https://u:p4ss@idp.example/k",
            "file:///etc/passwd",
            "ftp://localhost/k",
            "idp.example",
        ] {
            let error = read(&[("auth.jwks_url", bad)]).unwrap_err().to_string();
            assert!(error.contains("auth.jwks_url") && !error.contains("p4ss"), "{error}");
        }
    }

    #[test]
    fn an_algorithm_must_fit_the_kind_of_key() {
        let read = |key: &str, value: &str, algorithm: &str| {
            let layers = Layers::defaults().flag("test", key, value);
            let list = vec![algorithm];
            let config = Config::from_layers(layers.flag("test", "auth.algorithms", list)).unwrap();
            Settings::from_config(&config).is_ok()
        };
        let url = "https://idp.example/k";
        for (algorithm, secret, public) in [
            ("HS256", true, false),
            ("RS256", false, true),
            ("ES256", false, true),
            ("EdDSA", false, true),
            ("none", false, false),
            ("rs256", false, false),
            ("HS512", false, false),
        ] {
            assert_eq!(read("auth.secret", SECRET, algorithm), secret, "{algorithm}");
            assert_eq!(read("auth.jwks_url", url, algorithm), public, "{algorithm}");
        }
    }
}
