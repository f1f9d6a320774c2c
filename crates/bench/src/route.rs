//! `route`: one lookup by key through PgBouncer, in three ways side by side.
//!
//! The floor is the same statement with a qualified name and no binding at all, by a login that may
//! read the tables directly: what a product without isolation would send. Ours is `TenantDb`. Four
//! trips is how it is written down most often: BEGIN, SET, statement, COMMIT, each awaited.

use std::time::Duration;

use tenantry_db::bind::{COMMIT, statement};
use tenantry_db::models::tenants::Tenant;
use tenantry_db::{Config, Installation, LaneId, TenantDb, TenantId};
use tenantry_testing::{Proxy, Servers, TestDatabase, temp_dir};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use crate::lookup::{self, EMAIL, LOOKUP, Options, POOL_SIZE};

/// The delays that are added, for the way there and back together.
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_micros(500)];

/// One of the ways, with everything that it takes, for one client.
enum Way {
    Floor { client: Client, sql: String },
    Ours(Box<TenantDb>),
    FourTrips { client: Client, bind: String },
}

const WAYS: [&str; 3] =
    ["unbound, qualified (floor)", "TenantDb, one trip", "BEGIN / SET / statement / COMMIT"];

impl Way {
    async fn lookup(&self) -> Result<(), anyhow::Error> {
        let params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[(&EMAIL, Type::TEXT)];
        let found = match self {
            Self::Floor { client, sql } => client.query_typed_opt(sql, params).await?,
            Self::Ours(db) => db.query_opt(LOOKUP, params).await?,
            Self::FourTrips { client, bind } => {
                let set = bind.strip_prefix("BEGIN; ").unwrap_or(bind);
                client.batch_execute("BEGIN").await?;
                client.batch_execute(set).await?;
                let found = client.query_typed_opt(LOOKUP, params).await?;
                client.batch_execute(COMMIT).await?;
                found
            }
        };
        anyhow::ensure!(found.is_some(), "the row is there");
        Ok(())
    }
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = temp_dir()?;
    let (mut stack, servers) = Servers::start(dir.path(), POOL_SIZE).await?;
    let db = TestDatabase::on(servers).await;
    let tenants = lookup::prepare(&db, options, rights_of_the_floor).await?;
    println!("{}", options.headline());
    for delay in DELAYS {
        let proxy = Proxy::start(db.servers().pgbouncer_port, delay / 2).await?;
        let port = if delay.is_zero() { db.servers().pgbouncer_port } else { proxy.port() };
        let ways = ways(&db, port, &tenants).await?;
        println!("{} ms of added delay for the way there and back", delay.as_secs_f64() * 1e3);
        lookup::compare(WAYS, &ways, options, Way::lookup).await?;
    }
    stack.stop().await?;
    Ok(())
}

/// The lane may read the tables directly, as the floor needs.
fn rights_of_the_floor(tenant: &Tenant) -> String {
    let schema = tenant.schema();
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO shared_lane_00;
         GRANT SELECT ON {schema}.users TO shared_lane_00;
         GRANT EXECUTE ON FUNCTION {schema}.this_tenant() TO shared_lane_00"
    )
}

async fn ways(db: &TestDatabase, port: u16, tenants: &[TenantId]) -> anyhow::Result<[Vec<Way>; 3]> {
    let url = format!("postgresql://127.0.0.1:{port}/{}", db.name());
    let layers = db.servers().layers(db.name(), "shared").flag("bench", "database.url", url);
    let layers = layers.flag("bench", "lanes.count", 1).flag(
        "bench",
        "lanes.pool_size",
        i64::from(POOL_SIZE),
    );
    let config = Config::from_layers(layers)?;
    let lane = config.roles.lane(LaneId::new(0).expect("there is a lane 0"));
    let server = config.database.pooled(&lane, &config.lanes.secret()?.password(&lane))?;
    let tier = config.tiers["free"];
    let installation = Installation::new(config)?;
    let mut ways = [Vec::new(), Vec::new(), Vec::new()];
    for id in tenants {
        let schema = id.schema();
        let sql = LOOKUP
            .replace("FROM users", &format!("FROM {schema}.users"))
            .replace("this_tenant()", &format!("{schema}.this_tenant()"));
        ways[0].push(Way::Floor { client: connect(&server).await?, sql });
        let entry = installation.directory().find(*id).await?.expect("the tenant was created");
        ways[1].push(Way::Ours(Box::new(installation.tenant_db(entry)?)));
        ways[2].push(Way::FourTrips {
            client: connect(&server).await?,
            bind: statement(schema, &tier),
        });
    }
    Ok(ways)
}

async fn connect(server: &tokio_postgres::Config) -> anyhow::Result<Client> {
    let (client, connection) = server.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
