//! Logins of shells: who is in a tenant at the moment, and what shells have left behind.

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::Check;
use crate::config::Config;
use crate::error::{Doing, Error};
use crate::operate::{leftover_shells, shell_prefix};

pub(super) async fn check(db: &Object, config: &Config) -> Result<Check, Error> {
    const NAME: &str = "shells";
    let prefix = shell_prefix(&config.roles);
    // Beyond what `open_tenant_shell` gives, and sessions whose login is gone, which still act as a tenant.
    let rows = db
        .query_typed(
            "SELECT format('`%s` is more than one tenant''s shell', r.rolname)
             FROM pg_roles r LEFT JOIN pg_auth_members am ON am.member = r.oid
             LEFT JOIN pg_roles g ON g.oid = am.roleid
             WHERE starts_with(r.rolname, $1)
             GROUP BY r.oid, r.rolname, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls
             HAVING count(g.oid) > 1 OR bool_or(g.rolname !~ '^tenant_[0-9a-f]{32}$')
                 OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
             UNION ALL
             SELECT format('pid %s is a session of a login that is gone', a.pid)
             FROM pg_stat_activity a
             WHERE a.datname = current_database() AND a.backend_type = 'client backend'
               AND a.usesysid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)
             ORDER BY 1 LIMIT 10",
            &[(&prefix, Type::TEXT)],
        )
        .await
        .doing("look at the shells")?;
    let wrong: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if !wrong.is_empty() {
        let hint = "end the session (`SELECT pg_terminate_backend(pid)`), or drop the login as a superuser";
        return Ok(Check::failed(NAME, wrong.join("; "), hint));
    }
    let kept = db
        .query_typed_one(
            "SELECT string_agg(format('`%s`', rolname), ', ') FROM pg_roles
             WHERE starts_with(rolname, $1) AND NOT rolcanlogin
               AND shobj_description(oid, 'pg_authid') = 'a shell of ' || current_database()",
            &[(&prefix, Type::TEXT)],
        )
        .await
        .doing("look for shells that could not be dropped")?;
    if let Some(kept) = kept.get::<_, Option<String>>(0) {
        return Ok(Check::warning(
            NAME,
            format!("{kept} can't be dropped, for what it made in another database"),
            "it can do nothing any more; as a superuser, in the database that DROP ROLE names: DROP OWNED BY it, then DROP ROLE",
        ));
    }
    let left = leftover_shells(&***db, &config.roles).await?;
    if !left.is_empty() {
        return Ok(Check::warning(
            NAME,
            format!("{} logins of shells that have ended", left.len()),
            "a running service drops them within a minute, and so does the next `tenantry tenant psql`",
        ));
    }
    let open = db
        .query_typed_one(
            "SELECT count(*) FROM pg_roles r
             JOIN pg_auth_members am ON am.member = r.oid
             JOIN pg_roles g ON g.oid = am.roleid
             JOIN public.tenants t ON g.rolname = 'tenant_' || replace(t.id::text, '-', '')
             WHERE starts_with(r.rolname, $1)",
            &[(&prefix, Type::TEXT)],
        )
        .await
        .doing("count the shells")?;
    Ok(Check::ok(NAME, format!("{} open, none left behind", open.get::<_, i64>(0))))
}
