//! Where a JWKS comes from: a URL or a file. Either is read with a bound on size and time.

use std::fmt;
use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Client, StatusCode, Url, redirect};

/// Issuers' documents have a few KiB; with certificates in them some tens.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// A URL that keys may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JwksUrl(Url);

impl JwksUrl {
    /// # Errors
    /// What is wrong with it, as a rule that follows the setting's name. Never the text itself.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let url: Url = text.parse().map_err(|_| "is not a URL")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or a password: public keys need none");
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            // Whoever can change the answer on its way decides who gets in.
            "http" if is_loopback(&url) => Ok(Self(url)),
            "http" => Err("must begin with `https://`; `http://` is for this machine only"),
            _ => Err("must begin with `https://`"),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) => v6.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback()),
            None => host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback()),
        },
        None => false,
    }
}

impl fmt::Display for JwksUrl {
    /// Without the query, in which some issuers' customers put what nobody else should see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.origin().ascii_serialization(), self.0.path())
    }
}

/// Where a JWKS comes from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    Url(Client, JwksUrl),
    File(PathBuf),
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it did not arrive in time")]
    Timeout,
    #[error("the server can't be reached, or broke off")]
    Http(#[source] reqwest::Error),
    #[error("it is not a file")]
    NoFile,
    #[error("it can't be read")]
    File(#[from] std::io::Error),
}

impl From<reqwest::Error> for Unread {
    fn from(error: reqwest::Error) -> Self {
        // Its own words repeat the URL with the query.
        if error.is_timeout() { Self::Timeout } else { Self::Http(error.without_url()) }
    }
}

impl Origin {
    /// # Errors
    /// The client's, if the system has no root certificates to check `https://` with.
    pub(super) fn url(url: JwksUrl, timeout: Duration) -> Result<Self, reqwest::Error> {
        let builder = Client::builder()
            .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
            // A redirect would let the server choose another one, and another scheme.
            .redirect(redirect::Policy::none())
            // A repeated request would not be counted.
            .retry(reqwest::retry::never())
            .timeout(timeout)
            // The next request is minutes away.
            .pool_max_idle_per_host(0);
        let builder = if url.0.scheme() == "https" {
            builder.https_only(true)
        } else {
            let loopback = [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            builder.no_proxy().tls_certs_only([]).resolve_to_addrs("localhost", &loopback)
        };
        Ok(Self::Url(builder.build()?, url))
    }

    /// The document. Dropping the future does no harm.
    pub(super) async fn read(&self) -> Result<Vec<u8>, Unread> {
        match self {
            Self::Url(client, url) => fetched(client, &url.0).await,
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped).into()))
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_, url) => url.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

async fn fetched(client: &Client, url: &Url) -> Result<Vec<u8>, Unread> {
    let accepted = HeaderValue::from_static("application/jwk-set+json, application/json");
    let mut response = client.get(url.clone()).header(ACCEPT, accepted).send().await?;
    if response.status() != StatusCode::OK {
        return Err(Unread::Status(response.status()));
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if document.len() + chunk.len() > MAX_BYTES {
            return Err(Unread::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

/// A file's bytes, at most as many as a document may have. It blocks.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Unread> {
    // A pipe would be waited for without end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Unread::NoFile);
    }
    let limit = MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES { Err(Unread::TooLarge) } else { Ok(bytes) }
}
