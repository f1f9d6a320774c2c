//! What takes more than one step of the library.

pub(crate) mod tenant;
