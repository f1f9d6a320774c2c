//! `init` on a server: from nothing, again, and after a half-done run.

use tenantry_db::init::init;
use tenantry_db::{Config, Error, LaneId};
use tenantry_testing::Servers;
use tokio_postgres::{Client, NoTls};

use crate::texts;

async fn superuser(servers: &Servers, database: &str) -> Client {
    let mut server: tokio_postgres::Config = servers.superuser_url.parse().unwrap();
    let (client, connection) = server.dbname(database).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// An installation of this test's own, not initialised.
fn installation(prefix: &str) -> (Servers, Config) {
    let servers = Servers::of_this_run();
    let config = servers.config(&format!("{prefix}_db"), prefix).unwrap();
    (servers, config)
}

/// All that `init` makes, as the catalogs show it.
async fn everything(servers: &Servers, config: &Config) -> Vec<String> {
    let prefix = config.roles.to_string();
    let inside = superuser(servers, config.database.name().unwrap()).await;
    let query = format!(
        "SELECT concat_ws(' ', 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
                          rolreplication, rolbypassrls, rolpassword) FROM pg_authid WHERE rolname LIKE '{prefix}\\_%'
         UNION ALL SELECT concat_ws(' ', 'member', roleid::regrole, member::regrole, admin_option) FROM pg_auth_members
                    WHERE member::regrole::text LIKE '{prefix}\\_%'
         UNION ALL SELECT concat_ws(' ', 'setting', setrole::regrole, setdatabase <> 0, setconfig) FROM pg_db_role_setting
                    WHERE setrole::regrole::text LIKE '{prefix}\\_%'
         UNION ALL SELECT concat_ws(' ', 'database', datdba::regrole, datacl) FROM pg_database WHERE datname = current_database()
         UNION ALL SELECT concat_ws(' ', 'schema', nspname, nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname IN ('public', '{prefix}')
         UNION ALL SELECT concat_ws(' ', 'function', oid::regprocedure, proowner::regrole, proacl, prosecdef, proconfig)
                    FROM pg_proc WHERE pronamespace = '{prefix}'::regnamespace OR proname = 'set_config' OR proname ~ '^pg_(try_)?advisory_'
         UNION ALL SELECT concat_ws(' ', 'language', lanname, lanacl) FROM pg_language
         UNION ALL SELECT concat_ws(' ', 'default acl', defaclrole::regrole, defaclacl) FROM pg_default_acl
         ORDER BY 1"
    );
    texts(&inside, &query).await
}

#[tokio::test]
async fn a_second_run_changes_nothing_at_all() {
    let (servers, config) = installation("init_twice");
    let first = init(&config).await.unwrap();
    assert!(first.changed.len() >= 38 && first.skipped.is_empty(), "{first:?}");
    let before = everything(&servers, &config).await;
    let second = init(&config).await.unwrap();
    // Not one password either: setting the same one again makes PgBouncer's clients hang.
    assert_eq!(everything(&servers, &config).await, before);
    assert!(second.changed.is_empty(), "{second:?}");
}

#[tokio::test]
async fn it_completes_and_repairs_a_half_done_run() {
    let (servers, config) = installation("init_half");
    let (_, reference) = installation("init_whole");
    init(&reference).await.unwrap();
    let root = superuser(&servers, "postgres").await;
    root.batch_execute(
        "CREATE ROLE init_half_owner; CREATE ROLE init_half_lane_03 LOGIN SUPERUSER PASSWORD 'old';
         CREATE ROLE init_half_admin LOGIN CREATEROLE",
    )
    .await
    .unwrap();
    root.batch_execute("CREATE DATABASE init_half_db").await.unwrap();
    root.batch_execute("ALTER ROLE init_half_lane_03 SET role = 'postgres'").await.unwrap();
    root.batch_execute(
        "ALTER ROLE init_half_lane_03 IN DATABASE init_half_db SET search_path = 'public'",
    )
    .await
    .unwrap();
    let report = init(&config).await.unwrap();
    assert!(
        report
            .changed
            .contains(&"role `init_half_lane_03` set to NOSUPERUSER NOINHERIT PASSWORD".to_owned()),
        "{report:?}"
    );
    let comparable = |lines: Vec<String>, prefix: &str| -> Vec<String> {
        let without_salt = |line: String| line.split("SCRAM").next().unwrap_or_default().to_owned();
        let mut lines: Vec<_> =
            lines.into_iter().map(|line| without_salt(line.replace(prefix, "x"))).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        comparable(everything(&servers, &config).await, "init_half"),
        comparable(everything(&servers, &reference).await, "init_whole")
    );
    // The lane's new password is the derived one.
    let login = config.roles.lane(LaneId::new(3).unwrap());
    let password = config.lanes.secret().unwrap().password(&login);
    let _ = config.database.direct_as(&login, &password).unwrap().connect(NoTls).await.unwrap();
}

#[tokio::test]
async fn two_at_once_both_succeed() {
    let (_, config) = installation("init_race");
    let (first, second) = tokio::join!(init(&config), init(&config));
    first.unwrap();
    second.unwrap();
}

#[tokio::test]
async fn wrong_settings_and_servers_are_refused_with_a_reason() {
    let servers = Servers::of_this_run();
    let layers = || servers.layers("init_refused_db", "init_refused");
    let refused = async |layers| {
        let error = init(&Config::from_layers(layers).unwrap()).await.unwrap_err();
        error.to_string()
    };
    insta::assert_snapshot!(refused(layers().flag("test", "init.superuser_url", "")).await, @"the configuration is wrong: `init.superuser_url` is not set, and this command needs it");
    insta::assert_snapshot!(refused(layers().flag("test", "lanes.secret", "")).await, @"the configuration is wrong: `lanes.secret` is not set, and this command needs it");
    insta::assert_snapshot!(refused(layers().flag("test", "database.direct_url", "postgresql://other:x@127.0.0.1/db")).await, @"the configuration is wrong: `database.direct_url` must carry the login `init_refused_admin` (`roles.prefix` and `_admin`)");
    insta::assert_snapshot!(refused(layers().flag("test", "database.direct_url", "postgresql://init_refused_admin@127.0.0.1/db")).await, @"the configuration is wrong: `database.direct_url` carries no password, and `init` gives the admin the one it finds there");
    insta::assert_snapshot!(refused(layers().flag("test", "database.direct_url", "postgresql://init_refused_admin:x@127.0.0.1/postgres")).await, @"the configuration is wrong: `database.direct_url` names the database `postgres`, which belongs to the server: choose one of its own");
    let root = superuser(&servers, "postgres").await;
    root.batch_execute("CREATE DATABASE init_latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'").await.unwrap();
    let latin = Config::from_layers(servers.layers("init_latin", "init_latin")).unwrap();
    insta::assert_snapshot!(init(&latin).await.unwrap_err(), @"database `init_latin` has the encoding LATIN1, but UTF8 is needed");
}

#[tokio::test]
async fn a_managed_service_gets_what_it_may_and_says_the_rest() {
    let servers = Servers::of_this_run();
    let root = superuser(&servers, "postgres").await;
    root.batch_execute(
        "CREATE ROLE managed_root LOGIN CREATEROLE CREATEDB PASSWORD 'x';
         GRANT pg_monitor, pg_signal_backend TO managed_root WITH ADMIN OPTION",
    )
    .await
    .unwrap();
    let url = format!("postgresql://managed_root:x@127.0.0.1:{}/postgres", servers.postgres_port);
    let layers = servers.layers("managed_db", "managed").flag("test", "init.superuser_url", url);
    let config = Config::from_layers(layers).unwrap();
    let report = init(&config).await.unwrap();
    assert!(!report.skipped.is_empty(), "{report:?}");
    let again = init(&config).await.unwrap();
    assert_eq!(again.skipped, report.skipped);
    let migrations = tenantry_db::migrate::Migrations::embedded().unwrap();
    let checks = tenantry_db::doctor::examine(&config, &migrations).await;
    let hardening = checks.iter().find(|check| check.name == "hardening").unwrap();
    assert!(hardening.detail.contains("set_config"), "{hardening:?}");
    let error = init(
        &Config::from_layers(servers.layers("managed_db", "managed").flag(
            "test",
            "database.direct_url",
            "postgresql://managed_admin:x@127.0.0.1:1/managed_db",
        ))
        .unwrap(),
    )
    .await;
    assert!(!matches!(error, Err(Error::Config { .. })));
}

#[tokio::test]
async fn what_the_admin_plants_is_not_run_by_the_superuser() {
    let (servers, config) = installation("init_trap");
    init(&config).await.unwrap();
    let admin = config.database.direct().unwrap().connect(NoTls).await.unwrap();
    let (admin, connection) = admin;
    tokio::spawn(connection);
    for function in
        ["pg_advisory_xact_lock(bigint)", "hashtextextended(text, bigint)", "format(text)"]
    {
        admin
            .batch_execute(&format!(
                "SET ROLE init_trap_owner;
                 CREATE FUNCTION public.{function} RETURNS text LANGUAGE plpgsql AS
                     $$ BEGIN IF current_user = 'postgres' THEN ALTER ROLE init_trap_admin SUPERUSER; END IF; RETURN ''; END $$;
                 GRANT EXECUTE ON FUNCTION public.{function} TO public;
                 ALTER DATABASE init_trap_db SET search_path = public, pg_catalog"
            ))
            .await
            .unwrap();
    }
    let _ = init(&config).await;
    let root = superuser(&servers, "postgres").await;
    let rights = "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'init_trap_admin'";
    assert_eq!(texts(&root, rights).await, ["false"]);
}
