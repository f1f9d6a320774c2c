//! Looking whether anything of a tenant is left in the database, place by place.
//!
//! The places come from PostgreSQL itself: every catalog with a column that names a schema, a role or an
//! object, every access list, every table with a column that names a tenant. So a catalog of a newer
//! PostgreSQL and a table of somebody else's are looked at, too. Each place is one query, kept as text with
//! what it found, for the certificate; all are sent as one statement. Refuses to pass over what it may not
//! read: that is said.

mod catalogs;
mod shared_tables;
mod statements;

use serde::Serialize;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Transaction};

use super::session::names;
use crate::direct::AdminDb;
use crate::error::{Doing, Error};
use crate::ids::TenantId;
use crate::lifecycle::ErasureError;
use crate::models::purges::{self, Numbers};

pub(super) use shared_tables::{is_shared_column, list as list_shared};

/// A place that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Which it is, as it follows «rows in».
    pub place: String,
    /// The query. `$1` are the numbers of the tenant's schemas, `$2` is that of its role, the others are those of its
    /// objects, catalog by catalog.
    pub query: String,
    /// How many rows it found.
    pub found: i64,
}

/// What the queries have as parameters. The numbers of what was dropped say nothing about anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name in the queries.
    pub name: String,
    /// What it is.
    pub of: String,
    /// The numbers; of more than a thousand, the first.
    pub numbers: Vec<u32>,
    /// How many there are.
    pub count: usize,
}

/// What a look found, as the certificate says it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Looked {
    pub(super) parameters: Vec<Parameter>,
    pub(super) places: Vec<Place>,
    /// What this login may not read.
    pub(super) unread: Vec<String>,
    /// Tables whose rows stay.
    pub(super) kept: Vec<String>,
    /// Statements of the tenant's that PostgreSQL's own statistics of statements still hold.
    pub(super) statements: i64,
}

/// A query that counts, before it is sent.
struct Query {
    place: String,
    from: String,
    condition: String,
    /// Tables that a purge would have to leave are not to be shown with the tenant's former name.
    shown: Option<String>,
}

impl Query {
    fn text(&self) -> String {
        format!("SELECT count(*) FROM {} WHERE {}", self.from, self.condition)
    }
}

/// Looks everywhere. `subdomain` is the one that the tenant had, where it is still known.
pub(super) async fn look(
    tx: &Transaction<'_>,
    admin: &AdminDb,
    tenant: TenantId,
    subdomain: Option<&str>,
) -> Result<Looked, Error> {
    let numbers = purges::find_numbers(tx, tenant).await?;
    let mut looked = Looked { parameters: parameters(&numbers), ..Looked::default() };
    let mut queries = by_name(tenant);
    let found = catalogs::queries(tx, &numbers).await?;
    queries.extend(found.queries);
    looked.unread = found.unread;
    let tables = shared_tables::queries(tx, admin, tenant, subdomain).await?;
    queries.extend(tables.queries);
    looked.unread.extend(tables.unread);
    looked.kept = tables.kept;
    looked.places = count(tx, &numbers, queries).await?;
    match statements::forget(tx, numbers.role).await? {
        Some(left) => looked.statements = left,
        None => looked.unread.push("`pg_stat_statements`".to_owned()),
    }
    Ok(looked)
}

impl Looked {
    /// # Errors
    /// [`ErasureError::Left`] with what was found.
    pub(super) fn require_nothing(&self, tenant: TenantId) -> Result<(), Error> {
        let left: Vec<String> = self
            .places
            .iter()
            .filter(|place| place.found > 0)
            .map(|place| format!("{} rows in {}", place.found, place.place))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(ErasureError::Left { tenant, left }.into()) }
    }
}

/// What bears the tenant's name, whatever its number.
fn by_name(tenant: TenantId) -> Vec<Query> {
    let (schema, copies) = names(tenant);
    let query = |place: &str, from: &str, condition: String| Query {
        place: place.to_owned(),
        from: from.to_owned(),
        condition,
        shown: None,
    };
    vec![
        query(
            "`pg_namespace`, by the schema's name and those of its copies",
            "pg_catalog.pg_namespace",
            format!("nspname = '{schema}' OR starts_with(nspname, '{copies}')"),
        ),
        query(
            "`pg_roles`, by the role's name",
            "pg_catalog.pg_roles",
            format!("rolname = '{schema}'"),
        ),
        query(
            "`public.tenants`, beyond its tombstone",
            "public.tenants",
            format!(
                "id = '{tenant}' AND NOT (status = 'purged' AND name = '' AND subdomain IS NULL AND settings = '{{}}')"
            ),
        ),
    ]
}

fn parameters(numbers: &Numbers) -> Vec<Parameter> {
    const SHOWN: usize = 1000;
    let role: Vec<u32> = numbers.role.into_iter().collect();
    let named =
        [("the tenant's schemas".to_owned(), &numbers.schemas), ("its role".to_owned(), &role)];
    let objects =
        numbers.objects.iter().map(|(of, numbers)| (format!("its rows of `{of}`"), numbers));
    named
        .into_iter()
        .chain(objects)
        .enumerate()
        .map(|(n, (of, numbers))| Parameter {
            name: format!("${}", n + 1),
            of,
            numbers: numbers.iter().take(SHOWN).copied().collect(),
            count: numbers.len(),
        })
        .collect()
}

/// One statement for all of them.
async fn count(
    db: &impl GenericClient,
    numbers: &Numbers,
    queries: Vec<Query>,
) -> Result<Vec<Place>, Error> {
    let all: Vec<String> = queries.iter().map(|query| format!("({})", query.text())).collect();
    let mut values: Vec<(&(dyn ToSql + Sync), Type)> =
        vec![(&numbers.schemas, Type::OID_ARRAY), (&numbers.role, Type::OID)];
    for objects in numbers.objects.values() {
        values.push((objects, Type::OID_ARRAY));
    }
    let statement = format!("SELECT ARRAY[{}]", all.join(", "));
    let row = db
        .query_typed_one(&statement, &values)
        .await
        .doing("look for what is left of the tenant")?;
    let found: Vec<i64> = row.get(0);
    Ok(queries
        .into_iter()
        .zip(found)
        .map(|(query, found)| Place {
            query: query.shown.clone().unwrap_or_else(|| query.text()),
            place: query.place,
            found,
        })
        .collect())
}
