//! The installation's roles: attributes, memberships, passwords. One transaction.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::InitReport;
use crate::config::Config;
use crate::error::{Doing, Error};
use crate::ids::LaneId;
use crate::{Secret, scram};

/// What a role must be. Superuser, CREATEDB, REPLICATION and BYPASSRLS are never wanted.
#[derive(Debug)]
struct Wanted {
    name: String,
    inherit: bool,
    create_role: bool,
    /// Present for a login.
    password: Option<Secret>,
}

struct Found {
    attributes: [bool; 7],
    verifier: Option<String>,
}

/// In the order of [`Wanted::attributes`].
const ATTRIBUTES: [&str; 7] =
    ["SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS"];

impl Wanted {
    fn attributes(&self) -> [bool; 7] {
        [false, self.inherit, self.create_role, false, self.password.is_some(), false, false]
    }

    fn group(name: String) -> Self {
        Self { name, inherit: true, create_role: false, password: None }
    }

    fn login(name: String, password: Secret) -> Self {
        Self { name, inherit: true, create_role: false, password: Some(password) }
    }
}

pub(super) async fn ensure(
    db: &mut Client,
    config: &Config,
    admin_password: &Secret,
    report: &mut InitReport,
) -> Result<(), Error> {
    let wanted = wanted(config, admin_password)?;
    let tx = db.transaction().await.doing("begin a transaction")?;
    // Two `init`s at once would both find a role missing. Released when the transaction ends.
    tx.execute_typed(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
        &[(&format!("{}:init", config.roles), Type::TEXT)],
    )
    .await
    .doing("lock the roles")?;
    let found = found(&tx, &wanted).await?;
    for role in &wanted {
        ensure_role(&tx, role, found.get(&role.name), report).await?;
    }
    ensure_memberships(&tx, config, report).await?;
    join_own_roles(&tx, config).await?;
    for lane in LaneId::all() {
        // Unbound means nothing: not even `public` is in sight. And a login may change its own
        // settings, a hijacked one too: `SET role` there would bind it at its next connection.
        let lane = config.roles.lane(lane);
        tx.batch_execute(&format!(
            "ALTER ROLE {lane} RESET ALL; ALTER ROLE {lane} SET search_path = ''"
        ))
        .await
        .doing(format!("empty the search path of `{lane}`"))?;
    }
    tx.commit().await.doing("commit the roles")
}

/// All roles that `init` makes.
pub(crate) fn names(config: &Config) -> Vec<String> {
    let roles = &config.roles;
    let mut names =
        vec![roles.owner(), roles.rolemaker(), roles.tenant_group(), roles.admin(), roles.reader()];
    names.extend(LaneId::all().map(|lane| roles.lane(lane)));
    names
}

fn wanted(config: &Config, admin_password: &Secret) -> Result<Vec<Wanted>, Error> {
    let roles = &config.roles;
    let secret = config.lanes.secret()?;
    let derived = |name: String| {
        let password = secret.password(&name);
        Wanted::login(name, password)
    };
    let mut wanted = vec![
        Wanted::group(roles.owner()),
        Wanted { create_role: true, ..Wanted::group(roles.rolemaker()) },
        Wanted::group(roles.tenant_group()),
        Wanted::login(roles.admin(), admin_password.clone()),
        derived(roles.reader()),
    ];
    wanted.extend(LaneId::all().map(|lane| Wanted { inherit: false, ..derived(roles.lane(lane)) }));
    Ok(wanted)
}

async fn found(tx: &Transaction<'_>, wanted: &[Wanted]) -> Result<BTreeMap<String, Found>, Error> {
    let names: Vec<&str> = wanted.iter().map(|role| role.name.as_str()).collect();
    let rows = tx
        .query_typed(
            "SELECT rolname::text, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
                    rolreplication, rolbypassrls
             FROM pg_roles WHERE rolname = ANY ($1)",
            &[(&names, Type::TEXT_ARRAY)],
        )
        .await
        .doing("look for existing roles")?;
    let mut found: BTreeMap<String, Found> = rows
        .iter()
        .map(|row| {
            let attributes = std::array::from_fn(|i| row.get(i + 1));
            (row.get(0), Found { attributes, verifier: None })
        })
        .collect();
    // Only a real superuser sees verifiers; elsewhere each `init` sets the passwords anew.
    let readable = tx
        .query_typed_one("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')", &[])
        .await
        .doing("look for existing passwords")?;
    if readable.get(0) {
        let rows = tx
            .query_typed(
                "SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = ANY ($1)",
                &[(&names, Type::TEXT_ARRAY)],
            )
            .await
            .doing("look for existing passwords")?;
        for row in rows {
            if let Some(role) = found.get_mut(row.get::<_, &str>(0)) {
                role.verifier = row.get(1);
            }
        }
    }
    Ok(found)
}

