//! `restore`: what bringing one tenant back costs, beside the same by hand on the same data.
//!
//! By hand: the whole server restored by pgBackRest to the same moment, started, the schema renamed there, and
//! `pg_dump | psql` into the server under that name. That is the floor: no migration, no rights, no statistics, no swap,
//! nothing counted, nothing proved, and nothing that is undone after a kill.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use tenantry_backup::{
    BackupKind, Engine, Settings, TenantAim, TenantRestore, TenantStep, When, restore_tenant,
};
use tenantry_db::config::Layers;
use tenantry_db::models::audit::Actor;
use tenantry_db::{Config, SchemaName, TenantRef};
use tenantry_stack::{ServerUser, Stack, files, find_client_program};
use tenantry_testing::{Servers, TestDatabase, free_port, temp_dir};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tenants beside the one that is brought back
    #[arg(long, default_value_t = 100)]
    tenants: usize,
    /// Rows of the one that is brought back
    #[arg(long, default_value_t = 300_000)]
    rows: u32,
    /// Rounds; in each, both ways have their turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// A server that archives, with a backup and a moment.
struct Rig {
    stack: Stack,
    db: TestDatabase,
    config: Config,
    engine: Engine,
    client: Client,
    schema: SchemaName,
    owner: ServerUser,
    // Dropped last.
    dir: tempfile::TempDir,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut rig = Rig::new(options).await?;
    let moment: jiff::Timestamp =
        rig.client.query_typed_one("SELECT clock_timestamp()", &[]).await?.get(0);
    rig.client.batch_execute("SELECT pg_sleep(1.1), txid_current()").await?;
    let size = "SELECT (sum(pg_total_relation_size(c.oid)) / 1048576)::bigint, (pg_database_size(current_database()) >> 20)
                FROM pg_class c WHERE relnamespace = $1::text::regnamespace AND relkind = 'r'";
    let row = rig.client.query_typed_one(size, &[(&rig.schema.to_string(), Type::TEXT)]).await?;
    println!(
        "One tenant of {} rows ({} MiB) out of {} tenants (the database has {} MiB); seconds.\n",
        options.rows,
        row.get::<_, i64>(0),
        options.tenants + 1,
        row.get::<_, i64>(1)
    );
    println!("{:<16}{:>10}{:>12}{:>12}", "", "all", "recovered", "the rest");
    for _ in 0..options.rounds {
        let (recovered, all) = rig.by_hand(moment).await?;
        print("by hand", recovered, all);
        let (recovered, all, swap) = rig.by_us(moment).await?;
        print("restore-tenant", recovered, all);
        println!("{:<16}{:>34.2} of it the swap, and wiping the copy", "", swap.as_secs_f64());
    }
    Ok(rig.stack.stop().await?)
}

fn print(name: &str, recovered: Duration, all: Duration) {
    let rest = all.saturating_sub(recovered);
    println!(
        "{name:<16}{:>10.2}{:>12.2}{:>12.2}",
        all.as_secs_f64(),
        recovered.as_secs_f64(),
        rest.as_secs_f64()
    );
}

impl Rig {
    async fn new(options: &Options) -> anyhow::Result<Self> {
        let dir = temp_dir()?;
        let root = dir.path();
        let own = |name: &str| root.join(name).display().to_string();
        let settings = [
            ("backup.dir", own("backup")),
            ("backup.repository", own("repository")),
            ("backup.pg_data_dir", own("data/primary")),
            ("backup.pg_password_file", own("pgpass")),
        ];
        let read = |layers: Layers| {
            let layers = settings
                .iter()
                .fold(layers, |layers, (key, value)| layers.flag("bench", key, value.clone()));
            Config::from_layers(layers.flag("bench", "backup.enabled", true))
        };
        let archiving = Engine::server_settings(&Settings::of_host(&read(Layers::defaults())?)?)?;
        let (stack, servers) = Servers::start_with(&root.join("data"), 2, |options| {
            options.settings.extend(archiving.map(|(name, value)| (name.to_owned(), value)));
        })
        .await?;
        let owner = ServerUser::owner_of(&root.join("data/primary"))?;
        let password = format!("*:*:*:postgres:{}\n", stack.superuser_password());
        files::write_private(&root.join("pgpass"), &password, Some(&owner))?;
        let db = TestDatabase::on(servers).await;
        let socket_dir = stack.socket_dir().display().to_string();
        let layers = db.servers().layers(db.name(), "shared");
        let config = read(layers.flag("bench", "backup.pg_socket_dir", socket_dir))?;
        let engine = Engine::open(Settings::of_host(&config)?).await?;
        let tenant = db.tenant("acme").await;
        for n in 0..options.tenants {
            db.tenant(&format!("other{n}")).await;
        }
        let client = db.superuser().await;
        let schema = tenant.schema();
        let fill = format!(
            "INSERT INTO {schema}.content (title, body)
             SELECT 'title ' || n, repeat(md5(n::text), 8) FROM generate_series(1, {}) n",
            options.rows
        );
        client.batch_execute(&fill).await?;
        engine.back_up_now(&db.admin, BackupKind::Full, |_| {}).await?;
        client.batch_execute("SELECT pg_sleep(1.1), txid_current()").await?;
        Ok(Self { stack, db, config, engine, client, schema, owner, dir })
    }

