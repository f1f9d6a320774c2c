//! One server connection for a whole lane, so that every tenant gets the one that another has just
//! left.

use tenantry_db::bind::statement;
use tenantry_db::{LaneId, TenantDb};
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::{refusal, texts};

/// Servers of a test's own with one server connection for each lane, and tenants that all belong to
/// lane 0. Each has one team, whose name is the tenant's [`secret`](Self::secret).
pub(crate) struct Rig {
    pub(crate) db: TestDatabase,
    pub(crate) tenants: Vec<TenantDb>,
    _stack: tenantry_stack::Stack,
    _dir: tempfile::TempDir,
}

/// What a session consists of, the role first. A later client must find it as a first one does.
/// Prepared statements are left out: `PREPARE` leaves one, which is a text and no right, since it runs
/// with the rights of whoever executes it; and `DEALLOCATE ALL` would make a newer PgBouncer forget
/// those that it keeps for its clients.
const SESSION: &str = "
    SELECT concat_ws(' ', current_user, session_user, current_setting('role'), current_setting('session_authorization'))
    UNION ALL SELECT name || '=' || setting FROM pg_settings
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''
    UNION ALL SELECT 'channel ' || pg_listening_channels()
    UNION ALL SELECT 'lock ' || locktype || mode FROM pg_locks
               WHERE pid = pg_backend_pid() AND (locktype = 'advisory' OR relation >= 16384)
    UNION ALL SELECT 'temporary ' || nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()";

impl Rig {
    pub(crate) async fn new(tenants: usize) -> Self {
        let dir = temp_dir().unwrap();
        let (stack, servers) = Servers::start(dir.path(), 1).await.unwrap();
        let mut db = TestDatabase::on(servers).await;
        let layers = db.servers().layers(db.name(), "shared").flag("test", "lanes.count", 1);
        db.config = tenantry_db::Config::from_layers(layers).unwrap();
        let installation = db.installation();
        let mut opened = Vec::new();
        for n in 0..tenants {
            let tenant = db.tenant(&format!("t{n}")).await;
            let entry = installation.directory().find(tenant.id).await.unwrap().unwrap();
            let tenant = installation.tenant_db(entry).unwrap();
            let add = "INSERT INTO teams (name) VALUES ($1)";
            tenant.execute(add, &[(&Self::secret(n), Type::TEXT)]).await.unwrap();
            opened.push(tenant);
        }
        Self { db, tenants: opened, _stack: stack, _dir: dir }
    }

    /// What stands in a tenant's only team, and nowhere else.
    pub(crate) fn secret(tenant: usize) -> String {
        format!("secret of tenant {tenant}")
    }

    /// A client of the lane that binds nothing and trusts nobody.
    pub(crate) async fn bare(&self) -> Client {
        self.db.lane(LaneId::new(0).unwrap()).await
    }

    pub(crate) fn bind(&self, tenant: usize) -> String {
        let tier = self.db.config.tiers["free"];
        statement(self.tenants[tenant].tenant().id.schema(), &tier)
    }

    /// The session as the next client finds it.
    pub(crate) async fn session(&self, next: &Client) -> Vec<String> {
        texts(next, SESSION).await
    }

    /// The next client finds the connection as new: it is nobody and reads nothing. And every tenant
    /// sees its own rows, and no others.
    pub(crate) async fn assert_clean(&self, next: &Client, after: &str) {
        let session = self.session(next).await;
        assert_eq!(
            session[0], "shared_lane_00 shared_lane_00 none shared_lane_00",
            "after {after}"
        );
        for setting in [
            "search_path=\"\"",
            "default_transaction_read_only=off",
            "statement_timeout=0",
            "idle_in_transaction_session_timeout=0",
        ] {
            assert!(session.iter().any(|line| line == setting), "{setting} is lost after {after}");
        }
        for table in ["public.countries", "teams"] {
            let code = refusal(next, &format!("SELECT FROM {table}")).await;
            assert!(matches!(code.code(), "42501" | "42P01"), "{table}: {code:?} after {after}");
        }
        for (n, tenant) in self.tenants.iter().enumerate() {
            let schema = tenant.tenant().id.schema();
            let code = refusal(next, &format!("SELECT FROM {schema}.teams")).await;
            assert_eq!(code.code(), "42501", "after {after}");
            let seen = tenant
                .query("SELECT name, current_user::text FROM teams", &[])
                .await
                .unwrap_or_else(|e| panic!("tenant {n} after {after}: {e:?}"));
            let seen: Vec<(String, String)> =
                seen.iter().map(|row| (row.get(0), row.get(1))).collect();
            assert_eq!(seen, [(Self::secret(n), schema.to_string())], "after {after}");
        }
    }
}
