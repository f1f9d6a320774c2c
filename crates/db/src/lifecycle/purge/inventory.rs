//! What the tenant has, noted before anything of it goes: for the certificate, and to find what points to
//! it later.

use std::collections::BTreeMap;

use serde_json::json;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::models::purges::{self, Numbers};

pub(super) async fn note(
    tx: &impl GenericClient,
    tenant: TenantId,
    schema: &str,
    copies: &str,
) -> Result<(), Error> {
    let names: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&schema, Type::TEXT), (&copies, Type::TEXT)];
    let row = tx
        .query_typed_one(
            "WITH spaces AS (
                 SELECT oid, nspname FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $2)
             ), relations AS (
                 SELECT c.relkind, greatest(c.reltuples, 0) AS rows, c.relpages, t.relpages AS toast_pages
                 FROM spaces s
                 JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
                 JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
                 LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
             )
             SELECT (SELECT coalesce(array_agg(oid ORDER BY oid), '{}') FROM spaces),
                    (SELECT count(*) FROM spaces WHERE nspname NOT IN ($1, $2 || 'purging')),
                    count(*) FILTER (WHERE relkind IN ('r', 'p', 'f')),
                    coalesce(round(sum(rows::numeric) FILTER (WHERE relkind = 'r')), 0)::bigint,
                    coalesce(sum(relpages::bigint + coalesce(toast_pages, 0)), 0)::bigint
                        * current_setting('block_size')::bigint,
                    (SELECT count(*) FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner
                      WHERE r.rolname = $1),
                    (SELECT oid FROM pg_roles WHERE rolname = $1)
             FROM relations",
            &names,
        )
        .await
        .doing("look what the tenant has")?;
    let existed = json!({
        "copies": row.get::<_, i64>(1),
        "tables": row.get::<_, i64>(2),
        "rows_estimate": row.get::<_, i64>(3),
        "bytes_estimate": row.get::<_, i64>(4),
        "large_objects": row.get::<_, i64>(5),
    });
    let objects = tx
        .query_typed(include_str!("inventory.sql"), &names)
        .await
        .doing("look what the tenant's objects are called inside")?;
    let objects: BTreeMap<String, Vec<u32>> =
        objects.iter().map(|row| (row.get(0), row.get(1))).collect();
    let numbers = Numbers { schemas: row.get(0), role: row.get(6), objects };
    purges::set_existed(tx, tenant, &existed, &numbers).await
}
