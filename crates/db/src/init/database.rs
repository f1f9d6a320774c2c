//! The database: its owner, the control functions, and the hardening.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::InitReport;
use crate::config::Config;
use crate::error::{Doing, Error};
use crate::ids::{LaneId, quoted};

/// The server's own functions that nobody but the admin may call, as SQL over `pg_proc`: what
/// switches roles from inside a query, takes locks that outlive it, or leaves objects behind that
/// belong to no schema.
pub(crate) const HARDENED_FUNCTIONS: &str = "
    pronamespace = 'pg_catalog'::regnamespace
    AND (proname ~ '^pg_(try_)?advisory_'
         OR proname IN ('set_config', 'lo_creat', 'lo_create', 'lo_from_bytea'))";

/// What everybody still has of what the hardening takes away.
pub(crate) async fn open_to_everybody(db: &impl GenericClient) -> Result<Vec<String>, Error> {
    // `public` in the has_…_privilege functions is the pseudo-role PUBLIC.
    let statement = format!(
        "SELECT 'EXECUTE on ' || oid::regprocedure FROM pg_proc
          WHERE {HARDENED_FUNCTIONS} AND has_function_privilege('public', oid, 'EXECUTE')
         UNION ALL
         SELECT 'TEMP on the database' WHERE has_database_privilege('public', current_database(), 'TEMP')
         UNION ALL
         SELECT 'CONNECT to the database' WHERE has_database_privilege('public', current_database(), 'CONNECT')
         UNION ALL
         SELECT 'USAGE on language ' || lanname FROM pg_language
          WHERE lanname = 'plpgsql' AND has_language_privilege('public', oid, 'USAGE')
         UNION ALL
         SELECT 'rights on schema public'
          WHERE has_schema_privilege('public', 'public', 'USAGE') OR has_schema_privilege('public', 'public', 'CREATE')
         ORDER BY 1"
    );
    let rows = db.query_typed(&statement, &[]).await.doing("look at what PUBLIC may do")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) async fn ensure_exists(
    db: &Client,
    config: &Config,
    database: &str,
    report: &mut InitReport,
) -> Result<(), Error> {
    let found = db
        .query_typed_opt(
            "SELECT pg_get_userbyid(datdba)::text, pg_encoding_to_char(encoding)::text
             FROM pg_database WHERE datname = $1",
            &[(&database, Type::TEXT)],
        )
        .await
        .doing("look for the database")?;
    let owner = config.roles.owner();
    let name = quoted(database);
    match found {
        None => {
            // From template0: nothing that somebody put into template1 comes along.
            match db
                .batch_execute(&format!(
                    "CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'"
                ))
                .await
            {
                // Another `init` at the same time was faster.
                Err(e)
                    if matches!(
                        e.code(),
                        Some(&SqlState::DUPLICATE_DATABASE | &SqlState::UNIQUE_VIOLATION)
                    ) => {}
                other => other.doing(format!("create database `{database}`"))?,
            }
            report.changed.push(format!("database `{database}` created"));
        }
        Some(row) => {
            let encoding: &str = row.get(1);
            if encoding != "UTF8" {
                return Err(Error::UnsuitableServer(format!(
                    "database `{database}` has the encoding {encoding}, but UTF8 is needed"
                )));
            }
            let found: &str = row.get(0);
            if found != owner {
                db.batch_execute(&format!("ALTER DATABASE {name} OWNER TO {owner}"))
                    .await
                    .doing(format!("make `{owner}` the owner of `{database}`"))?;
                report.changed.push(format!(
                    "database `{database}` now belongs to `{owner}`, before to `{found}`"
                ));
            }
        }
    }
    Ok(())
}

pub(super) async fn prepare(
    db: &mut Client,
    config: &Config,
    database: &str,
    report: &mut InitReport,
) -> Result<(), Error> {
    let tx = db.transaction().await.doing("begin a transaction")?;
    // `init`s of the same database take turns: GRANTs on one object at once fail in PostgreSQL.
    tx.batch_execute("SELECT pg_advisory_xact_lock(7426100911)")
        .await
        .doing("lock the database")?;
    tx.batch_execute(&control_functions(config)).await.doing("create the control functions")?;
    for step in hardening(config, database) {
        harden(&tx, &step, report).await?;
    }
    for lane in LaneId::all() {
        let (lane, database) = (config.roles.lane(lane), quoted(database));
        tx.batch_execute(&format!("ALTER ROLE {lane} IN DATABASE {database} RESET ALL"))
            .await
            .doing(format!("take settings from `{lane}`"))?;
    }
    for login in &config.init.dump_roles {
        let login = quoted(login);
        let statements = format!(
            "GRANT CONNECT ON DATABASE {} TO {login};
             GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO {login}",
            quoted(database)
        );
        tx.batch_execute(&statements)
            .await
            .doing(format!("give {login} what dumps need (`init.dump_roles`)"))?;
    }
    // A REVOKE of what somebody else granted is a mere warning: only looking tells.
    let open = open_to_everybody(&tx).await?;
    report.skipped.extend(open.into_iter().map(|right| format!("everybody keeps {right}")));
    tx.commit().await.doing("commit the hardening")
}

