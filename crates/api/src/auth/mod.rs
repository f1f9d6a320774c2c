//! Who asks: tokens, what they claim, and how they are checked and issued.

mod claims;
mod issue;
mod verify;

pub use claims::{Claims, Role, Scope, Scopes};
pub use issue::issue;

pub(crate) use verify::Verifier;
