//! Programs of two ages on one database: the older one serves on, and leaves migrating to the newer.

use tenantry_db::migrate::MigrationError;
use tenantry_db::{Error, ErrorKind};

use super::fleet::Fleet;
use super::roll;

#[tokio::test]
async fn an_older_program_serves_and_creates_beside_a_newer_public_schema() {
    let fleet = Fleet::new(2).await;
    let old = fleet.migrations();
    let service = fleet.db.installation();
    let before = fleet.create(&old, "before").await;
    let entry = service.directory().find(before.id).await.unwrap().unwrap();
    let tenant = service.tenant_db(entry).unwrap();
    tenant.execute("INSERT INTO item (id) VALUES (1)", &[]).await.unwrap();
    // Expand: what the older one does not know does it no harm.
    fleet.write(&[
        ("public/0100_x.up.sql", "CREATE TABLE x (); ALTER TABLE tenants ADD COLUMN region text;"),
        ("tenant/0101_colour.up.sql", "ALTER TABLE item ADD COLUMN colour text;"),
    ]);
    fleet.to_head().await;

    tenant.execute("INSERT INTO item (id) VALUES (2)", &[]).await.unwrap();
    let rows = tenant.query("SELECT id, note FROM item ORDER BY id", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>(), [1, 2]);
    let after = fleet.create(&old, "after").await;
    assert_eq!(after.schema_version, 2);
    let entry = service.directory().find(after.id).await.unwrap().unwrap();
    let tenant = service.tenant_db(entry).unwrap();
    tenant.execute("INSERT INTO item (id) VALUES (1)", &[]).await.unwrap();

    let error = roll(&fleet.db, &old, &fleet.options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        matches!(error, Error::Migration(MigrationError::FileMissing { version: 100, .. })),
        "{error}"
    );
    assert_eq!(fleet.to_head().await.tenants.done, 1, "the one that was created since");
    fleet.assert_whole("item", 2).await;
}
