//! A fleet whose tenants are tiny, so that there can be many, with migration files of its own.
//!
//! Version 2 of the tenant set is one table, `item`; tests add versions from 101 on.

use std::sync::{Arc, Mutex};

use tenantry_db::lifecycle::{self, NewTenant};
use tenantry_db::migrate::{
    Direction, Event, Migrations, Portion, Rollout, RolloutOptions, RolloutReport, Stop, Tenants,
    Tolerance,
};
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Error, TenantId};
use tenantry_testing::TestDatabase;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::files;
use crate::texts;

/// The tenant set's first file.
const SMALL: (&str, &str) = (
    "tenant/0002_create_tenant_schema_tables.up.sql",
    "CREATE TABLE item (id int PRIMARY KEY, note text);",
);
const SMALL_DOWN: (&str, &str) =
    ("tenant/0002_create_tenant_schema_tables.down.sql", "DROP TABLE item;");

/// What most tests apply.
pub(super) const LABEL: (&str, &str) = ("tenant/0101_label.up.sql", "CREATE TABLE label (id int);");
pub(super) const LABEL_DOWN: (&str, &str) = ("tenant/0101_label.down.sql", "DROP TABLE label;");

/// Whatever a test waits for comes sooner, or never.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

pub(super) struct Fleet {
    pub(super) db: TestDatabase,
    pub(super) superuser: Client,
    dir: tempfile::TempDir,
    /// In the order in which a run takes them: `t1`, `t2`, …
    pub(super) tenants: Vec<TenantId>,
}

impl Fleet {
    /// Tenants `t1` to `tN`, at version 2.
    pub(super) async fn new(tenants: usize) -> Self {
        Self::on(TestDatabase::new().await, tenants).await
    }

    pub(super) async fn on(db: TestDatabase, tenants: usize) -> Self {
        let superuser = db.superuser().await;
        let dir = files(&[SMALL, SMALL_DOWN]);
        let mut fleet = Self { db, superuser, dir, tenants: Vec::new() };
        fleet.add(tenants).await;
        fleet
    }

