//! The bind: what ties one transaction to one tenant.
//!
//! Everything in it is transaction-local, and every transaction ends with [`COMMIT`] or
//! [`ROLLBACK`], which also take back what a session statement may have left. So a server
//! connection goes back to the pooler as it came, whatever happened.

use crate::config::Tier;
use crate::ids::SchemaName;

/// Ends a transaction and keeps its work. One message, so it costs no trip of its own.
///
/// `CLOSE ALL`, because a cursor `WITH HOLD` outlives its transaction, and the next one to use the
/// connection could fetch the rows of another tenant from it.
pub const COMMIT: &str = "COMMIT; CLOSE ALL; UNLISTEN *; RESET SESSION AUTHORIZATION; RESET ALL";

/// Ends a transaction and undoes its work.
pub const ROLLBACK: &str =
    "ROLLBACK; CLOSE ALL; UNLISTEN *; RESET SESSION AUTHORIZATION; RESET ALL";

/// Opens a transaction as a tenant.
///
/// The role comes first: without it nothing else matters, since the lane itself has no rights. The
/// path ends with `pg_temp`, or a temporary table would hide the tenant's own.
pub fn statement(schema: SchemaName, tier: &Tier) -> String {
    format!(
        "BEGIN; SET LOCAL ROLE {schema}; SET LOCAL search_path TO {schema}, public, pg_temp; \
         SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
        tier.statement_timeout.as_millis(),
        tier.idle_timeout.as_millis(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::TenantId;

    #[test]
    fn the_bind_is_local_to_its_transaction() {
        let id: TenantId = "6f1c0c52-9a3e-4a55-8f0e-0d5a3c2b1a90".parse().unwrap();
        let tier = Tier {
            slots: 5,
            slot_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(10),
            retention: None,
        };
        let bind = statement(id.schema(), &tier);
        insta::assert_snapshot!(bind, @"BEGIN; SET LOCAL ROLE tenant_6f1c0c529a3e4a558f0e0d5a3c2b1a90; SET LOCAL search_path TO tenant_6f1c0c529a3e4a558f0e0d5a3c2b1a90, public, pg_temp; SET LOCAL statement_timeout = 15000; SET LOCAL idle_in_transaction_session_timeout = 10000");
        for part in bind.split("; ").skip(1) {
            assert!(part.starts_with("SET LOCAL "), "{part}");
        }
    }
}
