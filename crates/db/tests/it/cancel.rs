//! A call may be dropped wherever it waits: each of these points is found by polling it once more
//! than before. What is left behind must be nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tenantry_db::{Config, Error, Installation, TenantDb};
use tenantry_testing::{Proxy, Wire};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::rig::Rig;
use crate::texts;

/// No call has as many points.
const MOST_POLLS: usize = 200;

/// Both rows or none: in one statement, or in one transaction.
const ADD_BOTH: &str = "INSERT INTO notifications (user_id, kind, title)
    SELECT id, 'test', $1 FROM users CROSS JOIN generate_series(1, 2) RETURNING id";
const ADD_ONE: &str =
    "INSERT INTO notifications (user_id, kind, title) SELECT id, 'test', $1 FROM users";
const COUNT: &str = "SELECT count(*) FROM notifications WHERE title = $1";

/// Polls a future that often, then gives it up.
struct Polled<'a, T> {
    call: Pin<Box<dyn Future<Output = T> + 'a>>,
    left: usize,
}

impl<T> Future for Polled<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.left -= 1;
        match self.call.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Query,
    Execute,
    Transaction,
    Abandoned,
}

impl Call {
    async fn run(self, tenant: &TenantDb, title: &str) -> Result<(), Error> {
        let params = [(&title as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT)];
        match self {
            Self::Query => tenant.query(ADD_BOTH, &params).await.map(drop),
            Self::Execute => tenant.execute(ADD_BOTH, &params).await.map(drop),
            Self::Transaction => {
                let mut tx = tenant.begin().await?;
                tx.execute(ADD_ONE, &params).await?;
                tx.execute(ADD_ONE, &params).await?;
                tx.commit().await
            }
            Self::Abandoned => {
                let mut tx = tenant.begin().await?;
                tx.execute(ADD_BOTH, &params).await?;
                drop(tx);
                Ok(())
            }
        }
    }
}

/// The tenants of a rig by way of a proxy, with one slot each: one that is not given back is missed
/// at once.
struct Wired {
    rig: Rig,
    proxy: Proxy,
    superuser: Client,
    /// Looks at what the next one gets.
    next: Client,
}

impl Wired {
    async fn new() -> Self {
        let rig = Rig::new(2).await;
        let proxy = Proxy::start(rig.db.servers().pgbouncer_port, Duration::ZERO).await.unwrap();
        let add = "INSERT INTO users (email, name, role) VALUES ('a@example.org', 'A', 'member')";
        rig.tenants[0].execute(add, &[]).await.unwrap();
        let (superuser, next) = (rig.db.superuser().await, rig.bare().await);
        Self { rig, proxy, superuser, next }
    }

    /// With pools that are empty yet.
    async fn tenant(&self) -> TenantDb {
        let db = &self.rig.db;
        let url = format!("postgresql://127.0.0.1:{}/{}", self.proxy.port(), db.name());
        let layers = db.servers().layers(db.name(), "shared");
        let layers = layers.flag("test", "database.url", url).flag("test", "lanes.count", 1).flag(
            "test",
            "tiers.free.slots",
            1,
        );
        let installation = Installation::new(Config::from_layers(layers).unwrap()).unwrap();
        let id = self.rig.tenants[0].tenant().id;
        let entry = installation.directory().find(id).await.unwrap().unwrap();
        installation.tenant_db(entry).unwrap()
    }

    async fn count(&self, tenant: &TenantDb, title: &str) -> i64 {
        tenant.query_one(COUNT, &[(&title, Type::TEXT)]).await.unwrap().get(0)
    }

    /// No lane's backend is in a transaction, at work or holds a lock, and there are as many of them
    /// as PgBouncer may have.
    async fn until_quiet(&self, after: &str) {
        let left = "
            SELECT concat_ws(' ', 'pid', pid, state, query) FROM pg_stat_activity
             WHERE usename LIKE 'shared_lane%' AND state <> 'idle'
            UNION ALL
            SELECT concat_ws(' ', 'lock', pid, relation::regclass, mode) FROM pg_locks
             WHERE relation >= 16384 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            UNION ALL
            SELECT 'connections ' || count(*) FROM pg_stat_activity
             WHERE usename LIKE 'shared_lane%' HAVING count(*) > 1";
        for _ in 0..500 {
            if texts(&self.superuser, left).await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("left after {after}: {:?}", texts(&self.superuser, left).await);
    }

    /// The call is dropped at its first point, its second, and so on; yields how many there were.
    async fn dropped_at_every_point(&self, call: Call, warm: bool) -> usize {
        let mut tenant = self.tenant().await;
        for polls in 1..MOST_POLLS {
            let after = format!("{call:?} dropped after {polls} polls, warm: {warm}");
            if warm {
                self.count(&tenant, "").await;
            } else {
                tenant = self.tenant().await;
            }
            self.proxy.set(Wire::RepliesOneByOne);
            let running = Box::pin(call.run(&tenant, &after));
            let done = Polled { call: running, left: polls }.await;
            self.proxy.set(Wire::Open);
            // The same tenant at once, whatever is still going on there.
            let seen = self.count(&tenant, &after).await;
            self.until_quiet(&after).await;
            let kept = self.count(&tenant, &after).await;
            let whole: &[i64] = match (call, &done) {
                (Call::Abandoned, _) => &[0],
                (_, Some(_)) => &[2],
                (_, None) => &[0, 2],
            };
            assert!(whole.contains(&seen), "{seen} rows: {after}");
            assert!(whole.contains(&kept), "{kept} rows: {after}");
            self.rig.assert_clean(&self.next, &after).await;
            if let Some(done) = done {
                done.unwrap();
                return polls;
            }
        }
        panic!("{call:?} does not end");
    }
}

#[tokio::test]
async fn a_call_dropped_at_any_point_leaves_nothing_behind() {
    let wired = Wired::new().await;
    for call in [Call::Query, Call::Execute, Call::Transaction, Call::Abandoned] {
        let points = wired.dropped_at_every_point(call, true).await;
        // The replies did come apart, or this would try next to nothing.
        assert!(points >= 8, "{call:?}: only {points} points");
    }
}

#[tokio::test]
async fn a_call_dropped_at_any_point_of_the_login_leaves_nothing_behind() {
    let wired = Wired::new().await;
    let points = wired.dropped_at_every_point(Call::Query, false).await;
    assert!(points >= 12, "only {points} points");
}

#[tokio::test]
async fn a_transaction_dropped_while_it_waits_in_the_server_is_undone() {
    let wired = Wired::new().await;
    let schema = wired.rig.tenants[0].tenant().id.schema();
    let tenant = wired.tenant().await;
    wired.count(&tenant, "").await;
    let mut tx = tenant.begin().await.unwrap();
    let title = "half";
    tx.execute(ADD_ONE, &[(&title, Type::TEXT)]).await.unwrap();
    let lock = format!("BEGIN; LOCK TABLE {schema}.teams");
    wired.superuser.batch_execute(&lock).await.unwrap();
    let watcher = wired.rig.db.superuser().await;
    let waiting = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let asks = tx.execute("UPDATE teams SET name = 'changed'", &[]);
    let until_it_waits = async {
        while texts(&watcher, waiting).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = asks => panic!("the table is locked: {done:?}"),
        () = until_it_waits => {}
    }
    drop(tx);
    wired.superuser.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(wired.count(&tenant, title).await, 0);
    wired.until_quiet("a transaction dropped while it waited").await;
    assert_eq!(wired.count(&tenant, title).await, 0);
    wired.rig.assert_clean(&wired.next, "a transaction dropped while it waited").await;
}
