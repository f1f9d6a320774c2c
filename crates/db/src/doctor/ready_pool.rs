//! The ready pool: whether a sign-up finds something in it.

use super::Check;
use crate::config::Config;
use crate::direct::ReaderDb;
use crate::error::Error;
use crate::migrate::Migrations;
use crate::models::ready::ready_stock;

pub(super) async fn check(
    reader: &ReaderDb,
    config: &Config,
    migrations: &Migrations,
) -> Result<Check, Error> {
    const NAME: &str = "ready pool";
    let (target, head) = (config.tenants.ready_pool, migrations.tenant.head());
    let stock = ready_stock(reader, &migrations.tenant).await?;
    let (claimable, all) = (stock.claimable, stock.all);
    Ok(if target == 0 {
        let left = if all > 0 { format!("; {all} are left") } else { String::new() };
        Check::ok(NAME, format!("off: each sign-up provisions its own schema{left}"))
    } else if claimable == 0 && all > 0 {
        Check::warning(
            NAME,
            format!("none of its {all} tenants is at version {head}, so sign-ups take longer"),
            "`tenantry migrate run` brings them to head",
        )
    } else if claimable == 0 {
        Check::warning(
            NAME,
            "empty, so sign-ups take longer",
            "a running service (`tenantry serve`) fills it; its log says what stands against it",
        )
    } else {
        Check::ok(NAME, format!("{claimable} of {target} tenants are ready"))
    })
}
