//! PostgreSQL's statistics of statements (`pg_stat_statements`), whose texts may hold values.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::error::{Doing, Error};
use crate::ids::quoted;

/// Forgets the statements that ran as the tenant, where this login may. Yields how many are left: none where
/// the extension is not in this database; unknown where this login may not look.
pub(super) async fn forget(tx: &Transaction<'_>, role: Option<u32>) -> Result<Option<i64>, Error> {
    let found = tx
        .query_typed_opt(
            "SELECT n.nspname::text, has_function_privilege(p.oid, 'EXECUTE'), has_schema_privilege(n.oid, 'USAGE')
             FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
             JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'pg_stat_statements_reset'
             WHERE e.extname = 'pg_stat_statements'
               AND current_setting('shared_preload_libraries') ~ 'pg_stat_statements'
             LIMIT 1",
            &[],
        )
        .await
        .doing("look for statistics of statements")?;
    let (Some(row), Some(role)) = (found, role) else { return Ok(Some(0)) };
    if !row.get::<_, bool>(2) {
        return Ok(None);
    }
    let schema = quoted(row.get(0));
    if row.get(1) {
        let statement = format!("SELECT {schema}.pg_stat_statements_reset(userid => $1)");
        tx.query_typed(&statement, &[(&role, Type::OID)])
            .await
            .doing("forget the tenant's statements")?;
    }
    let statement = format!("SELECT count(*) FROM {schema}.pg_stat_statements WHERE userid = $1");
    let left = tx.query_typed_one(&statement, &[(&role, Type::OID)]).await;
    Ok(Some(left.doing("look for the tenant's statements")?.get(0)))
}
