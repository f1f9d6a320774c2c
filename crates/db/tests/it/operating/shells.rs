//! The login of a shell: one tenant's, for one connection, and gone with it.

use tenantry_db::doctor::{self, Outcome};
use tenantry_db::lifecycle::{Deletion, delete_tenant, suspend_tenant};
use tenantry_db::models::tenants::Tenant;
use tenantry_db::operate::{Shell, close_shell, open_shell, sweep_shells};
use tenantry_db::{Error, TenantId};
use tenantry_testing::TestDatabase;
use tokio_postgres::{Client, NoTls};

use crate::{refusal, texts};

async fn open(db: &TestDatabase, tenant: &Tenant) -> Shell {
    open_shell(&db.admin, &db.config, tenant.id, &db.actor()).await.unwrap()
}

/// As psql connects.
async fn try_connect(shell: &Shell) -> Result<Client, tokio_postgres::Error> {
    let mut server = tokio_postgres::Config::new();
    server.host(&shell.host).port(shell.port).dbname(&shell.database).options(&shell.options);
    server.user(&shell.login).password(shell.password.expose());
    let (client, connection) = server.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect(shell: &Shell) -> Client {
    try_connect(shell).await.unwrap()
}

async fn one(client: &Client, query: &str) -> String {
    texts(client, query).await.remove(0)
}

const WHO: &str = "SELECT concat_ws(' ', current_user, current_setting('search_path'))";

#[tokio::test]
async fn a_shell_begins_in_its_tenant_and_nothing_leads_out() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let (own, other) = (acme.schema(), globex.schema());
    for tenant in [&acme, &globex] {
        let add = format!(
            "INSERT INTO {}.teams (name) VALUES ('secret of {}')",
            tenant.schema(),
            tenant.name
        );
        db.superuser().await.batch_execute(&add).await.unwrap();
    }
    let shell = open(&db, &acme).await;
    let client = connect(&shell).await;
    let at_home = format!("{own} {own}, public, pg_temp");
    assert_eq!(one(&client, WHO).await, at_home);
    assert_eq!(texts(&client, "SELECT name FROM teams").await, ["secret of acme"]);
    client
        .batch_execute("UPDATE teams SET name = 'x'; SELECT name FROM countries LIMIT 1")
        .await
        .unwrap();
    // Wherever these lead, the other tenant is not there.
    for step in [
        "SELECT 1",
        "RESET ROLE",
        "SET ROLE NONE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "RESET SESSION AUTHORIZATION",
        "RESET ALL",
        "DISCARD ALL",
        "SET ROLE shared_tenant",
        "SET search_path TO public",
    ] {
        client.batch_execute(step).await.unwrap();
        for statement in [
            format!("SELECT name FROM {other}.teams"),
            format!("SET ROLE {other}"),
            format!("SET SESSION AUTHORIZATION {other}"),
            format!("GRANT {other} TO {}", shell.login),
            format!("CREATE TABLE {own}.x ()"),
        ] {
            let code = refusal(&client, &statement).await;
            assert!(
                matches!(code.code(), "42501" | "0A000" | "25001" | "22023"),
                "{statement} after {step}: {code:?}"
            );
        }
    }
    client.batch_execute("RESET ALL; RESET ROLE").await.unwrap();
    assert_eq!(one(&client, WHO).await, at_home, "back where it began");
    close_shell(&db.admin, &shell).await.unwrap();
}

