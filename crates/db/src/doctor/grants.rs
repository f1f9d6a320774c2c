//! Who was granted what: in tenants' schemas, in the public schema, on the hardened functions.

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::Check;
use crate::config::Config;
use crate::error::{Doing, Error};
use crate::init::HARDENED_FUNCTIONS;

/// Looks for rights that neither `init` nor provisioning gave.
pub(super) async fn check(db: &Object, config: &Config) -> Result<Check, Error> {
    let roles = &config.roles;
    let statement = format!(
        "WITH granted AS (
             -- A tenant's schema is the owner's and the tenant's.
             SELECT format('schema `%s`', n.nspname) AS what, a.grantee, a.privilege_type, n.nspname::text AS own
               FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname ~ '^tenant_[0-9a-f]{{32}}$'
             UNION ALL
             SELECT format('`%s.%s`', n.nspname, c.relname), a.grantee, a.privilege_type, n.nspname::text
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
              WHERE n.nspname ~ '^tenant_[0-9a-f]{{32}}$'
             UNION ALL
             -- What is public is the reader's, and the reference tables the group's.
             SELECT format('`public.%s`', c.relname), a.grantee, a.privilege_type,
                    CASE WHEN c.relname IN ('countries', 'timezones', 'platform_metadata') THEN $2 ELSE $3 END
               FROM pg_class c, aclexplode(c.relacl) a
              WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> $3::regrole
             UNION ALL
             SELECT format('`%s`', p.oid::regprocedure), a.grantee, a.privilege_type, $4
               FROM pg_proc p, aclexplode(p.proacl) a
              WHERE {HARDENED_FUNCTIONS} AND a.grantee <> p.proowner
                AND NOT coalesce((SELECT rolname FROM pg_roles WHERE oid = a.grantee), '') = ANY ($5)
         )
         SELECT format('`%s` has %s on %s', coalesce(r.rolname, 'everybody'), privilege_type, what)
           FROM granted LEFT JOIN pg_roles r ON r.oid = granted.grantee
          WHERE r.rolname IS DISTINCT FROM granted.own AND r.rolname IS DISTINCT FROM $1
          ORDER BY 1 LIMIT 10"
    );
    let rows = db
        .query_typed(
            &statement,
            &[
                (&roles.owner(), Type::TEXT),
                (&roles.tenant_group(), Type::TEXT),
                (&roles.reader(), Type::TEXT),
                (&roles.admin(), Type::TEXT),
                (&config.init.dump_roles, Type::TEXT_ARRAY),
            ],
        )
        .await
        .doing("look at the grants")?;
    let extra: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(if extra.is_empty() {
        Check::ok("grants", "nobody was given more than `init` and provisioning give")
    } else {
        Check::failed("grants", extra.join("; "), "somebody granted these by hand: revoke them")
    })
}
