//! That the audit log can't be rewritten unseen: its entries are sealed in a chain of hashes, the chain's
//! head is anchored in a file outside the database, and both are verified.
//!
//! `link` says what a seal is the hash of; `seal` makes the seals; `anchor` writes heads to the file;
//! `verify` recomputes all of it. The entries themselves are written by `models/audit`, in the transaction
//! that they tell of. It prevents nothing: it makes a change visible.

mod anchor;
mod error;
mod link;
mod seal;
mod verify;

pub use anchor::{Anchor, AnchoredHead, anchor_head, continue_after_restore, keep_anchoring};
pub use error::AuditError;
pub use seal::{Sealed, keep_sealing, seal_entries};
pub use verify::{Finding, FindingKind, Head, Verification, verify};

pub(crate) use anchor::seal_and_anchor;
