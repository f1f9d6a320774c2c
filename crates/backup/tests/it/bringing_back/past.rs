//! A tenant with a past, and what the tests do with it.

use super::*;

/// A tenant with whatever a schema may have, row A before a moment and row B after it.
pub(crate) struct Past {
    pub(crate) world: World,
    pub(crate) client: Client,
    pub(crate) acme: Tenant,
    pub(crate) moment: Timestamp,
}

impl Past {
    pub(crate) async fn new() -> Self {
        Self::with(made_by_hand).await
    }

    pub(crate) async fn with(make: impl FnOnce(&Tenant) -> String) -> Self {
        Self::of(World::new().await, make).await
    }

    pub(crate) async fn of(world: World, make: impl FnOnce(&Tenant) -> String) -> Self {
        let client = world.db.superuser().await;
        let acme = world.db.tenant("acme").await;
        client.batch_execute(&make(&acme)).await.unwrap();
        world.back_up().await;
        // A backup's end is known to the second.
        until(&client, "SELECT pg_sleep(1.1) IS NOT NULL").await;
        let mut past = Self { world, client, acme, moment: Timestamp::now() };
        past.add("A").await;
        let row = past.client.query_typed_one("SELECT clock_timestamp()", &[]).await.unwrap();
        past.moment = row.get(0);
        past.add("B").await;
        past
    }

    pub(crate) async fn add(&self, name: &str) {
        let schema = self.acme.schema();
        let text = format!(
            "SET ROLE {schema}; SET search_path TO {schema};
             INSERT INTO teams (name) VALUES ('{name}'); INSERT INTO content (title) VALUES ('{name}');
             RESET ROLE; RESET search_path"
        );
        self.client.batch_execute(&text).await.unwrap();
    }

    pub(crate) async fn texts(&self, query: &str) -> Vec<String> {
        let rows = self.client.query_typed(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn text(&self, query: &str) -> String {
        self.texts(query).await.remove(0)
    }

    /// The names of the teams in a schema.
    pub(crate) async fn teams(&self, schema: &str) -> Vec<String> {
        self.texts(&format!("SELECT name::text FROM {schema}.teams ORDER BY name")).await
    }

    pub(crate) async fn live(&self) -> Vec<String> {
        self.teams(&self.acme.schema().to_string()).await
    }

    pub(crate) fn wish<'a>(
        &'a self,
        tenant: &'a TenantRef,
        when: When,
        aim: TenantAim<'a>,
        actor: &'a tenantry_db::models::audit::Actor,
    ) -> TenantRestore<'a> {
        TenantRestore {
            engine: &self.world.engine,
            config: &self.world.config,
            actor,
            tenant,
            when,
            aim,
        }
    }

    pub(crate) async fn go(&self, when: When, aim: TenantAim<'_>) -> Result<TenantRestored, Error> {
        let (tenant, actor) = (TenantRef::Id(self.acme.id), self.world.db.actor());
        restore_tenant(&self.wish(&tenant, when, aim, &actor), |_| {}).await
    }

    pub(crate) async fn back(&self) -> Result<TenantRestored, Error> {
        self.go(When::At(self.moment), TenantAim::Replace).await
    }

    pub(crate) async fn undo(&self) -> Result<tenantry_db::lifecycle::Undone, Error> {
        let tenant = TenantRef::Id(self.acme.id);
        undo_restore_tenant(&self.world.config, &tenant, WEEK, &self.world.db.actor()).await
    }

    pub(crate) async fn open(&self, tenant: &Tenant) -> TenantDb {
        let installation = self.world.installation();
        let entry = installation.directory().find(tenant.id).await.unwrap().unwrap();
        installation.tenant_db(entry).unwrap()
    }

    /// Schemas of the tenant beside its own.
    pub(crate) async fn copies(&self) -> Vec<String> {
        let schema = self.acme.schema();
        self.texts(&format!(
            "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '{schema}\\_\\_%' ORDER BY 1"
        ))
        .await
    }

    /// The versions that the ledger knows of.
    pub(crate) async fn ledger(&self) -> String {
        let schema = self.acme.schema();
        self.text(&format!(
            "SELECT string_agg(version::text, ',' ORDER BY version) FROM public.migrations WHERE schema_name = '{schema}'"
        ))
        .await
    }

