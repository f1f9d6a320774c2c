//! `tenantry tenant delete`, `restore`, `purge`, `hold` and `unhold`.

use jiff::Timestamp;
use tenantry_db::lifecycle::{self, Authority, Deletion, ErasureLedger, PurgeReport};
use tenantry_db::models::audit::list_made_from;
use tenantry_db::models::tenants::get_tenant;
use tenantry_db::{AdminDb, Config, ErrorKind, ReaderDb, TenantId, TenantRef};

use super::actor;
use super::tenant::print;
use crate::args::{Common, TenantDelete, TenantPurge};
use crate::exit::Exit;
use crate::output::{self, say};
use crate::steps::Step;

pub(super) async fn delete(
    common: &Common,
    config: &Config,
    args: &TenantDelete,
) -> anyhow::Result<()> {
    let id = id(config, &args.tenant).await?;
    let how = Deletion { confirm: args.confirm.as_deref(), retention: args.retention };
    let admin = AdminDb::new(config)?;
    let step = Step::begin("shutting it out, and waiting for the transactions of its lane");
    let row = lifecycle::delete_tenant(&admin, config, id, how, &actor()).await?;
    step.end("nobody reaches it, and nothing of its lane is under way that began before");
    if let Some(purge_after) = row.purge_after {
        say(&match (row.legal_hold, purge_after > Timestamp::now()) {
            (true, _) => "a legal hold stands: nobody purges it until that is lifted".to_owned(),
            (false, true) => format!("it can be restored until {purge_after}"),
            (false, false) => {
                "its retention is over: the next look for what is due purges it".to_owned()
            }
        });
    }
    print(common, &row)
}

pub(super) async fn restore(
    common: &Common,
    config: &Config,
    tenant: &TenantRef,
) -> anyhow::Result<()> {
    let id = id(config, tenant).await?;
    print(common, &lifecycle::restore_tenant(&AdminDb::new(config)?, id, &actor()).await?)
}

pub(super) async fn hold(
    common: &Common,
    config: &Config,
    tenant: &TenantRef,
    held: bool,
) -> anyhow::Result<()> {
    let id = id(config, tenant).await?;
    print(common, &lifecycle::hold_tenant(&AdminDb::new(config)?, id, held, &actor()).await?)
}

pub(super) async fn purge(
    common: &Common,
    config: &Config,
    args: &TenantPurge,
) -> anyhow::Result<()> {
    let Some(tenant) = &args.tenant else { return Ok(()) };
    let id = id(config, tenant).await?;
    let (admin, ledger) = (AdminDb::new(config)?, ErasureLedger::new(config)?);
    let authority = Authority::Confirmed { confirm: args.confirm.as_deref(), now: args.now };
    let report = lifecycle::purge_tenant(&admin, &ledger, id, authority, &actor(), |progress| {
        say(&progress.to_string());
    })
    .await?;
    rewrite_statistics(&admin).await?;
    let certificate = lifecycle::refresh_certificate(&admin, id, &actor()).await?;
    let made = list_made_from(&admin, id).await?;
    if !made.is_empty() {
        say(&format!(
            "note: made of its data, and not purged with it: tenants `{}`",
            made.join("`, `")
        ));
    }
    let state = if certificate.is_complete() { "complete" } else { "incomplete" };
    say(&format!("its certificate is {state}: `tenantry tenant certificate {id}` shows it"));
    output::data(common.output, &report, text)
}

/// What a restore brought back and the erasure ledger names.
pub(super) async fn purge_from_ledger(common: &Common, config: &Config) -> anyhow::Result<Exit> {
    let (admin, ledger) = (AdminDb::new(config)?, ErasureLedger::new(config)?);
    let report = lifecycle::reapply_ledger(&admin, &ledger, &actor(), |tenant, progress| {
        say(&format!("{tenant}: {progress}"));
    })
    .await?;
    if !report.purged.is_empty() {
        rewrite_statistics(&admin).await?;
        lifecycle::look_at_certificates(&admin, &actor()).await?;
    }
    output::data(common.output, &report, |report| {
        let failed =
            report.failed.iter().map(|(tenant, why)| format!("failed   {tenant}: {why}\n"));
        let purged = report.purged.iter().map(|tenant| format!("purged   {tenant}\n"));
        let counts =
            format!("entries  {}\nnothing to do for {}\n", report.entries, report.nothing_to_do);
        std::iter::once(counts).chain(purged).chain(failed).collect()
    })?;
    Ok(if report.failed.is_empty() { Exit::Done } else { Exit::Partly })
}

/// The tenant is gone already: what keeps its last traces in place is no failure of the purge.
async fn rewrite_statistics(admin: &AdminDb) -> anyhow::Result<()> {
    match lifecycle::rewrite_statistics(admin).await {
        Ok(_) => say("statistics written anew"),
        Err(error) if error.kind() == ErrorKind::Busy => {
            say(&format!("note: {error}: a running service writes the statistics anew later"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

async fn id(config: &Config, tenant: &TenantRef) -> anyhow::Result<TenantId> {
    Ok(get_tenant(&ReaderDb::new(config)?, tenant).await?.id)
}

fn text(report: &PurgeReport) -> String {
    let existed = |key: &str| report.existed.get(key).map_or_else(String::new, ToString::to_string);
    let line = |label: &str, value: &str| format!("{label:<15} {value}\n");
    let mut text = line("purged", &report.tenant_id.to_string());
    text += &line("begun", &report.begun_at.to_string());
    if let Some(finished_at) = report.finished_at {
        text += &line("finished", &finished_at.to_string());
    }
    if let (Some(sequence), Some(hash)) = (report.ledger_sequence, &report.ledger_hash) {
        text += &line("ledger entry", &format!("{sequence}, SHA-256 {hash}"));
    }
    text += &line("tables", &existed("tables"));
    text += &line("rows, about", &existed("rows_estimate"));
    text + &line("bytes, about", &existed("bytes_estimate"))
}