async fn ensure_role(
    tx: &Transaction<'_>,
    wanted: &Wanted,
    found: Option<&Found>,
    report: &mut InitReport,
) -> Result<(), Error> {
    let name = &wanted.name;
    let mut clauses: Vec<String> = Vec::new();
    // A server that is not quite a superuser's refuses even NOSUPERUSER, so only differences are named.
    let assumed = found.map_or([false, true, false, false, false, false, false], |f| f.attributes);
    for ((wanted, found), attribute) in wanted.attributes().into_iter().zip(assumed).zip(ATTRIBUTES)
    {
        if wanted != found {
            clauses.push(format!("{}{attribute}", if wanted { "" } else { "NO" }));
        }
    }
    if let Some(password) = &wanted.password
        && !found.and_then(|f| f.verifier.as_deref()).is_some_and(|v| scram::matches(v, password))
    {
        clauses.push(format!("PASSWORD '{}'", scram::verifier(password)));
    }
    let shown: Vec<&str> =
        clauses.iter().map(|c| c.split(' ').next().unwrap_or_default()).collect();
    let (verb, said) = match found {
        None => ("CREATE", format!("role `{name}` created")),
        Some(_) if clauses.is_empty() => return Ok(()),
        Some(_) => ("ALTER", format!("role `{name}` set to {}", shown.join(" "))),
    };
    tx.batch_execute(&format!("{verb} ROLE {name} {}", clauses.join(" ")))
        .await
        .doing(format!("{} role `{name}`", verb.to_lowercase()))?;
    report.changed.push(said);
    Ok(())
}

async fn ensure_memberships(
    tx: &Transaction<'_>,
    config: &Config,
    report: &mut InitReport,
) -> Result<(), Error> {
    let roles = &config.roles;
    let (admin, rolemaker) = (roles.admin(), roles.rolemaker());
    for (group, member, admin_option) in [
        (roles.owner(), &admin, false),
        ("pg_monitor".to_owned(), &admin, false),
        // For the one function that tells a replica's health.
        ("pg_monitor".to_owned(), &rolemaker, false),
        ("pg_signal_backend".to_owned(), &admin, false),
        // From PostgreSQL 16 on, CREATEROLE alone does not let it hand out the group.
        (roles.tenant_group(), &rolemaker, true),
    ] {
        let row = tx
            .query_typed_one(
                "SELECT EXISTS (SELECT FROM pg_auth_members
                 WHERE roleid = $1::text::regrole AND member = $2::text::regrole AND (admin_option OR NOT $3))",
                &[(&group, Type::TEXT), (member, Type::TEXT), (&admin_option, Type::BOOL)],
            )
            .await
            .doing("look for existing memberships")?;
        if !row.get::<_, bool>(0) {
            let option = if admin_option { " WITH ADMIN OPTION" } else { "" };
            tx.batch_execute(&format!("GRANT {group} TO {member}{option}"))
                .await
                .doing(format!("grant `{group}` to `{member}`"))?;
            report.changed.push(format!("`{group}` granted to `{member}`"));
        }
    }
    Ok(())
}

/// Whoever runs `init` acts as the owner and as the rolemaker. A superuser may do so anyway; the
/// master login of a managed service must be their member.
async fn join_own_roles(tx: &Transaction<'_>, config: &Config) -> Result<(), Error> {
    let row = tx
        .query_typed_one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[])
        .await
        .doing("look at the login's own rights")?;
    if row.get(0) {
        return Ok(());
    }
    let statement =
        format!("GRANT {}, {} TO CURRENT_USER", config.roles.owner(), config.roles.rolemaker());
    tx.batch_execute(&statement).await.doing("join the owner and the rolemaker")
}
