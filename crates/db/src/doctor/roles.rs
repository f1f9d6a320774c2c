//! The installation's roles: what each may do beyond what it should.

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::Check;
use crate::config::Config;
use crate::error::{Doing, Error};
use crate::ids::LaneId;
use crate::operate::shell_prefix;

pub(super) async fn check(db: &Object, config: &Config) -> Result<Check, Error> {
    let roles = &config.roles;
    let lanes: Vec<String> = LaneId::all().map(|lane| roles.lane(lane)).collect();
    let mut expected =
        vec![roles.owner(), roles.admin(), roles.rolemaker(), roles.reader(), roles.tenant_group()];
    expected.extend(lanes.iter().cloned());
    let rows = db
        .query_typed(
            "SELECT rolname::text, rolsuper, rolcreaterole, rolcreatedb OR rolreplication OR rolbypassrls, rolinherit
             FROM pg_roles WHERE rolname = ANY ($1)",
            &[(&expected, Type::TEXT_ARRAY)],
        )
        .await
        .doing("look at the roles")?;
    let mut problems = Vec::new();
    for name in &expected {
        let Some(row) = rows.iter().find(|row| row.get::<_, &str>(0) == name) else {
            problems.push(format!("`{name}` is missing"));
            continue;
        };
        if row.get(1) {
            problems.push(format!("`{name}` is a superuser"));
        }
        if row.get::<_, bool>(2) != (*name == roles.rolemaker()) {
            problems.push(format!("`{name}` has the wrong CREATEROLE"));
        }
        if row.get(3) {
            problems
                .push(format!("`{name}` may create databases, replicate or bypass row security"));
        }
        if lanes.contains(name) && row.get(4) {
            problems
                .push(format!("`{name}` inherits, so it has its tenants' rights without a bind"));
        }
    }
    problems.extend(memberships(db, config, &expected, &lanes).await?);
    problems.extend(tenant_roles(db, config).await?);
    problems.extend(settings(db, config, &lanes).await?);
    Ok(if problems.is_empty() {
        Check::ok(
            "roles",
            format!("{} roles, each with the rights it needs and no others", expected.len()),
        )
    } else {
        Check::failed(
            "roles",
            problems.join("; "),
            "run `tenantry init` again, and revoke by hand what it did not give",
        )
    })
}

/// Who is a member of what beyond what `init` and provisioning give: lanes of tenant roles, tenant
/// roles of the group, the admin of the owner and of two groups of PostgreSQL's own, the rolemaker of one of
/// these. From
/// PostgreSQL 16 on, the rolemaker is a member of each role that it makes.
async fn memberships(
    db: &Object,
    config: &Config,
    ours: &[String],
    lanes: &[String],
) -> Result<Vec<String>, Error> {
    let roles = &config.roles;
    let given = |group: &str, member: String| format!("{group} {member}");
    let allowed = vec![
        given(&roles.owner(), roles.admin()),
        given("pg_monitor", roles.admin()),
        given("pg_monitor", roles.rolemaker()),
        given("pg_signal_backend", roles.admin()),
        given(&roles.tenant_group(), roles.rolemaker()),
    ];
    let rows = db
        .query_typed(
            "SELECT format('`%s` is a member of `%s`', m.rolname, g.rolname)
             FROM pg_auth_members am
             JOIN pg_roles m ON m.oid = am.member
             JOIN pg_roles g ON g.oid = am.roleid
             WHERE (m.rolname = ANY ($1)
                    OR m.rolname ~ '^tenant_[0-9a-f]{32}$' AND pg_has_role(m.oid, $4::text, 'MEMBER'))
               AND NOT g.rolname || ' ' || m.rolname = ANY ($2)
               AND NOT (m.rolname = ANY ($3) AND g.rolname ~ '^tenant_[0-9a-f]{32}$')
               AND NOT (m.rolname ~ '^tenant_[0-9a-f]{32}$' AND g.rolname = $4)
             ORDER BY 1 LIMIT 10",
            &[
                (&ours, Type::TEXT_ARRAY),
                (&allowed, Type::TEXT_ARRAY),
                (&[lanes, &[roles.rolemaker()]].concat(), Type::TEXT_ARRAY),
                (&roles.tenant_group(), Type::TEXT),
            ],
        )
        .await
        .doing("look at the memberships")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A tenant's role is a name for rights, nothing more.
async fn tenant_roles(db: &Object, config: &Config) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            "SELECT format('`%s` has an attribute that no tenant role may have', r.rolname)
             FROM pg_roles r JOIN pg_auth_members am ON am.member = r.oid
             WHERE am.roleid = $1::text::regrole AND r.rolname ~ '^tenant_[0-9a-f]{32}$'
               AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
             ORDER BY 1 LIMIT 10",
            &[(&config.roles.tenant_group(), Type::TEXT)],
        )
        .await
        .doing("look at the tenants' roles")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A login may change its own settings: one that a thief had in hand may begin bound to a tenant.
