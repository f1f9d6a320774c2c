//! The names of things, parsed once and correct from then on.
//!
//! Everything that may stand unquoted in generated SQL comes from a type of this module, which is
//! why none of them can be built from unchecked text.

mod copy;
mod lane;
mod subdomain;
mod tenant;

pub(crate) use copy::CopyName;
pub use lane::LaneId;
pub use subdomain::Subdomain;
pub use tenant::{SchemaName, TenantId, TenantRef};

/// Why a piece of text is not the name that it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a UUID.
    #[error("`{0}` is not a tenant id (a UUID such as `6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90`)")]
    TenantId(String),
    /// Not `tenant_` and 32 hex digits.
    #[error("`{0}` is not a tenant schema (`tenant_` and 32 lower-case hex digits)")]
    SchemaName(String),
    /// Not a usable DNS label.
    #[error("`{text}` is not a usable subdomain: {reason}")]
    Subdomain {
        /// What was given, cut to a readable length.
        text: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// Not a lane number.
    #[error("`{0}` is not a lane (0 to {max})", max = LaneId::COUNT - 1)]
    Lane(String),
    /// Not usable as the start of role names.
    #[error("`{0}` is not a role prefix (a lower-case letter, then up to 23 of `a-z`, `0-9`, `_`)")]
    RolePrefix(String),
}

/// Cuts hostile or endless input to a length that an error message can carry.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut cut: String =
        text.chars().take(MAX_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        cut.push('…');
    }
    cut
}

/// A name from outside as a quoted identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Controls, and what looks like nothing or turns the line around: a name with it poses as another.
pub fn is_invisible(c: char) -> bool {
    let formatting = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || formatting
}