#[tokio::test]
async fn a_shell_has_the_tenants_rights_and_no_machine() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (db.tenant("acme").await, db.tenant("globex").await);
    let shell = open(&db, &acme).await;
    let client = connect(&shell).await;
    let other = globex.schema();
    for role in ["", "SET ROLE NONE; "] {
        for statement in [
            "SELECT id FROM public.tenants".to_owned(),
            "SELECT id FROM public.audit_log".to_owned(),
            "SELECT version FROM public.migrations".to_owned(),
            "INSERT INTO public.countries SELECT".to_owned(),
            "SET ROLE shared_owner".to_owned(),
            "SET ROLE shared_admin".to_owned(),
            "SET ROLE shared_lane_00".to_owned(),
            "SET SESSION AUTHORIZATION postgres".to_owned(),
            "SELECT set_config('role', 'shared_owner', false)".to_owned(),
            format!("COPY {other}.users TO STDOUT"),
            "COPY users TO PROGRAM 'cat'".to_owned(),
            "COPY users FROM PROGRAM 'cat'".to_owned(),
            "COPY users TO '/tmp/x'".to_owned(),
            "COPY users FROM '/etc/passwd'".to_owned(),
            "SELECT pg_read_file('/etc/passwd')".to_owned(),
            "SELECT pg_ls_dir('/')".to_owned(),
            "SELECT lo_import('/etc/passwd')".to_owned(),
            "SELECT lo_create(0)".to_owned(),
            "SELECT pg_advisory_lock(1)".to_owned(),
            "CREATE EXTENSION dblink".to_owned(),
            "CREATE TEMP TABLE x ()".to_owned(),
            "CREATE SCHEMA x".to_owned(),
            "CREATE ROLE x".to_owned(),
            "CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
            "DO $$ BEGIN END $$".to_owned(),
            "DROP TABLE users".to_owned(),
            "TRUNCATE users".to_owned(),
            "ALTER TABLE users DISABLE TRIGGER ALL".to_owned(),
            format!("ALTER ROLE {} VALID UNTIL 'infinity'", shell.login),
            format!("ALTER ROLE {} CONNECTION LIMIT 10", shell.login),
            format!("ALTER ROLE {} CREATEROLE", shell.login),
            format!("GRANT {} TO shared_lane_00", acme.schema()),
            format!("SELECT shared.open_tenant_shell('{}', '{0}', 'x', 1, 1)", globex.id),
            format!("SELECT shared.grant_tenant_role('{}', 0)", globex.id),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shared_admin'"
                .to_owned(),
            "SELECT rolpassword FROM pg_authid".to_owned(),
        ] {
            client.batch_execute("ROLLBACK").await.unwrap();
            let begin = format!("BEGIN; SET LOCAL search_path TO {}, public; ", acme.schema());
            client.batch_execute(&begin).await.unwrap();
            if !role.is_empty() {
                client.batch_execute(role).await.unwrap();
            }
            match client.batch_execute(&statement).await {
                // Nobody's pid is shown, or there is none that it may end.
                Ok(()) if statement.contains("pg_terminate_backend") => {}
                Ok(()) => panic!("`{role}{statement}` was allowed"),
                Err(e) => {
                    assert_eq!(e.code().map(|c| c.code()), Some("42501"), "{role}{statement}");
                }
            }
        }
    }
    // The database is one of several, and the password does not open them.
    let mut elsewhere = shell;
    elsewhere.database = "postgres".to_owned();
    drop(client);
    let foreign = try_connect(&elsewhere).await;
    if let Ok(client) = foreign {
        assert_eq!(refusal(&client, "CREATE TABLE x ()").await.code(), "42501");
    }
    close_shell(&db.admin, &elsewhere).await.unwrap();
}

#[tokio::test]
async fn a_shell_is_one_connection_and_goes_with_it() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let shell = open(&db, &acme).await;
    let client = connect(&shell).await;
    let second = try_connect(&shell).await.map(drop).unwrap_err();
    assert_eq!(second.code().unwrap().code(), "53300", "{second}");
    let about = format!(
        "SELECT concat_ws(' ', rolinherit, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
                rolconnlimit, rolvaliduntil BETWEEN now() AND now() + interval '1 minute',
                (SELECT string_agg(g.rolname, ',') FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))
         FROM pg_roles r WHERE rolname = '{}'", shell.login
    );
    assert_eq!(texts(&superuser, &about).await, [format!("t f f f f f 1 t {}", acme.schema())]);
    // What a shell leaves of itself does not keep its login.
    client
        .batch_execute("SET ROLE NONE; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
        .await
        .unwrap();
    drop(client);
    close_shell(&db.admin, &shell).await.unwrap();
    close_shell(&db.admin, &shell).await.unwrap();
    let left = format!("SELECT count(*)::text FROM pg_roles WHERE rolname = '{}'", shell.login);
    assert_eq!(texts(&superuser, &left).await, ["0"]);
    let refused = try_connect(&shell).await.map(drop).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "28P01");
    let audit = "SELECT action || ' ' || (details->>'login') FROM public.audit_log ORDER BY id DESC LIMIT 1";
    assert_eq!(texts(&superuser, audit).await, [format!("tenant.shell_opened {}", shell.login)]);
}

