//! `provision`: what a sign-up costs, with the ready pool and without, in the library and over HTTP.
//!
//! The floor is the same DDL without anything around it: role, schema, rights and the set's own files
//! as one message in one transaction, by a superuser, over a connection that is open already. The rest
//! is what a refill costs those who are served meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use tenantry_api::auth::{Claims, Scope, issue};
use tenantry_api::{AuthSettings, Settings};
use tenantry_db::lifecycle::{NewTenant, create_tenant, fill_ready_pool, keep_ready_pool};
use tenantry_db::models::audit::Actor;
use tenantry_db::{Config, Installation, TenantDb, TenantId};
use tenantry_testing::{Servers, TestDatabase, temp_dir};
use tokio::net::TcpListener;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::measure::Sample;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sign-ups of each sort in one round
    #[arg(long, default_value_t = 32)]
    sign_ups: usize,
    /// Rounds; in each, every way has its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of queries, without a refill and beside one
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// Write as safely as a real server does: slower, and depends on the disk
    #[arg(long)]
    durable: bool,
}

const CLIENTS: [usize; 2] = [1, 8];
const SERVER_CONNECTIONS: u16 = 20;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const WAYS: [&str; 5] = [
    "bare DDL, one message (floor)",
    "library, pool empty",
    "HTTP, pool empty",
    "library, from the pool",
    "HTTP, from the pool",
];

/// Everything that the ways need.
struct Rig {
    db: TestDatabase,
    /// Without a pool: what it provisions is provisioned at once.
    plain: Installation,
    stocked: Installation,
    /// One connection for each client of the floor.
    superusers: Vec<Client>,
    http: reqwest::Client,
    url: String,
    token: String,
    names: AtomicUsize,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = temp_dir()?;
    let (mut stack, servers) = Servers::start(dir.path(), SERVER_CONNECTIONS).await?;
    let rig = Rig::new(TestDatabase::on(servers).await, options).await?;
    let most = CLIENTS.iter().max().copied().unwrap_or(1);
    let mut samples: [[Sample; WAYS.len()]; CLIENTS.len()] = Default::default();
    // The first round warms, and is thrown away.
    for round in 0..=options.rounds {
        for (at, clients) in CLIENTS.into_iter().enumerate() {
            for (way, sample) in samples[at].iter_mut().enumerate() {
                let (mut warm, clients) = (Sample::default(), (0..clients).collect::<Vec<_>>());
                let sample = if round == 0 { &mut warm } else { sample };
                if way >= 3 {
                    rig.stock(options.sign_ups + most).await?;
                } else {
                    rig.empty_pool().await?;
                }
                sample
                    .add_calls(&clients, options.sign_ups, async |at| rig.sign_up(way, *at).await)
                    .await?;
            }
        }
    }
    println!(
        "Sign-ups, {} rounds of {} for each line; fsync {}, synchronous_commit {}.\n",
        options.rounds,
        options.sign_ups,
        rig.setting("fsync").await?,
        rig.setting("synchronous_commit").await?,
    );
    for (clients, samples) in CLIENTS.into_iter().zip(samples) {
        report(clients, samples);
    }
    queries(&rig, options).await?;
    stack.stop().await?;
    Ok(())
}

impl Rig {
    async fn new(db: TestDatabase, options: &Options) -> anyhow::Result<Self> {
        let superuser = db.superuser().await;
        if options.durable {
            for setting in ["fsync = on", "synchronous_commit = on", "full_page_writes = on"] {
                superuser.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await?;
            }
            superuser.batch_execute("SELECT pg_reload_conf()").await?;
        }
        let config = |ready_pool: i64| {
            let layers = db.servers().layers(db.name(), "shared");
            let layers = layers.flag("bench", "auth.secret", SECRET);
            Config::from_layers(layers.flag("bench", "tenants.ready_pool", ready_pool))
        };
        let plain = Installation::new(config(0)?)?;
        let stocked = Installation::new(config(1000)?)?;
        let settings = Settings::from_config(plain.config())?;
        let token = platform_token(&settings.auth)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/api/tenants", listener.local_addr()?);
        let service = Installation::new(config(0)?)?;
        tokio::spawn(tenantry_api::serve(listener, service, settings, std::future::pending()));
        let mut superusers = Vec::new();
        for _ in 0..CLIENTS.iter().max().copied().unwrap_or(1) {
            superusers.push(db.superuser().await);
        }
        let (http, names) = (reqwest::Client::new(), AtomicUsize::new(0));
        Ok(Self { db, plain, stocked, superusers, http, url, token, names })
    }

    async fn sign_up(&self, way: usize, client: usize) -> anyhow::Result<()> {
        let name = format!("t{}", self.names.fetch_add(1, Ordering::Relaxed));
        match way {
            0 => Ok(self.superusers[client].batch_execute(&self.floor()).await?),
            1 | 3 => {
                let new =
                    NewTenant::new(self.plain.config(), &name, &name, None, Default::default())?;
                let (admin, migrations) = (self.plain.admin(), self.plain.migrations());
                create_tenant(admin, migrations, &new, &Actor::new("bench")).await?;
                Ok(())
            }
            _ => {
                let body = serde_json::json!({ "name": name, "subdomain": name });
                let request = self.http.post(&self.url).bearer_auth(&self.token).json(&body);
                let answer = request.send().await?;
                anyhow::ensure!(answer.status() == 201, "{}", answer.text().await?);
                answer.bytes().await?;
                Ok(())
            }
        }
    }

