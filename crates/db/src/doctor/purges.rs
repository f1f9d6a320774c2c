//! Purges that do not come to their end, and what keeps them; the erasure ledger.

use deadpool_postgres::Object;

use super::Check;
use crate::config::Config;
use crate::direct::ReaderDb;
use crate::error::{Doing, Error};
use crate::lifecycle::{ErasureLedger, require_erased_stay_erased};

pub(super) async fn check(db: &Object, config: &Config) -> Result<Check, Error> {
    const SHOWN: usize = 5;
    let rows = db
        .query_typed(
            "SELECT t.id::text || ': ' || coalesce(p.last_error, 'it has not been tried since it began')
             FROM public.tenants t JOIN public.purges p ON p.tenant_id = t.id
             WHERE t.status = 'purging' AND (p.failures > 0 OR p.begun_at < now() - interval '1 hour')
             ORDER BY p.begun_at",
            &[],
        )
        .await
        .doing("look for purges that stopped")?;
    let overdue = db
        .query_typed_one(
            "SELECT count(*) FROM public.tenants
             WHERE status = 'deleted' AND NOT legal_hold AND purge_after < now() - interval '1 hour'",
            &[],
        )
        .await
        .doing("look for tenants that are due")?;
    let overdue: i64 = overdue.get(0);
    if let Ok(ledger) = ErasureLedger::new(config) {
        if let Err(error) = ledger.check(&***db).await {
            return Ok(Check::error("purges", &error));
        }
        match require_erased_stay_erased(&ReaderDb::new(config)?, &ledger).await {
            Err(error @ Error::Erasure(_)) => return Ok(Check::error("purges", &error)),
            looked => looked?,
        }
    }
    let incomplete = db
        .query_typed_one(
            "SELECT count(*) FROM public.certificates
             WHERE status = 'incomplete' AND issued_at < now() - interval '1 hour'",
            &[],
        )
        .await
        .doing("look for certificates that are incomplete")?;
    let incomplete: i64 = incomplete.get(0);
    if !rows.is_empty() {
        let stopped: Vec<String> = rows.iter().take(SHOWN).map(|row| row.get(0)).collect();
        let detail = format!("{} stopped: {}", rows.len(), stopped.join("; "));
        return Ok(Check::warning("purges", detail, "docs/runbooks/purge.md says what each means"));
    }
    if incomplete > 0 {
        return Ok(Check::warning(
            "purges",
            format!("{incomplete} certificates are incomplete for more than an hour"),
            "`tenantry tenant certificate ID` says what is open: a replica that is away, for instance",
        ));
    }
    Ok(match (overdue, &config.erasure.ledger_dir) {
        (0, _) => Check::ok("purges", "none stopped, none overdue"),
        (_, None) => Check::warning(
            "purges",
            format!("{overdue} tenants are due for more than an hour"),
            "set `erasure.ledger_dir` where a service runs: without it, none purges",
        ),
        (_, Some(_)) => Check::warning(
            "purges",
            format!("{overdue} tenants are due for more than an hour"),
            "does a service run? its log says why it does not purge them",
        ),
    })
}
