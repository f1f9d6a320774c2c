//! The audit log: whether somebody seals it, and whether its head is anchored.

use deadpool_postgres::Object;

use super::Check;
use crate::config::Config;
use crate::error::{Doing, Error};

pub(super) async fn check(db: &Object, config: &Config) -> Result<Check, Error> {
    const NAME: &str = "audit log";
    let row = db
        .query_typed_one(
            "SELECT (SELECT count(*) FROM public.audit_unsealed u
                       LEFT JOIN public.audit_log l ON l.id = u.entry_id
                      WHERE coalesce(l.recorded_at < now() - interval '1 minute', true)),
                    (SELECT coalesce(max(position), 0) FROM public.audit_seals),
                    (SELECT coalesce(max(position), 0) FROM public.audit_anchors),
                    ARRAY(SELECT tgrelid::regclass || '.' || tgname FROM pg_trigger
                           WHERE tgname IN ('audit_log_append_only', 'audit_log_queue',
                                            'audit_seals_append_only', 'audit_anchors_append_only')
                             AND NOT tgisinternal AND tgenabled <> 'A'
                             AND tgrelid IN ('public.audit_log'::regclass, 'public.audit_seals'::regclass,
                                             'public.audit_anchors'::regclass)
                           ORDER BY 1)",
            &[],
        )
        .await
        .doing("look whether the audit log is sealed")?;
    let (late, sealed, anchored): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let off: Vec<String> = row.get(3);
    Ok(if !off.is_empty() {
        Check::failed(
            NAME,
            format!("these triggers are off: {}", off.join(", ")),
            "`ALTER TABLE … ENABLE ALWAYS TRIGGER …` as the owner; then `tenantry audit verify`",
        )
    } else if late > 0 {
        Check::warning(
            NAME,
            format!("{late} entries are not sealed after more than a minute"),
            "a running service (`tenantry serve`) seals them; `tenantry audit verify` says more",
        )
    } else if config.erasure.ledger_dir.is_none() {
        Check::ok(
            NAME,
            format!(
                "sealed up to position {sealed}; not anchored: `erasure.ledger_dir` is not set"
            ),
        )
    } else {
        Check::ok(NAME, format!("sealed up to position {sealed}, anchored up to {anchored}"))
    })
}