async fn settings(db: &Object, config: &Config, lanes: &[String]) -> Result<Vec<String>, Error> {
    let mut logins = lanes.to_vec();
    logins.push(config.roles.reader());
    let rows = db
        .query_typed(
            "SELECT format('`%s` has the setting `%s`', coalesce(r.rolname, 'everybody'), setting)
                    || coalesce(' in `' || d.datname || '`', '')
             FROM pg_db_role_setting s
             LEFT JOIN pg_roles r ON r.oid = s.setrole
             LEFT JOIN pg_database d ON d.oid = s.setdatabase,
             unnest(s.setconfig) AS setting
             WHERE (r.rolname = ANY ($1) OR s.setrole = 0) AND setting <> 'search_path=\"\"'
               AND (s.setdatabase = 0 OR d.datname = current_database())
             ORDER BY 1 LIMIT 10",
            &[(&logins, Type::TEXT_ARRAY)],
        )
        .await
        .doing("look at the logins' settings")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Who is served by which lane: a served tenant's role has one member, the lane in its row, and that is
/// one of those in use. One that is shut out has none. The rolemaker does not count: it is a member of
/// what it makes from PostgreSQL 16 on.
pub(super) async fn check_lanes(db: &Object, config: &Config) -> Result<Check, Error> {
    const NAME: &str = "lane members";
    let rows = db
        .query_typed(
            "SELECT format('tenant %s (%s) of lane %s is served by %s', t.id, t.status, t.lane,
                           coalesce(string_agg(m.rolname, ', ' ORDER BY m.rolname), 'no lane'))
             FROM public.tenants t
             LEFT JOIN pg_roles g ON g.rolname = 'tenant_' || replace(t.id::text, '-', '')
             LEFT JOIN pg_auth_members am ON am.roleid = g.oid
             LEFT JOIN pg_roles m ON m.oid = am.member AND m.rolname <> $1 AND NOT starts_with(m.rolname, $3)
             WHERE t.status <> 'purged'
             GROUP BY t.id
             HAVING array_remove(array_agg(m.rolname::text), NULL)
                    <> CASE WHEN t.status IN ('ready', 'active')
                            THEN ARRAY[$2 || lpad(t.lane::text, 2, '0')] ELSE '{}' END
             ORDER BY t.id LIMIT 10",
            &[
                (&config.roles.rolemaker(), Type::TEXT),
                (&format!("{}_lane_", config.roles), Type::TEXT),
                // An operator's, of an active tenant. A check of their own looks at them.
                (&shell_prefix(&config.roles), Type::TEXT),
            ],
        )
        .await
        .doing("compare lanes and memberships")?;
    let wrong: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if !wrong.is_empty() {
        let hint = "somebody granted or revoked by hand, or a resize was interrupted: `tenantry lanes \
                    resize` finishes one, `tenantry tenant resume` and `suspend` set a tenant right";
        return Ok(Check::failed(NAME, wrong.join("; "), hint));
    }
    let count = config.lanes.count;
    let beyond = db
        .query_typed_one(
            "SELECT count(*) FROM public.tenants WHERE status <> 'purged' AND lane >= $1",
            &[(&i16::from(count), Type::INT2)],
        )
        .await
        .doing("count tenants by lane")?;
    Ok(match beyond.get::<_, i64>(0) {
        0 => Check::ok(NAME, "each tenant is served by its own lane alone"),
        n => Check::warning(
            NAME,
            format!("{n} tenants are on lanes beyond `lanes.count` = {count}"),
            format!("`tenantry lanes resize {count}` moves them, while they are served"),
        ),
    })
}
