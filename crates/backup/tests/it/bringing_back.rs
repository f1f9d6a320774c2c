//! One tenant brought back alone: what it has then, what others notice, what is left behind.

mod breaking_off;
mod staying;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tenantry_backup::{
    Error, TenantAim, TenantRestore, TenantRestored, TenantStep, When, restore_tenant,
    undo_restore_tenant,
};
use tenantry_db::lifecycle::{delete_tenant, drop_what_is_nobodys, hold_tenant, suspend_tenant};
use tenantry_db::migrate::{
    Migrations, Rollout, RolloutOptions, Stop, fingerprint, fleet_status, template,
};
use tenantry_db::models::tenants::{Status, Tenant, get_tenant};
use tenantry_db::{ErrorKind, TenantDb, TenantRef};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::world::{World, until};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// A tenant with whatever a schema may have, row A before a moment and row B after it.
struct Past {
    world: World,
    client: Client,
    acme: Tenant,
    moment: Timestamp,
}

impl Past {
    async fn new() -> Self {
        Self::with(made_by_hand).await
    }

    async fn with(make: impl FnOnce(&Tenant) -> String) -> Self {
        let world = World::new().await;
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

    async fn add(&self, name: &str) {
        let schema = self.acme.schema();
        let text = format!(
            "SET ROLE {schema}; SET search_path TO {schema};
             INSERT INTO teams (name) VALUES ('{name}'); INSERT INTO content (title) VALUES ('{name}');
             RESET ROLE; RESET search_path"
        );
        self.client.batch_execute(&text).await.unwrap();
    }

    async fn texts(&self, query: &str) -> Vec<String> {
        let rows = self.client.query_typed(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn text(&self, query: &str) -> String {
        self.texts(query).await.remove(0)
    }

    /// The names of the teams in a schema.
    async fn teams(&self, schema: &str) -> Vec<String> {
        self.texts(&format!("SELECT name::text FROM {schema}.teams ORDER BY name")).await
    }

    async fn live(&self) -> Vec<String> {
        self.teams(&self.acme.schema().to_string()).await
    }

    fn wish<'a>(
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

    async fn go(&self, when: When, aim: TenantAim<'_>) -> Result<TenantRestored, Error> {
        let (tenant, actor) = (TenantRef::Id(self.acme.id), self.world.db.actor());
        restore_tenant(&self.wish(&tenant, when, aim, &actor), |_| {}).await
    }

    async fn back(&self) -> Result<TenantRestored, Error> {
        self.go(When::At(self.moment), TenantAim::Replace).await
    }

    async fn undo(&self) -> Result<tenantry_db::lifecycle::Undone, Error> {
        let tenant = TenantRef::Id(self.acme.id);
        undo_restore_tenant(&self.world.config, &tenant, WEEK, &self.world.db.actor()).await
    }

    async fn open(&self, tenant: &Tenant) -> TenantDb {
        let installation = self.world.installation();
        let entry = installation.directory().find(tenant.id).await.unwrap().unwrap();
        installation.tenant_db(entry).unwrap()
    }

    /// Schemas of the tenant beside its own.
    async fn copies(&self) -> Vec<String> {
        let schema = self.acme.schema();
        self.texts(&format!(
            "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '{schema}\\_\\_%' ORDER BY 1"
        ))
        .await
    }

    /// The versions that the ledger knows of.
    async fn ledger(&self) -> String {
        let schema = self.acme.schema();
        self.text(&format!(
            "SELECT string_agg(version::text, ',' ORDER BY version) FROM public.migrations WHERE schema_name = '{schema}'"
        ))
        .await
    }

    fn assert_wiped(&self) {
        assert!(!self.world.path("backup/scratch").exists(), "nothing is left on the disk");
    }

    /// Brings the fleet to a version with one table more, whose file writes rows, too.
    async fn migrate_on(&mut self) {
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
fn made_by_hand(tenant: &Tenant) -> String {
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

/// Somebody who writes without a pause. Yields the numbers that were acknowledged.
fn write(db: TenantDb, stop: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut written = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let name = format!("w{:05}", written.len());
            let add = "INSERT INTO teams (name) VALUES ($1)";
            db.execute(add, &[(&name, Type::TEXT)]).await.unwrap();
            written.push(name);
            tokio::task::yield_now().await;
        }
        written
    })
}

#[tokio::test]
async fn one_comes_back_while_ten_others_and_itself_write() {
    let mut past = Past::new().await;
    let mut others = Vec::new();
    for n in 0..10 {
        others.push(past.world.db.tenant(&format!("other{n}")).await);
    }
    past.migrate_on().await;
    past.add("C").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for tenant in &others {
        writers.push(write(past.open(tenant).await, Arc::clone(&stop)));
    }
    let own = write(past.open(&past.acme).await, Arc::clone(&stop));
    let schema = past.acme.schema();
    let before = fingerprint(&past.world.db.reader, schema).await.unwrap();
    let deadlocks = "SELECT sum(deadlocks)::text FROM pg_stat_database";
    let restored = past.back().await.unwrap();
    let replaced = restored.replaced.unwrap();
    stop.store(true, Ordering::Relaxed);
    past.assert_wiped();

    // Nobody lost anything, nor was anybody refused.
    for (tenant, writer) in others.iter().zip(writers) {
        let written = writer.await.unwrap();
        assert!(!written.is_empty());
        let there = past.teams(&tenant.schema().to_string()).await;
        assert!(
            written.iter().all(|name| there.contains(name)) && there.len() == written.len() + 1
        );
    }
    assert_eq!(past.text(deadlocks).await, "0");
    // What it wrote itself is in the one or in the other.
    let (kept, live) = (past.teams(&replaced.kept_as).await, past.live().await);
    for name in own.await.unwrap() {
        assert!(kept.contains(&name) != live.contains(&name), "{name} is in one of both");
    }
    let of_old = |names: &[String]| {
        names.iter().filter(|it| !it.starts_with('w')).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_old(&live), ["A", "by a migration"]);
    assert_eq!(of_old(&kept), ["A", "B", "C", "by a migration"]);

    // As every other tenant, at head: the same schema as before, brought forward from its own rows.
    let now = fingerprint(&past.world.db.reader, schema).await.unwrap();
    assert_eq!(before.difference(&now), Vec::<String>::new());
    assert_eq!((replaced.from_version, replaced.version), (2, 101));
    let migrations = Migrations::load(&past.world.config.migrations).unwrap();
    let fleet = fleet_status(&past.world.db.reader, &migrations).await.unwrap();
    assert!(fleet.behind.is_empty(), "{fleet:?}");
    assert_eq!(past.ledger().await, "2,101");
    assert_eq!(past.text(&format!("SELECT teams::text FROM {schema}.later")).await, "1");
    assert_eq!(
        past.text(&format!("SELECT mood || former::text || twice FROM {schema}.moods")).await,
        "glad{sad,glad}42"
    );
    assert_eq!(past.text(&format!("SELECT count(*)::text FROM {schema}.parts")).await, "1");
    let odd =
        format!("SELECT coalesce(\"a column\", 'null') FROM {schema}.\"odd \"\"table\" ORDER BY 1");
    assert_eq!(past.texts(&odd).await, ["", "null", "tab\t, line\nbreak, \\. and NULL"]);
    // Bodies call it by its name, and mean this one: also what a migration's trigger wrote, in the copy.
    assert_eq!(
        past.text(&format!("SELECT {schema}.count_teams()::text")).await,
        past.live().await.len().to_string()
    );
    let notes = format!(
        "SELECT count(*)::text FROM {}.notes WHERE what = 'by a migration'",
        replaced.kept_as
    );
    assert_eq!(past.text(&notes).await, "1", "the copy's migration wrote nothing here");

    // It can write at once, also to what comes later; no number is given twice.
    let acme = past.open(&past.acme).await;
    let add = "INSERT INTO content (title) VALUES ('new') RETURNING number";
    let number: i64 = acme.query_one(add, &[]).await.unwrap().get(0);
    // After a recovery a sequence may have gone on by itself.
    assert!(number > 3, "A, B and C had 1 to 3: {number}");
    acme.execute("INSERT INTO later (teams) VALUES (7)", &[]).await.unwrap();
    let table =
        format!("SET ROLE shared_owner; CREATE TABLE {schema}.tomorrow (n int); RESET ROLE");
    past.client.batch_execute(&table).await.unwrap();
    acme.execute("INSERT INTO tomorrow VALUES (1)", &[]).await.unwrap();
    past.world.stop().await;
}

#[tokio::test]
async fn what_was_undone_is_as_before_and_no_lane_reaches_what_is_kept() {
    let mut past = Past::new().await;
    let before = fingerprint(&past.world.db.reader, past.acme.schema()).await.unwrap();
    let kept = past.back().await.unwrap().replaced.unwrap().kept_as;
    assert_eq!(past.live().await, ["A"]);
    past.add("after").await;
    let lane = past.world.db.lane_direct(past.acme.lane).await;
    let bind = format!("BEGIN; SET LOCAL ROLE {}", past.acme.schema());
    for table in ["teams", "notes"] {
        lane.batch_execute(&bind).await.unwrap();
        let refused = lane.batch_execute(&format!("SELECT FROM {kept}.{table}")).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501");
        lane.batch_execute("ROLLBACK").await.unwrap();
    }

    let undone = past.undo().await.unwrap();
    assert_eq!(past.live().await, ["A", "B"]);
    assert_eq!(past.teams(&undone.kept_as).await, ["A", "after"]);
    assert_eq!(past.copies().await, [undone.kept_as.clone()]);
    let now = fingerprint(&past.world.db.reader, past.acme.schema()).await.unwrap();
    assert_eq!(before.difference(&now), Vec::<String>::new());
    // A number that was given in the meantime is not given again.
    let acme = past.open(&past.acme).await;
    let add = "INSERT INTO content (title) VALUES ('new') RETURNING number";
    let number: i64 = acme.query_one(add, &[]).await.unwrap().get(0);
    let given = format!("SELECT max(number)::text FROM {}.content", undone.kept_as);
    assert!(number > past.text(&given).await.parse().unwrap(), "{number}");
    past.undo().await.unwrap();
    assert_eq!(past.live().await, ["A", "after"]);
    let entries = format!(
        "SELECT action FROM public.audit_log WHERE tenant_id = '{}' AND action LIKE 'tenant.rew%' ORDER BY id",
        past.acme.id
    );
    assert_eq!(
        past.texts(&entries).await,
        ["tenant.rewound", "tenant.rewind_undone", "tenant.rewind_undone"]
    );
    // Who was migrated in the meantime is at its former version again, and says so.
    past.undo().await.unwrap();
    past.undo().await.unwrap();
    past.migrate_on().await;
    let undone = past.undo().await.unwrap();
    assert_eq!((undone.former_version, undone.version), (101, 2));
    assert_eq!(past.ledger().await, "2");
    let row = get_tenant(&past.world.db.reader, &TenantRef::Id(past.acme.id)).await.unwrap();
    assert_eq!(row.schema_version, 2);
    past.migrate_on().await;
    assert_eq!(past.ledger().await, "2,101");
    past.world.stop().await;
}

#[tokio::test]
async fn as_another_tenant_it_is_there_to_be_looked_at() {
    let past = Past::with(|_| String::new()).await;
    let aim = TenantAim::New("acme-then");
    let restored = past.go(When::At(past.moment), aim).await.unwrap();
    let made = restored.made.unwrap();
    assert_eq!((made.tenant.subdomain.as_deref(), made.source), (Some("acme-then"), past.acme.id));
    assert_eq!(past.teams(&made.tenant.schema().to_string()).await, ["A"]);
    assert_eq!(past.live().await, ["A", "B"], "the tenant itself is left alone");
    let new = past.open(&made.tenant).await;
    new.execute("INSERT INTO teams (name) VALUES ('x')", &[]).await.unwrap();
    let entry = format!(
        "SELECT details->>'source_tenant_id' FROM public.audit_log WHERE tenant_id = '{}' AND action = 'tenant.rewound'",
        made.tenant.id
    );
    assert_eq!(past.text(&entry).await, past.acme.id.to_string());
    past.assert_wiped();
    let taken = past.go(When::At(past.moment), aim).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict, "{taken}");
    let odd = past.go(When::At(past.moment), TenantAim::New("No Name")).await.unwrap_err();
    assert_eq!(odd.kind(), ErrorKind::Invalid, "{odd}");
    past.world.stop().await;
}
