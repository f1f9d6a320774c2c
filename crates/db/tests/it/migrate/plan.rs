//! Looking: what a run would do, and who stands where, without a right to change anything.

use tenantry_db::migrate::{Direction, RolloutOptions, fleet_status, plan};
use tenantry_db::{Config, ReaderDb};
use tenantry_testing::{Servers, TestDatabase, temp_dir};

use super::fleet::{Fleet, LABEL};
use crate::texts;

#[tokio::test]
async fn the_reader_plans_on_a_replica() {
    let dir = temp_dir().unwrap();
    let replica = |options: &mut tenantry_stack::StackOptions| options.replicas = 1;
    let (mut stack, servers) = Servers::start_with(dir.path(), 2, replica).await.unwrap();
    let fleet = Fleet::on(TestDatabase::on(servers).await, 20).await;
    fleet.write(&[LABEL, ("tenant/0102_more.up.sql", "-- no-transaction\nVACUUM item;")]);
    let some = RolloutOptions { tenants: fleet.only(&[1, 2]), public: false, ..fleet.options() };
    fleet.run(RolloutOptions { direction: Direction::Up { to: Some(101) }, ..some }).await.unwrap();
    fleet.write(&[
        ("public/0100_x.up.sql", "CREATE TABLE x ();"),
        ("public/0100_x.down.sql", "DROP TABLE x;"),
    ]);
    stack.start_replica(1).await.unwrap();
    let url = format!(
        "postgresql://{}@127.0.0.1:{}/{}",
        fleet.db.config.roles.admin(),
        stack.ports().replica,
        fleet.db.name()
    );
    let layers = fleet.db.servers().layers(fleet.db.name(), "shared");
    let config = Config::from_layers(layers.flag("test", "database.direct_url", url)).unwrap();
    let reader = ReaderDb::new(&config).unwrap();
    let waves = "1 10% 100%".split(' ').map(|wave| wave.parse().unwrap()).collect();
    let options = RolloutOptions { waves, ..fleet.options() };

    let plan = plan(&reader, &fleet.migrations(), &options).await.unwrap();
    let public: Vec<_> = plan.public.iter().map(|file| (file.version, file.reversible)).collect();
    assert_eq!(public, [(100, true)]);
    let files: Vec<_> = plan
        .tenant_files
        .iter()
        .map(|file| (file.file.version, file.file.transactional, file.tenants))
        .collect();
    assert_eq!(files, [(101, true, 18), (102, false, 20)]);
    assert_eq!((plan.tenants, plan.waves), (20, vec![1, 1, 18]));
    let status = fleet_status(&reader, &fleet.migrations()).await.unwrap();
    assert_eq!((status.behind_count, status.tenants_by_version.len()), (20, 2));
    assert_eq!(fleet.runs().await, ["up complete 2 2 0 0 true"], "a plan is no run");
    let exists = "SELECT relname::text FROM pg_class WHERE relname = 'x'";
    assert!(texts(&fleet.superuser, exists).await.is_empty());
    stack.stop().await.unwrap();
}