#[tokio::test]
async fn a_password_opens_nothing_once_its_time_is_over() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let shell = open(&db, &acme).await;
    let superuser = db.superuser().await;
    let over = format!("ALTER ROLE {} VALID UNTIL '2026-01-01'", shell.login);
    superuser.batch_execute(&over).await.unwrap();
    let refused = try_connect(&shell).await.map(drop).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "28P01");
    close_shell(&db.admin, &shell).await.unwrap();
}

/// It acts again and again, until it can't.
async fn until_ended(client: &Client) {
    for _ in 0..200 {
        if client.batch_execute("SELECT count(*) FROM users").await.is_err() {
            assert!(client.is_closed());
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("the shell goes on");
}

#[tokio::test]
async fn whoever_shuts_a_tenant_out_ends_its_shells() {
    let db = TestDatabase::new().await;
    for how in ["suspend", "delete"] {
        let tenant = db.tenant(how).await;
        let other = db.tenant(&format!("{how}-not")).await;
        let (shell, unused) = (open(&db, &tenant).await, open(&db, &tenant).await);
        let bystander = open(&db, &other).await;
        let (client, third) = (connect(&shell).await, connect(&bystander).await);
        client.batch_execute("BEGIN; UPDATE users SET name = 'x'").await.unwrap();
        match how {
            "suspend" => drop(suspend_tenant(&db.admin, tenant.id, &db.actor()).await.unwrap()),
            _ => {
                let how = Deletion { confirm: Some(how), retention: None };
                delete_tenant(&db.admin, &db.config, tenant.id, how, &db.actor()).await.unwrap();
            }
        }
        // When the answer is there, so is the end.
        assert!(client.batch_execute("SELECT 1").await.is_err(), "{how}");
        until_ended(&client).await;
        for shell in [&shell, &unused] {
            assert!(try_connect(shell).await.is_err(), "{how}");
        }
        third.batch_execute("SELECT count(*) FROM users").await.unwrap();
        let refused = open_shell(&db.admin, &db.config, tenant.id, &db.actor()).await.unwrap_err();
        assert!(matches!(refused, Error::TenantNotServed { .. }), "{refused}");
        close_shell(&db.admin, &bystander).await.unwrap();
    }
    let nobody = open_shell(&db.admin, &db.config, TenantId::random(), &db.actor()).await;
    assert!(matches!(nobody.unwrap_err(), Error::TenantNotFound(_)));
}

#[tokio::test]
async fn what_a_killed_program_left_is_swept_and_who_is_in_stays() {
    let db = TestDatabase::new().await;
    let _alone = db.alone_on_the_server().await;
    let acme = db.tenant("acme").await;
    let superuser = db.superuser().await;
    let (dead, young, used) =
        (open(&db, &acme).await, open(&db, &acme).await, open(&db, &acme).await);
    let client = connect(&used).await;
    for shell in [&dead, &used] {
        let old = format!("ALTER ROLE {} VALID UNTIL '{}'", shell.login, "2026-01-01");
        superuser.batch_execute(&old).await.unwrap();
    }
    let check = async || {
        let checks = doctor::examine(&db.config, &db.migrations).await;
        let find = |name| checks.iter().find(|check| check.name == name).unwrap().clone();
        (find("shells"), find("lane members"))
    };
    let (shells, members) = check().await;
    assert_eq!(shells.outcome, Outcome::Warning, "{shells:?}");
    assert_eq!(members.outcome, Outcome::Ok, "a shell is no lane: {members:?}");
    assert_eq!(sweep_shells(&db.admin).await.unwrap(), 1);
    let left = format!(
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ('{}', '{}', '{}')",
        dead.login, young.login, used.login
    );
    let mut left = texts(&superuser, &left).await;
    left.sort();
    let mut expected = [young.login.clone(), used.login.clone()];
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(check().await.0.outcome, Outcome::Ok);
    // A session whose login was dropped under it is still that tenant: somebody must know.
    close_shell(&db.admin, &used).await.unwrap();
    client.batch_execute("SELECT count(*) FROM users").await.unwrap();
    assert_eq!(check().await.0.outcome, Outcome::Failed);
    close_shell(&db.admin, &young).await.unwrap();
}

#[tokio::test]
async fn only_the_admin_makes_shells_and_of_its_own_tenants_only() {
    let db = TestDatabase::new().await;
    let acme = db.tenant("acme").await;
    let admin = db.admin_client().await;
    let make = |tenant: &str, verifier: &str, seconds: i64| {
        format!(
            "SELECT shared.open_tenant_shell('{tenant}', gen_random_uuid(), '{verifier}', 1000, {seconds})"
        )
    };
    let (own, good) = (acme.id.to_string(), "SCRAM-SHA-256$4096:x$y:z");
    for (statement, code) in [
        (make(&TenantId::random().to_string(), good, 60), "42704"),
        (make(&own, "plain", 60), "22023"),
        (make(&own, "md5d41d8cd98f00b204e9800998ecf8427e", 60), "22023"),
        (make(&own, good, 100_000), "22023"),
        (make(&own, good, 0), "22023"),
    ] {
        assert_eq!(refusal(&admin, &statement).await.code(), code, "{statement}");
    }
    let reader = db.reader_client().await;
    assert_eq!(refusal(&reader, &make(&own, good, 60)).await.code(), "42501");
    let lane = db.lane_direct(acme.lane).await;
    assert_eq!(refusal(&lane, &make(&own, good, 60)).await.code(), "42501");
}

#[tokio::test]
async fn what_a_shell_made_in_another_database_keeps_nobody_from_being_shut_out() {
    let db = TestDatabase::new().await;
    let superuser = db.superuser().await;
    let acme = db.tenant("acme").await;
    let mut elsewhere = open(&db, &acme).await;
    elsewhere.database = "postgres".to_owned();
    elsewhere.options.clear();
    let client = connect(&elsewhere).await;
    // What PUBLIC may do in a database that nobody has hardened.
    client.batch_execute("SET ROLE NONE; SELECT lo_create(0)").await.unwrap();
    suspend_tenant(&db.admin, acme.id, &db.actor()).await.unwrap();
    let members = format!(
        "SELECT m.rolname FROM pg_auth_members am JOIN pg_roles m ON m.oid = am.member
         WHERE am.roleid = '{}'::regrole AND m.rolname LIKE '%shell%'",
        acme.schema()
    );
    assert_eq!(texts(&superuser, &members).await, Vec::<String>::new());
    assert!(client.batch_execute("SELECT 1").await.is_err(), "the session was ended");
    assert!(try_connect(&elsewhere).await.is_err(), "the login is none any more");
    let checks = doctor::examine(&db.config, &db.migrations).await;
    let said = checks.iter().find(|check| check.name == "shells").unwrap();
    assert_eq!(said.outcome, Outcome::Warning, "{said:?}");
    assert!(said.detail.contains(&elsewhere.login), "{said:?}");
    let mut server: tokio_postgres::Config = db.servers().superuser_url.parse().unwrap();
    let (superuser, connection) = server.dbname("postgres").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let login = &elsewhere.login;
    superuser.batch_execute(&format!("DROP OWNED BY {login}; DROP ROLE {login}")).await.unwrap();
}
