//! `tenantry tenant certificate`: the proof of a purge, and checking one that was filed.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;
use tenantry_db::lifecycle::{self, ErasureLedger, FiledCheck};
use tenantry_db::models::tenants::get_tenant;
use tenantry_db::{AdminDb, Config, ReaderDb};

use super::actor;
use crate::args::{Common, TenantCertificate};
use crate::exit::{Exit, Failure};
use crate::output::{self, say};

pub(super) async fn run(
    common: &Common,
    config: &Config,
    args: &TenantCertificate,
) -> anyhow::Result<Exit> {
    if let Some(file) = &args.check {
        return check(common, config, file).await;
    }
    let Some(tenant) = &args.tenant else { return Ok(Exit::Usage) };
    let id = get_tenant(&ReaderDb::new(config)?, tenant).await?.id;
    let admin = AdminDb::new(config)?;
    let mut certificate = lifecycle::refresh_certificate(&admin, id, &actor()).await?;
    if let Some(replica) = &args.replica_gone {
        certificate = lifecycle::declare_replica_gone(&admin, id, replica, &actor()).await?;
    }
    if !certificate.is_complete() {
        say("note: it is incomplete; it says what is still open");
    }
    output::data(common.output, &certificate, ToString::to_string)?;
    Ok(Exit::Done)
}

async fn check(common: &Common, config: &Config, file: &Path) -> anyhow::Result<Exit> {
    let filed = read(file)?;
    let (ledger, reader) = (ErasureLedger::new(config).ok(), ReaderDb::new(config).ok());
    let checks = lifecycle::check_certificate(&filed, ledger.as_ref(), reader.as_ref()).await?;
    output::data(common.output, &checks, |checks| {
        let state = |check: &FiledCheck| match check.holds {
            Some(true) => "holds",
            Some(false) => "BROKEN",
            None => "not checked",
        };
        let row = |check: &FiledCheck| {
            vec![check.name.to_owned(), state(check).to_owned(), check.detail.clone()]
        };
        output::table(&["CHECK", "STATE", "DETAIL"], &checks.iter().map(row).collect::<Vec<_>>())
    })?;
    let broken = checks.iter().any(|check| check.holds == Some(false));
    Ok(if broken { Exit::Refused } else { Exit::Done })
}

fn read(file: &Path) -> anyhow::Result<Value> {
    // Far above any certificate: a wrong file does not fill the memory.
    const MAX_BYTES: u64 = 16 << 20;
    let shown = file.display();
    let mut text = String::new();
    let done = if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    done.with_context(|| format!("can't read `{shown}`"))?;
    serde_json::from_str(&text).ok().filter(Value::is_object).ok_or_else(|| {
        let message = format!("`{shown}` is no certificate in JSON");
        let hint = "`tenantry tenant certificate T --output json` makes one";
        Failure::new(Exit::Usage, message, hint).into()
    })
}