fn control_functions(config: &Config) -> String {
    let roles = &config.roles;
    [include_str!("control.sql"), include_str!("replica.sql")]
        .join("\n")
        .replace("{control}", roles.control_schema())
        .replace("{prefix}", &roles.to_string())
        .replace("{group}", &roles.tenant_group())
        .replace("{rolemaker}", &roles.rolemaker())
        .replace("{admin}", &roles.admin())
        .replace("{reader}", &roles.reader())
        .replace("{last_lane}", &(LaneId::COUNT - 1).to_string())
}

struct Step {
    what: &'static str,
    sql: String,
}

fn hardening(config: &Config, database: &str) -> Vec<Step> {
    let roles = &config.roles;
    let (owner, admin, reader, group) =
        (roles.owner(), roles.admin(), roles.reader(), roles.tenant_group());
    let lanes: Vec<String> = LaneId::all().map(|lane| roles.lane(lane)).collect();
    let database = quoted(database);
    let step = |what, sql| Step { what, sql };
    vec![
        step(
            "who may connect, and no temporary tables",
            format!(
                "REVOKE ALL ON DATABASE {database} FROM PUBLIC;
                 GRANT CONNECT ON DATABASE {database} TO {admin}, {reader}, {group}, {}",
                lanes.join(", ")
            ),
        ),
        step(
            "the public schema",
            format!(
                "REVOKE ALL ON SCHEMA public FROM PUBLIC;
                 GRANT USAGE ON SCHEMA public TO {group}, {reader};
                 GRANT USAGE, CREATE ON SCHEMA public TO {owner}"
            ),
        ),
        step(
            "no functions for everybody",
            format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
            ),
        ),
        step(
            "plpgsql",
            format!(
                "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
                 GRANT USAGE ON LANGUAGE plpgsql TO {owner}"
            ),
        ),
        step(
            "set_config, advisory locks, large objects",
            each_hardened_function(&format!(
                "format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC; GRANT EXECUTE ON FUNCTION %1$s TO {admin}', oid::regprocedure)"
            )),
        ),
        step(
            "seeing whom statistics are about",
            // Not what they say: numbers of tables and users only.
            format!(
                "GRANT SELECT (starelid) ON pg_catalog.pg_statistic TO {admin};
                 GRANT SELECT (stxoid) ON pg_catalog.pg_statistic_ext_data TO {admin};
                 GRANT SELECT (umuser) ON pg_catalog.pg_user_mapping TO {admin}"
            ),
        ),
        step(
            "forgetting a tenant's statements",
            format!(
                "DO $$ DECLARE reset text := (SELECT p.oid::regprocedure FROM pg_catalog.pg_extension e
                     JOIN pg_catalog.pg_proc p ON p.pronamespace = e.extnamespace AND p.proname = 'pg_stat_statements_reset'
                     WHERE e.extname = 'pg_stat_statements' LIMIT 1);
                 BEGIN
                     IF reset IS NOT NULL THEN
                         EXECUTE 'GRANT EXECUTE ON FUNCTION ' || reset || ' TO {admin}';
                     END IF;
                 END $$"
            ),
        ),
        step(
            "switching WAL",
            format!("GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO {admin}"),
        ),
    ]
}

fn each_hardened_function(statement: &str) -> String {
    format!(
        "DO $$ DECLARE statement text; BEGIN
             FOR statement IN SELECT {statement} FROM pg_catalog.pg_proc WHERE {HARDENED_FUNCTIONS} LOOP
                 EXECUTE statement;
             END LOOP;
         END $$"
    )
}

/// Runs a step; where the server does not allow it, says so and goes on.
async fn harden(tx: &Transaction<'_>, step: &Step, report: &mut InitReport) -> Result<(), Error> {
    tx.batch_execute("SAVEPOINT step").await.doing("set a savepoint")?;
    match tx.batch_execute(&step.sql).await {
        Ok(()) => tx.batch_execute("RELEASE step").await.doing("release a savepoint"),
        Err(e) if e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            report.skipped.push(format!(
                "hardening of {}: {}",
                step.what,
                e.as_db_error().map_or("", |e| e.message())
            ));
            tx.batch_execute("ROLLBACK TO step").await.doing("go back to a savepoint")
        }
        Err(e) => Err(e).doing(format!("harden {}", step.what)),
    }
}