    /// What our files and rights come to, with nothing around them.
    fn floor(&self) -> String {
        let schema = TenantId::random().schema();
        let id = schema.tenant();
        let files: String = self
            .plain
            .migrations()
            .tenant
            .migrations()
            .iter()
            .map(|m| m.up.text.as_str())
            .collect();
        format!(
            "BEGIN;
             CREATE ROLE {schema} NOLOGIN IN ROLE shared_tenant;
             GRANT {schema} TO shared_lane_00;
             SET LOCAL ROLE shared_owner;
             CREATE SCHEMA {schema};
             GRANT USAGE ON SCHEMA {schema} TO {schema};
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
                 GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {schema};
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {schema};
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {schema};
             CREATE FUNCTION {schema}.this_tenant() RETURNS uuid
                 LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN '{id}'::uuid;
             SET LOCAL search_path TO {schema}, public, pg_temp;
             {files}
             ;COMMIT"
        )
    }

    async fn setting(&self, name: &str) -> anyhow::Result<String> {
        let show = "SELECT current_setting($1)";
        let row = self.superusers[0].query_typed_one(show, &[(&name, Type::TEXT)]).await?;
        Ok(row.get(0))
    }

    /// Fills the pool with at least so many.
    async fn stock(&self, wanted: usize) -> anyhow::Result<()> {
        let count = "SELECT count(*) FROM public.tenants WHERE status = 'ready'";
        while self.superusers[0].query_typed_one(count, &[]).await?.get::<_, i64>(0) < wanted as i64
        {
            fill_ready_pool(&self.stocked).await?;
        }
        Ok(())
    }

    /// Those that are left become somebody's.
    async fn empty_pool(&self) -> anyhow::Result<()> {
        let take = "UPDATE public.tenants SET status = 'active', name = 'left', tier = 'free',
                    subdomain = 'left-' || id WHERE status = 'ready'";
        Ok(self.superusers[0].batch_execute(take).await?)
    }
}

fn platform_token(auth: &AuthSettings) -> anyhow::Result<String> {
    let claims = Claims {
        sub: "bench".to_owned(),
        tenant_id: None,
        role: None,
        scope: [Scope::TenantsWrite].into_iter().collect(),
    };
    Ok(issue(auth, &claims, Duration::from_secs(7200))?)
}

fn report(clients: usize, mut samples: [Sample; WAYS.len()]) {
    let floor = samples[0].percentile_us(0.5);
    let s = if clients == 1 { "" } else { "s" };
    println!(
        "{:32} {:>9} {:>7} {:>9} {:>9}",
        format!("{clients} client{s}"),
        "p50 ms",
        "ratio",
        "p99 ms",
        "each s"
    );
    for (way, sample) in WAYS.iter().zip(&mut samples) {
        let p50 = sample.percentile_us(0.5);
        println!(
            "{way:32} {:>9.2} {:>7.2} {:>9.2} {:>9.0}",
            p50 / 1e3,
            p50 / floor,
            sample.percentile_us(0.99) / 1e3,
            sample.per_second(),
        );
    }
    println!();
}

/// Bound queries of four tenants, without a refill and beside one that never ends.
async fn queries(rig: &Rig, options: &Options) -> anyhow::Result<()> {
    let mut tenants: Vec<TenantDb> = Vec::new();
    for n in 0..4 {
        let tenant = rig.db.tenant(&format!("asker-{n}")).await;
        let entry = rig.plain.directory().find(tenant.id).await?.expect("it was created");
        tenants.push(rig.plain.tenant_db(entry)?);
    }
    let ask = async |tenant: &TenantDb| {
        tenant.query("SELECT id, name FROM users WHERE email = 'a@b.co'", &[]).await.map(drop)
    };
    let turn = Duration::from_secs_f64(options.seconds / 5.0);
    let mut samples: [Sample; 2] = Default::default();
    let mut made = 0;
    samples[0].add(&tenants, turn, ask).await?;
    samples = Default::default();
    for _ in 0..5 {
        rig.empty_pool().await?;
        samples[0].add(&tenants, turn, ask).await?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let refill = tokio::spawn(keep_ready_pool(rig.stocked.clone(), async {
            let _ = stopped.await;
        }));
        samples[1].add(&tenants, turn, ask).await?;
        drop(stop);
        refill.await?;
        let count = "SELECT count(*) FROM public.tenants WHERE status = 'ready'";
        made += rig.superusers[0].query_typed_one(count, &[]).await?.get::<_, i64>(0);
    }
    println!(
        "{:32} {:>9} {:>9} {:>9} {:>9}",
        "bound queries, 4 clients", "p50 µs", "p99 µs", "p99.9 µs", "each s"
    );
    for (what, sample) in ["without a refill", "beside a refill"].into_iter().zip(&mut samples) {
        println!(
            "{what:32} {:>9.0} {:>9.0} {:>9.0} {:>9.0}",
            sample.percentile_us(0.5),
            sample.percentile_us(0.99),
            sample.percentile_us(0.999),
            sample.per_second(),
        );
    }
    println!("(tenants made ready meanwhile: {made}, in {} s)", options.seconds);
    Ok(())
}