    async fn by_us(
        &self,
        moment: jiff::Timestamp,
    ) -> anyhow::Result<(Duration, Duration, Duration)> {
        let (tenant, actor) = (TenantRef::Id(self.schema.tenant()), Actor::new("bench"));
        let wish = TenantRestore {
            engine: &self.engine,
            config: &self.config,
            actor: &actor,
            tenant: &tenant,
            when: When::At(moment),
            aim: TenantAim::Replace,
        };
        let (begun, mut swapping) = (Instant::now(), None);
        let restored = restore_tenant(&wish, |step| {
            if step == TenantStep::Swapping {
                swapping = Some(Instant::now());
            }
        });
        let restored = restored.await?;
        // With wiping the copy, which is of no use to anybody who waits.
        let all = begun.elapsed();
        let swap = swapping.map(|at| at.elapsed()).unwrap_or_default();
        Ok((Duration::from_secs_f64(restored.recovered_s), all, swap))
    }

    async fn by_hand(&self, moment: jiff::Timestamp) -> anyhow::Result<(Duration, Duration)> {
        let place = self.dir.path().join("by-hand");
        files::ensure_directory(&place, 0o700, Some(&self.owner))?;
        let data = place.join("data");
        let begun = Instant::now();
        // So that the moment is in the repository.
        self.engine.check().await?;
        let target = moment.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string();
        self.run(
            Path::new("pgbackrest"),
            &[
                &format!("--config={}", self.dir.path().join("backup/pgbackrest.conf").display()),
                "--stanza=tenantry",
                &format!("--pg1-path={}", data.display()),
                "--type=time",
                &format!("--target={target}"),
                "--target-action=promote",
                "--archive-mode=off",
                "--log-level-console=off",
                "restore",
            ],
        )?;
        let (bin, port) = (bin().await?, free_port()?);
        let log = place.join("log").display().to_string();
        let given = format!(
            "-c listen_addresses='' -c unix_socket_directories={} -c port={port} -c fsync=off -c hba_file={}",
            place.display(),
            self.hba(&place)?.display()
        );
        let at = data.display().to_string();
        self.run(
            &bin.join("pg_ctl"),
            &["-D", &at, "-l", &log, "-w", "-t", "300", "-o", &given, "start"],
        )?;
        let there =
            format!("host={} port={port} user=postgres dbname={}", place.display(), self.db.name());
        let name = format!("by_hand_{}", self.schema.tenant().as_uuid().simple());
        let writes =
            "DO $$ BEGIN WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.02); END LOOP; END $$";
        self.run(&bin.join("psql"), &["-qX", "-d", &there, "-c", writes])?;
        let recovered = begun.elapsed();
        let rename = format!("ALTER SCHEMA {} RENAME TO {name}", self.schema);
        self.run(&bin.join("psql"), &["-qX", "-d", &there, "-c", &rename])?;
        let port = self.db.servers().postgres_port;
        let here = format!(
            "host={} port={port} user=postgres dbname={}",
            self.stack.socket_dir().display(),
            self.db.name()
        );
        let dump = format!(
            "{0}/pg_dump --no-owner --no-privileges --schema={name} -d '{there}' | {0}/psql -qX1 -v ON_ERROR_STOP=1 -o /dev/null -d '{here}'",
            bin.display()
        );
        self.run(Path::new("bash"), &["-o", "pipefail", "-c", &dump])?;
        let all = begun.elapsed();
        self.run(&bin.join("pg_ctl"), &["-D", &at, "-m", "immediate", "stop"])?;
        std::fs::remove_dir_all(&place)?;
        self.client.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await?;
        Ok((recovered, all))
    }

    fn hba(&self, place: &Path) -> anyhow::Result<PathBuf> {
        let path = place.join("hba.conf");
        files::write_private(&path, "local all all trust\n", Some(&self.owner))?;
        Ok(path)
    }

    /// As the server's user, which nobody but root has to become.
    fn run(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("PGPASSFILE", self.dir.path().join("pgpass"))
            .current_dir(self.dir.path().join("backup"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if self.owner.is_other {
            command.uid(self.owner.uid).gid(self.owner.gid);
        }
        let ended = command.status().with_context(|| format!("run `{}`", program.display()))?;
        ensure!(ended.success(), "`{}` failed: {ended}", program.display());
        Ok(())
    }
}

/// Where PostgreSQL's programs are, the server's too.
async fn bin() -> anyhow::Result<PathBuf> {
    // In `PATH` there may be a link to it, and not to the others.
    let found = std::fs::canonicalize(find_client_program("pg_ctl").await?)?;
    Ok(found.parent().map(Path::to_owned).unwrap_or_default())
}
