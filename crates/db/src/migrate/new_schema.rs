//! All migrations of the tenant set at once, for a schema that was made a moment ago.

use tokio_postgres::Client;

use super::batch::{BatchError, tenant_path};
use super::claim::{bytea, ledger_entry};
use super::{Batch, MigrationSet, outside};
use crate::direct::AdminDb;
use crate::error::Error;
use crate::ids::TenantId;

/// Sends what makes the schema and everything that belongs into it, in one round trip of the caller's
/// transaction, which acts as the owner from then on.
///
/// Index builds are plain here: the tables are empty, and nobody else sees them.
pub(crate) async fn fill_new_schema(
    client: &Client,
    admin: &AdminDb,
    set: &MigrationSet,
    tenant: TenantId,
    making: &str,
) -> Result<(), Error> {
    let schema = tenant.schema();
    let texts: Vec<String> = set
        .migrations()
        .iter()
        .map(|m| match m.up.transactional {
            true => m.up.text.clone(),
            false => outside::in_a_transaction(&m.up, true).unwrap_or_else(|| m.up.text.clone()),
        })
        .collect();
    let mut batch = Batch::new(schema.to_string());
    batch.ours(making).settings(&admin.roles, &tenant_path(schema), &admin.limits);
    for (migration, text) in set.migrations().iter().zip(&texts) {
        batch.script_as(&migration.up, text, &admin.limits);
    }
    for file in set.repeatables() {
        batch.script(&file.script, &admin.limits);
    }
    let mut record = String::new();
    for migration in set.migrations() {
        record += &ledger_entry(&schema.to_string(), migration, None);
        record += ";\n";
    }
    let digest = set.repeatable_digest();
    if !digest.is_empty() {
        record += &format!(
            "UPDATE public.tenants SET repeatable_digest = {} WHERE id = '{tenant}';",
            bytea(&digest)
        );
    }
    batch.record(&record);
    batch.send(client).await.map_err(|error| match error {
        BatchError::Statement(error) => error.into(),
        BatchError::Guard | BatchError::Locked | BatchError::Loss => {
            Error::Busy(format!("tenant `{tenant}`"))
        }
    })
}