    /// What was made by hand, with its rows.
    pub(crate) async fn assert_all_is_there(&self) {
        let schema = self.acme.schema();
        assert_eq!(
            self.text(&format!("SELECT mood || former::text || twice FROM {schema}.moods")).await,
            "glad{sad,glad}42"
        );
        assert_eq!(self.text(&format!("SELECT count(*)::text FROM {schema}.parts")).await, "1");
        let odd = format!(
            "SELECT coalesce(\"a column\", 'null') FROM {schema}.\"odd \"\"table\" ORDER BY 1"
        );
        assert_eq!(self.texts(&odd).await, ["", "null", "tab\t, line\nbreak, \\. and NULL"]);
        // Bodies call the schema by its name, and mean this one.
        assert_eq!(
            self.text(&format!("SELECT {schema}.count_teams()::text")).await,
            self.live().await.len().to_string()
        );
    }

    pub(crate) fn assert_wiped(&self) {
        assert!(!self.world.path("backup/scratch").exists(), "nothing is left on the disk");
    }

    /// Brings the fleet to a version with one table more, whose file writes rows, too.
    pub(crate) async fn migrate_on(&mut self) {
        let dir = self.world.path("sql");
        if !dir.exists() {
            template::add_built_in(&dir).unwrap();
        }
        let up = "CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, teams bigint NOT NULL);\n\
                  INSERT INTO later (teams) SELECT count(*) FROM teams;\n\
                  INSERT INTO teams (name) VALUES ('by a migration');";
        std::fs::write(dir.join("tenant/0101_later.up.sql"), up).unwrap();
        std::fs::create_dir_all(dir.join("tenant/repeatable")).unwrap();
        std::fs::write(
            dir.join("tenant/repeatable/greeting.sql"),
            "CREATE OR REPLACE VIEW greeting AS SELECT 'hello' AS word;",
        )
        .unwrap();
        self.world.config.migrations.dir = Some(dir);
        let migrations = Migrations::load(&self.world.config.migrations).unwrap();
        let options = RolloutOptions {
            lint: false,
            ..RolloutOptions::to_head(&self.world.config.migrations)
        };
        let actor = self.world.db.actor();
        let rollout = Rollout {
            admin: &self.world.db.admin,
            migrations: &migrations,
            actor: &actor,
            options: &options,
        };
        let (_stop, stop) = tokio::sync::watch::channel(Stop::Go);
        let report = rollout.run(stop, |_| {}).await.unwrap();
        assert!(report.failures.is_empty() && report.error.is_none(), "{report:?}");
    }
}

/// As an owner would make it in migrations: types, functions that call the schema by its name, triggers, views,
/// partitions, generated columns.
pub(crate) fn made_by_hand(tenant: &Tenant) -> String {
    let s = tenant.schema();
    format!(
        "SET ROLE shared_owner; SET search_path TO {s};
         CREATE TABLE notes (n bigint GENERATED BY DEFAULT AS IDENTITY, what text);
         CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO {s}.notes (what) VALUES (NEW.name); RETURN NEW; END $$;
         CREATE TRIGGER stamp AFTER INSERT ON teams FOR EACH ROW EXECUTE FUNCTION stamp();
         CREATE FUNCTION count_teams() RETURNS bigint LANGUAGE plpgsql SET search_path = '{s}' AS $$
             BEGIN RETURN (SELECT count(*) FROM {s}.teams); END $$;
         CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE moods (gone int, mood mood, former mood[], n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
         ALTER TABLE moods DROP COLUMN gone;
         INSERT INTO moods VALUES ('glad', '{{sad,glad}}', 21);
         CREATE TABLE parts (n int, name text) PARTITION BY RANGE (n);
         CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
         INSERT INTO parts VALUES (1, 'one');
         CREATE TABLE \"odd \"\"table\" (\"a column\" text);
         INSERT INTO \"odd \"\"table\" VALUES (E'tab\\t, line\\nbreak, \\\\. and NULL'), (NULL), ('');
         CREATE SEQUENCE down INCREMENT BY -1;
         CREATE VIEW named AS SELECT name FROM teams;
         CREATE MATERIALIZED VIEW frozen AS SELECT count(*) AS n FROM teams;
         CREATE INDEX teams_lower_idx ON teams (lower(name));
         COMMENT ON TABLE notes IS 'what; happened';
         RESET ROLE; RESET search_path",
    )
}
