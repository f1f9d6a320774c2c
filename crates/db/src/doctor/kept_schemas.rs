//! Schemas beside the tenants' own: former states that are kept, and what somebody left who was killed.

use deadpool_postgres::Object;

use super::Check;
use crate::error::{Doing, Error};
use crate::models::kept_schemas::list_nobodys;

pub(super) async fn check(db: &Object) -> Result<Check, Error> {
    const NAME: &str = "kept schemas";
    let row = db
        .query_typed_one(
            "SELECT count(*), count(*) FILTER (WHERE k.keep_until < now() - interval '1 day' AND NOT t.legal_hold)
             FROM public.kept_schemas k JOIN public.tenants t ON t.id = k.tenant_id",
            &[],
        )
        .await
        .doing("count the schemas that are kept")?;
    let (kept, overdue): (i64, i64) = (row.get(0), row.get(1));
    let nobodys = list_nobodys(&***db).await?;
    let names: Vec<String> = nobodys.iter().take(5).map(|name| format!("`{name}`")).collect();
    if let Some(first) = names.first() {
        let more = if names.len() > 1 { " and others" } else { "" };
        return Ok(Check::warning(
            NAME,
            format!("{first}{more} is nobody's"),
            "a tenant is being taken back right now, or somebody was killed at it; a running service drops it \
             within minutes, and its log says what stands against that",
        ));
    }
    Ok(match overdue {
        0 => Check::ok(NAME, format!("{kept} kept, none longer than it should be")),
        _ => Check::warning(
            NAME,
            format!("{overdue} of {kept} should have been dropped a day ago"),
            "does a service run? its log says why it does not drop them",
        ),
    })
}