    /// As `create_tenant`, without role and rights, and many in one statement.
    async fn add(&mut self, tenants: usize) {
        const AT_ONCE: usize = 200;
        let files = self.migrations();
        let small = &files.tenant.migrations()[0];
        for from in (1..=tenants).step_by(AT_ONCE) {
            let to = (from + AT_ONCE - 1).min(tenants);
            let make = format!(
                "SET ROLE shared_owner;
                 DO $$
                 DECLARE id uuid; s text;
                 BEGIN FOR n IN {from}..{to} LOOP
                     id := gen_random_uuid(); s := 'tenant_' || replace(id::text, '-', '');
                     INSERT INTO public.tenants (id, name, subdomain, tier, lane, schema_version, created_at)
                     VALUES (id, 'T', 't' || n, 'free', 0, 2, now() - interval '1 day' + n * interval '1s');
                     EXECUTE format('CREATE SCHEMA %I', s);
                     EXECUTE format('CREATE FUNCTION %I.this_tenant() RETURNS uuid
                                     LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %L::uuid', s, id);
                     EXECUTE format('CREATE TABLE %I.item (id int PRIMARY KEY, note text)', s);
                     INSERT INTO public.migrations (schema_name, version, name, checksum, token_checksum, duration_ms)
                     VALUES (s, 2, '{}', '\\x{}', '\\x{}', 0);
                 END LOOP; END $$;
                 RESET ROLE",
                small.name,
                hex(&small.checksum),
                hex(&small.token_checksum),
            );
            self.superuser.batch_execute(&make).await.unwrap();
        }
        let ids = "SELECT id::text FROM public.tenants ORDER BY created_at";
        self.tenants =
            texts(&self.superuser, ids).await.iter().map(|id| id.parse().unwrap()).collect();
    }

    /// Adds files to the directory, or replaces them.
    pub(super) fn write(&self, files: &[(&str, &str)]) -> &Self {
        for (name, text) in files {
            let path = self.dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self
    }

    pub(super) fn remove(&self, name: &str) -> &Self {
        std::fs::remove_file(self.dir.path().join(name)).unwrap();
        self
    }

    /// The files as they are now.
    pub(super) fn migrations(&self) -> Migrations {
        Migrations::from_dir(self.dir.path()).unwrap()
    }

    /// Everything to head, all at once: no canary.
    pub(super) fn options(&self) -> RolloutOptions {
        let mut options = RolloutOptions::to_head(&self.db.config.migrations);
        options.waves = vec![Portion::Percent(100)];
        // What files may say is for the lint's own tests; here is what happens if they say it.
        options.lint = false;
        options.built_in = true;
        options
    }

    /// As [`options`](Self::options), with the waves that are the default.
    pub(super) fn in_waves(&self, tolerance: Tolerance) -> RolloutOptions {
        RolloutOptions { tolerance, ..RolloutOptions::to_head(&self.db.config.migrations) }
    }

    pub(super) fn back_to(&self, to: i64) -> RolloutOptions {
        let direction = Direction::Down { to, accept_data_loss: false };
        RolloutOptions { direction, public: false, ..self.options() }
    }

    pub(super) fn only(&self, numbers: &[usize]) -> Tenants {
        Tenants::Only(numbers.iter().map(|n| self.tenants[n - 1]).collect())
    }

    /// Runs to the end.
    pub(super) async fn run(&self, options: RolloutOptions) -> Result<RolloutReport, Error> {
        self.start(options).await.end().await
    }

    /// Everything to head, with nothing that stands against it.
    pub(super) async fn to_head(&self) -> RolloutReport {
        let report = self.run(self.options()).await.unwrap();
        assert!(report.failures.is_empty() && report.error.is_none(), "{report:?}");
        report
    }

    /// Begins a run that the test can watch and stop.
    pub(super) async fn start(&self, options: RolloutOptions) -> Running {
        let (stop, stopped) = watch::channel(Stop::Go);
        let (tell, told) = watch::channel(0);
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let (admin, migrations, actor) =
            (self.db.admin.clone(), self.migrations(), self.db.actor());
        let task = tokio::spawn(async move {
            let rollout = Rollout {
                admin: &admin,
                migrations: &migrations,
                actor: &actor,
                options: &options,
            };
            let tell = |event| {
                seen.lock().unwrap().push(event);
                tell.send_modify(|count| *count += 1);
            };
            rollout.run(stopped, tell).await
        });
        Running { stop, told, events, task: Some(task) }
    }

    /// Creates a tenant as the service does, with these files.
    pub(super) async fn create(&self, migrations: &Migrations, subdomain: &str) -> Tenant {
        let settings = serde_json::Map::new();
        let new = NewTenant::new(&self.db.config, subdomain, subdomain, None, settings).unwrap();
        lifecycle::create_tenant(&self.db.admin, migrations, &new, &self.db.actor()).await.unwrap()
    }

    /// Sets a limit of migrations.
    pub(super) fn limit(&mut self, key: &str, value: impl Into<toml::Value>) {
        super::limit(&mut self.db, key, value);
    }

    /// The schema of `tN`.
    pub(super) fn schema(&self, n: usize) -> String {
        self.tenants[n - 1].schema().to_string()
    }

    /// Runs statements with the path of `tN`, as the superuser.
    pub(super) async fn sql(&self, n: usize, statements: &str) {
        let schema = self.schema(n);
        let statements = format!("SET search_path TO {schema}; {statements}; RESET search_path");
        self.superuser.batch_execute(&statements).await.unwrap();
    }

    /// Who stands at a version, by number.
    pub(super) async fn at(&self, version: i64) -> Vec<usize> {
        let query = format!(
            "SELECT subdomain::text FROM public.tenants WHERE schema_version = {version}
             AND subdomain ~ '^t[0-9]+$' ORDER BY created_at"
        );
        let names = texts(&self.superuser, &query).await;
        names.iter().map(|name| name[1..].parse().unwrap()).collect()
    }

    /// Invariant 6: what the catalog, the ledger and the register say is one and the same, in each
    /// tenant, for the table that a version makes.
    pub(super) async fn assert_whole(&self, table: &str, version: i64) {
        let query = format!(
            "SELECT t.subdomain::text FROM public.tenants t
              WHERE t.status NOT IN ('purging', 'purged')
                AND 1 < (SELECT count(DISTINCT said) FROM (VALUES
                  (t.schema_version >= {version}),
                  (EXISTS (SELECT FROM public.migrations m WHERE m.version = {version}
                     AND m.schema_name = 'tenant_' || replace(t.id::text, '-', ''))),
                  (EXISTS (SELECT FROM pg_class c WHERE c.relname = '{table}'
                     AND c.relnamespace = to_regnamespace('tenant_' || replace(t.id::text, '-', '')))
                  )) v (said))"
        );
        assert_eq!(texts(&self.superuser, &query).await, Vec::<String>::new(), "half migrated");
    }

    /// How the runs ended, the oldest first.
    pub(super) async fn runs(&self) -> Vec<String> {
        let query =
            "SELECT concat_ws(' ', direction, state, tenants_total, tenants_done, tenants_failed,
                            tenants_skipped, (ended_at IS NOT NULL)::text)
                     FROM public.migration_runs ORDER BY started_at";
        texts(&self.superuser, query).await
    }

    /// Waits until a backend waits for a lock of another's, and yields its statement.
    pub(super) async fn until_blocked(&self) -> String {
        self.until(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database()
             AND wait_event_type = 'Lock' LIMIT 1",
        )
        .await
    }

    /// Waits until a query yields a row.
    pub(super) async fn until(&self, query: &str) -> String {
        let looking = async {
            loop {
                if let Some(found) = texts(&self.superuser, query).await.pop() {
                    return found;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("`{query}` stays empty"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A run that is going on.
pub(super) struct Running {
    pub(super) stop: watch::Sender<Stop>,
    told: watch::Receiver<usize>,
    events: Arc<Mutex<Vec<Event>>>,
    task: Option<JoinHandle<Result<RolloutReport, Error>>>,
}

impl Running {
    pub(super) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Waits until so many events are of a kind.
    pub(super) async fn until(&mut self, count: usize, kind: impl Fn(&Event) -> bool) {
        let events = Arc::clone(&self.events);
        let enough = |_: &usize| events.lock().unwrap().iter().filter(|e| kind(e)).count() >= count;
        let seen = tokio::time::timeout(PATIENCE, self.told.wait_for(enough)).await;
        if !matches!(seen, Ok(Ok(_))) {
            panic!("{seen:?}: only {:?}", events.lock().unwrap());
        }
    }

    /// Waits for the end.
    pub(super) async fn end(&mut self) -> Result<RolloutReport, Error> {
        let task = self.task.take().unwrap();
        tokio::time::timeout(PATIENCE, task).await.expect("a run has an end").unwrap()
    }

    /// Drops it in the middle, as a killed runner does.
    pub(super) async fn kill(mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        assert!(task.await.is_err_and(|error| error.is_cancelled()), "it was through already");
    }

    /// The names of those who are done, in that order.
    pub(super) fn done(&self) -> Vec<String> {
        let done = |event: Event| match event {
            Event::TenantDone { subdomain, .. } => subdomain,
            _ => None,
        };
        self.events().into_iter().filter_map(done).collect()
    }
}

pub(super) fn is_done(event: &Event) -> bool {
    matches!(event, Event::TenantDone { .. })
}

pub(super) fn is_retry(event: &Event) -> bool {
    matches!(event, Event::Retrying { .. })
}
