//! Tables outside of the tenants' schemas with a column that names a tenant, whoever made them.

use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::Query;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::{TenantId, quoted};
use crate::lifecycle::purge::shared::{self, Rule};

/// A column that names a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::lifecycle::purge) struct Column {
    pub(in crate::lifecycle::purge) schema: String,
    pub(in crate::lifecycle::purge) table: String,
    pub(in crate::lifecycle::purge) column: String,
    /// Of UUIDs, and not of text.
    id: bool,
    array: bool,
    readable: bool,
}

pub(super) struct Tables {
    pub(super) queries: Vec<Query>,
    pub(super) unread: Vec<String>,
    pub(super) kept: Vec<String>,
}

/// What a column that names a tenant is called: a word of it is one of these.
const WORDS: &str = "(^|_)(tenants?|schema|subdomain)(_|$)";

/// All such columns, but for the register's own.
pub(in crate::lifecycle::purge) async fn list(
    db: &impl GenericClient,
) -> Result<Vec<Column>, Error> {
    let rows = db
        .query_typed(
            "SELECT n.nspname::text, c.relname::text, a.attname::text,
                    a.atttypid IN ('uuid'::regtype, 'uuid[]'::regtype), y.typcategory = 'A',
                    has_column_privilege(c.oid, a.attnum, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
             FROM pg_namespace n
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             JOIN pg_type y ON y.oid = a.atttypid
             WHERE n.nspname !~ '^(pg_|information_schema$|tenant_[0-9a-f]{32}($|__))'
               AND c.oid <> 'public.tenants'::regclass
               AND a.attname ~ $1
               AND (a.atttypid IN ('uuid'::regtype, 'uuid[]'::regtype) OR y.typcategory = 'S'
                    OR y.typelem <> 0 AND (SELECT e.typcategory = 'S' FROM pg_type e WHERE e.oid = y.typelem))
             ORDER BY 1, 2, 3",
            &[(&WORDS, Type::TEXT)],
        )
        .await
        .doing("look for tables that name tenants")?;
    Ok(rows
        .iter()
        .map(|row| Column {
            schema: row.get(0),
            table: row.get(1),
            column: row.get(2),
            id: row.get(3),
            array: row.get(4),
            readable: row.get(5),
        })
        .collect())
}

/// Whether this column, and not another of the same table, decides what becomes of its rows.
pub(in crate::lifecycle::purge) fn is_shared_column(column: &Column, all: &[Column]) -> bool {
    let by_id = |other: &Column| {
        (&other.schema, &other.table) == (&column.schema, &column.table)
            && other.column == "tenant_id"
    };
    // Two tenants may have had one subdomain after another; the id says whose the row is.
    !(column.column.contains("subdomain") && all.iter().any(by_id))
}

/// A query for each column but those whose rows stay.
pub(super) async fn queries(
    tx: &Transaction<'_>,
    admin: &AdminDb,
    tenant: TenantId,
    subdomain: Option<&str>,
) -> Result<Tables, Error> {
    let mut tables = Tables { queries: Vec::new(), unread: Vec::new(), kept: Vec::new() };
    let all = list(tx).await?;
    for column in all.iter().filter(|column| is_shared_column(column, &all)) {
        let name = format!("{}.{}", column.schema, column.table);
        let ours = column.schema == "public";
        let rule = shared::rule(&column.table, &column.column).filter(|_| ours);
        if matches!(rule, Some(Rule::Kept)) || admin.kept_tables.contains(&name) {
            tables.kept.push(name);
        } else if column.readable {
            tables.queries.push(query(column, tenant, subdomain));
        } else {
            tables.unread.push(format!("`{name}`, by `{}`", column.column));
        }
    }
    tables.kept.dedup();
    Ok(tables)
}

fn query(column: &Column, tenant: TenantId, subdomain: Option<&str>) -> Query {
    let from = format!("{}.{}", quoted(&column.schema), quoted(&column.table));
    let name = quoted(&column.column);
    let condition = |values: &[String]| match (column.id, column.array) {
        (true, false) => format!("{name} = '{tenant}'"),
        (true, true) => format!("'{tenant}' = ANY ({name})"),
        (false, false) => format!("{name}::text IN ({})", values.join(", ")),
        (false, true) => format!("{name}::text[] && ARRAY[{}]", values.join(", ")),
    };
    let mut values = vec![format!("'{tenant}'"), format!("'{}'", tenant.schema())];
    let shown = format!("SELECT count(*) FROM {from} WHERE {}", condition(&values));
    // A DNS label, so there is nothing in it to be quoted.
    let subdomain = subdomain.filter(|_| !column.id && column.column.contains("subdomain"));
    values.extend(subdomain.map(|subdomain| format!("'{subdomain}'")));
    Query {
        place: format!("the table `{}.{}`, by `{}`", column.schema, column.table, column.column),
        from,
        condition: condition(&values),
        shown: subdomain.map(|_| format!("{shown} /* and by its former subdomain */")),
    }
}
