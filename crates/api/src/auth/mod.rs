//! Who asks: tokens, what they claim, and how they are checked and issued.

mod algorithm;
mod claims;
mod issue;
mod key;
mod key_set;
mod origin;
mod rotating;
mod settings;
mod verify;

pub use claims::{Claims, Role, Scope, Scopes};
pub use issue::issue;
pub use settings::AuthSettings;

pub(crate) use verify::{Refusal, Verifier};
