//! `tenantry tenant exec`: one statement in tenants, shown as each is done, in their order.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tenantry_db::models::tenants::{Tenant, get_tenant};
use tenantry_db::operate::{Exec, ExecOptions, ExecResult, OperatorStatement, active_tenants};
use tenantry_db::{AdminDb, Config, Error, ReaderDb, is_invisible};

use super::actor;
use crate::args::{Common, Format, OnError, TenantExec};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::steps::Progress;

pub(super) async fn run(
    common: &Common,
    config: &Config,
    args: &TenantExec,
) -> anyhow::Result<Exit> {
    let statement = OperatorStatement::new(&args.sql)?;
    let reader = ReaderDb::new(config)?;
    let tenants = match args.all {
        true => active_tenants(&reader).await?,
        false => named(&reader, args).await?,
    };
    let options =
        ExecOptions { timeout: args.timeout, read_only: args.read_only, max_rows: args.max_rows };
    let (admin, actor) = (AdminDb::new(config)?, actor());
    let exec =
        &Exec { admin: &admin, config, statement: &statement, options: &options, actor: &actor };
    let runs = tenants.iter().map(|tenant| async move { (tenant, exec.in_tenant(tenant).await) });
    // In order, so that what is shown does not depend on who was faster.
    let mut runs = futures_util::stream::iter(runs).buffered(args.parallel.into());
    let progress = (tenants.len() > 1).then(|| Progress::begin("tenants"));
    let mut shown = Shown { format: common.output, any: false };
    let (mut done, mut failed) = (0_usize, 0_usize);
    let mut last = None;
    while let Some((tenant, result)) = runs.next().await {
        match result {
            Ok(result) => {
                done += 1;
                shown.result(tenant, &result)?;
            }
            Err(error) => {
                failed += 1;
                // Of one alone, it is the command's own error.
                if tenants.len() > 1 || common.output == Format::Json {
                    shown.failure(tenant, &error)?;
                }
                last = Some(error);
            }
        }
        if let Some(progress) = &progress {
            progress.at(done + failed, tenants.len());
        }
        if failed > 0 && args.on_error == OnError::Stop {
            break;
        }
    }
    drop(progress);
    shown.end()?;
    match last {
        None => Ok(Exit::Done),
        Some(error) if tenants.len() == 1 => Err(error.into()),
        Some(_) => Err(partly(args, done, failed, tenants.len()).into()),
    }
}

fn partly(args: &TenantExec, done: usize, failed: usize, all: usize) -> Failure {
    let exit = if done > 0 { Exit::Partly } else { Exit::Failed };
    let left = all - done - failed;
    let message =
        format!("done in {done} of {all} tenants, failed in {failed}, {left} not finished");
    let hint = match args.on_error {
        OnError::Stop => "`--on-error continue` goes on after a failure",
        OnError::Continue => "each failure stands above, with its tenant",
    };
    Failure::new(exit, message, hint)
}

/// Each once, in the order given.
async fn named(reader: &ReaderDb, args: &TenantExec) -> anyhow::Result<Vec<Tenant>> {
    let mut tenants: Vec<Tenant> = Vec::new();
    for tenant in &args.tenants {
        let tenant = get_tenant(reader, tenant).await?;
        if !tenants.iter().any(|known| known.id == tenant.id) {
            tenants.push(tenant);
        }
    }
    Ok(tenants)
}

/// What was shown so far. A JSON document is written piece by piece: all of it may be large.
struct Shown {
    format: Format,
    any: bool,
}

impl Shown {
    fn result(&mut self, tenant: &Tenant, result: &ExecResult) -> anyhow::Result<()> {
        match self.format {
            Format::Text => output::print(&text(tenant, result)),
            Format::Json => self.piece(&json!({
                "tenant_id": tenant.id,
                "subdomain": tenant.subdomain,
                "columns": result.columns,
                "rows": result.rows,
                "rows_affected": result.rows_affected,
                "truncated": result.truncated,
            })),
        }
    }

    fn failure(&mut self, tenant: &Tenant, error: &Error) -> anyhow::Result<()> {
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            // The driver's own «db error» says nothing.
            if source.to_string() != "db error" {
                said = format!("{said}: {source}");
            }
            cause = source.source();
        }
        match self.format {
            Format::Text => {
                output::say(&format!("failed in {}: {}", name(tenant), readable(&said)));
            }
            Format::Json => self.piece(&json!({
                "tenant_id": tenant.id,
                "subdomain": tenant.subdomain,
                "error": said,
            }))?,
        }
        Ok(())
    }

    fn piece(&mut self, value: &Value) -> anyhow::Result<()> {
        let before = if self.any { ",\n" } else { "{\"data\": [\n" };
        self.any = true;
        output::print(&format!("{before}{value}"))
    }

    fn end(&self) -> anyhow::Result<()> {
        match (self.format, self.any) {
            (Format::Text, _) => Ok(()),
            (Format::Json, true) => output::print("\n]}\n"),
            (Format::Json, false) => output::print("{\"data\": []}\n"),
        }
    }
}

fn name(tenant: &Tenant) -> String {
    match &tenant.subdomain {
        Some(subdomain) => format!("{subdomain} ({})", tenant.id),
        None => tenant.id.to_string(),
    }
}

fn text(tenant: &Tenant, result: &ExecResult) -> String {
    let heading = format!("== {}\n", name(tenant));
    let rows = result.rows_affected;
    let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
    if result.columns.is_empty() {
        return format!("{heading}{rows}\n\n");
    }
    let columns: Vec<String> = result.columns.iter().map(|column| readable(column)).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let value = |value: &Option<String>| value.as_deref().map_or("NULL".to_owned(), readable);
    let cells: Vec<Vec<String>> =
        result.rows.iter().map(|row| row.iter().map(value).collect()).collect();
    let count = match result.truncated {
        true => format!("{rows}, the first {} of them shown (`--max-rows`)", cells.len()),
        false => rows,
    };
    format!("{heading}{}{count}\n\n", output::table(&columns, &cells))
}

/// A tenant's value could move the cursor or hide itself.
fn readable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_invisible(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}
