//! `tenantry replica`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Replica {
    /// Look at each replica once: whether it may be read from, and if not, why
    ///
    /// Exits 0 also if none may: reads go to the primary then, and `tenantry doctor` warns.
    Status,
}
