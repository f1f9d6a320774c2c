//! Passwords that are generated once and then stay in files that only we read.
//!
//! Owns their making. Refuses to print them, and to replace one that exists: the server knows it.

use std::fmt;

use data_encoding::HEXLOWER;

use crate::error::{Error, Result};
use crate::files;
use crate::layout::Layout;

const SECRET_BYTES: usize = 32;

/// A password, in characters that need no quoting anywhere.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret of this name, generated if there is none yet.
    pub(crate) fn obtain(layout: &Layout, name: &str) -> Result<Self> {
        let path = layout.secret(name);
        if let Some(text) = files::read_if_present(&path)? {
            let text = text.trim();
            // Somebody may have edited it; what is written into SQL and files must be harmless.
            if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Ok(Self(text.to_owned()));
            }
            let source = std::io::ErrorKind::InvalidData.into();
            return Err(Error::Io { action: "understand the secret in", path, source });
        }
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::io("make a random secret for", &path)(error.into()))?;
        let secret = Self(HEXLOWER.encode(&bytes));
        files::write_private(&path, &secret.0, None)?;
        Ok(secret)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
