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

use futures_util::FutureExt as _;

pub use claims::{Claims, Role, Scope, Scopes};
pub use issue::issue;
pub use settings::AuthSettings;

pub(crate) use verify::{Refusal, Verifier};

/// What the service believes of a token that a secret signed, for the fuzzer: it asks the very code that
/// requests meet.
///
/// # Errors
/// [`Error::Config`](tenantry_db::Error::Config) if `auth.secret` is not set.
#[doc(hidden)]
pub fn verifier(
    settings: &AuthSettings,
) -> Result<impl Fn(&str) -> Option<Claims> + use<>, tenantry_db::Error> {
    settings.secret()?;
    let verifier = Verifier::new(settings)?;
    // With a secret there is nothing to wait for.
    Ok(move |token: &str| verifier.verify(token).now_or_never()?.ok())
}
