//! Layers, rules and what is shown of them.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn file(text: &str) -> (tempfile::TempDir, Layers) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tenantry.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Layers::defaults().file(&path).unwrap())
}

fn problems(text: &str) -> String {
    let (dir, layers) = file(text);
    let Err(Error::Config { problems }) = Config::from_layers(layers) else {
        panic!("`{text}` was taken")
    };
    problems.join("\n").replace(&dir.path().display().to_string(), "…")
}

#[test]
fn the_defaults_alone_are_right() {
    let config = Config::from_layers(Layers::defaults()).unwrap();
    assert_eq!((config.lanes.count, config.lanes.pool_size), (4, 12));
    assert_eq!(config.tiers["enterprise"].slots, 10);
    assert_eq!(config.database.connect_timeout, Duration::from_secs(30));
    assert_eq!(config.remarks().len(), 4);
}

#[test]
fn every_problem_is_reported_at_once_with_its_origin() {
    let problems = problems(
        "[lanes]\ncuont = 3\npool_size = \"twelve\"\nsecret = \"short\"\n\
         [database]\nurl = \"postgresql://u:p4ss@a,b/d\"\ndirect_url = \"nonsense p4ss\"\nconnect_timeout = \"-1s\"\n\
         [tiers.gold]\nslot = 3\n[tenants]\ndefault_tier = \"none\"\n[roles]\nprefix = \"pg_\"",
    );
    assert!(!problems.contains("p4ss"), "{problems}");
    insta::assert_snapshot!(problems, @r#"
    `lanes.cuont` is not a setting (`…/tenantry.toml`); did you mean `lanes.count`?
    `tiers.gold.slot` is not a setting (`…/tenantry.toml`); did you mean `tiers.free.slots`?
    `database.url` must name exactly one host: with several, a check may ask another server than the query (from `…/tenantry.toml`)
    `database.direct_url` is not a connection URL of the form `postgresql://user:password@host:port/database` (from `…/tenantry.toml`)
    `database.connect_timeout` takes a duration above zero such as "30s", "5min" or "1h" (from `…/tenantry.toml`)
    `roles.prefix` can't be used: `pg_` is not a role prefix (a lower-case letter, then up to 23 of `a-z`, `0-9`, `_`) (from `…/tenantry.toml`)
    `lanes.secret` needs at least 32 characters (from `…/tenantry.toml`)
    `lanes.pool_size` takes a whole number from 1 to 1000 (from `…/tenantry.toml`)
    `tenants.default_tier` = `none` is not a tier: there are `enterprise`, `free`, `pro`
    "#);
}

#[test]
fn both_rules_on_lanes_are_checked() {
    insta::assert_snapshot!(problems("[lanes]\ncount = 8"), @"`lanes.count` × `lanes.pool_size` = 8 × 12 = 96 is over the budget `lanes.server_connections` = 48: lower one of the first two or raise the budget");
    insta::assert_snapshot!(problems("[lanes]\npool_size = 10"), @"`tiers.enterprise.slots` = 10 must be below `lanes.pool_size` = 10: otherwise one tenant can fill its lane");
}

#[test]
fn the_environment_wins_over_the_file_and_the_full_name_over_the_plain_one() {
    let (_dir, layers) = file("[lanes]\ncount = 2\npool_size = 11\n[tiers.gold]\nslots = 7");
    let variables = [
        ("TENANTRY_LANES__COUNT", "3"),
        ("DATABASE_URL", "postgresql://plain/db"),
        ("TENANTRY_DATABASE__URL", "postgresql://full/db"),
        ("DATABASE_REPLICA_URLS", "postgresql://r1/db, postgresql://r2/db"),
        ("TENANTRY_LOG", "debug"),
        ("HOME", "/root"),
    ];
    let layers = layers.environment(variables.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(layers.overridden().len(), 2, "{:?}", layers.overridden());
    let layers = layers.flag("--x", "migrations.lock_timeout", "1s");
    let config = Config::from_layers(layers).unwrap();
    assert_eq!((config.lanes.count, config.lanes.pool_size), (3, 11));
    assert_eq!(config.tiers["gold"].slots, 7);
    assert_eq!(config.database.replica_urls.len(), 2);
    assert_eq!(config.migrations.lock_timeout, Duration::from_secs(1));
    let login = config.database.pooled("lane", &Secret::new("x")).unwrap();
    assert_eq!(login.get_hosts(), [tokio_postgres::config::Host::Tcp("full".to_owned())]);
    assert_eq!(login.get_user(), Some("lane"));
}

#[test]
fn an_unknown_variable_of_ours_is_refused() {
    let refused = |name: &str| {
        let layers = Layers::defaults().environment([(name.to_owned(), "3".to_owned())]);
        Config::from_layers(layers).unwrap_err()
    };
    let one_underscore = refused("TENANTRY_LANES_COUNT").to_string();
    assert!(one_underscore.ends_with("did you mean `TENANTRY_LANES__COUNT`?"), "{one_underscore}");
    let error = refused("TENANTRY_LANES__CUONT");
    insta::assert_snapshot!(error, @"the configuration is wrong: `lanes.cuont` is not a setting (`TENANTRY_LANES__CUONT`); did you mean `lanes.count`?");
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let (_dir, layers) = file(&format!(
        "[database]\nurl = \"postgresql://u:p4ss@h/d\"\ndirect_url = \"host=h dbname=d password=p4ss\"\n\
         replica_urls = [\"postgresql://h/d?password=p4ss\"]\n[lanes]\nsecret = \"{SECRET}\"\n\
         [init]\nsuperuser_url = \"postgresql://s:p4ss@h/d\"",
    ));
    let config = Config::from_layers(layers).unwrap();
    for shown in [config.show(), config.show_json().to_string(), format!("{config:?}")] {
        assert!(!shown.contains("p4ss") && !shown.contains(SECRET), "{shown}");
    }
    assert!(config.show().contains("superuser_url = \"postgresql://s@h:5432/d\""));
    assert!(
        Config::from_layers(Layers::defaults()).unwrap().show().contains("superuser_url = \"\"")
    );
    assert!(config.show().contains("postgresql://u@h:5432/d"), "{}", config.show());
}

#[test]
fn a_relative_path_is_meant_from_its_file() {
    let (dir, layers) = file("[migrations]\ndir = \"sql\"");
    let config = Config::from_layers(layers).unwrap();
    assert_eq!(config.migrations.dir.unwrap(), dir.path().join("sql"));
}
