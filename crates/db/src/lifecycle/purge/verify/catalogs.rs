//! PostgreSQL's catalogs: rows that point to something of the tenant's, which is gone.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::Query;
use crate::error::{Doing, Error};
use crate::models::purges::Numbers;

pub(super) struct Catalogs {
    pub(super) queries: Vec<Query>,
    pub(super) unread: Vec<String>,
}

/// One query for each catalog, so that it is read once, whatever points from it.
pub(super) async fn queries(tx: &Transaction<'_>, numbers: &Numbers) -> Result<Catalogs, Error> {
    let targets = Targets::of(numbers);
    let names: Vec<&str> = targets.0.keys().map(String::as_str).collect();
    let columns = tx
        .query_typed(include_str!("catalogs.sql"), &[(&names, Type::TEXT_ARRAY)])
        .await
        .doing("ask which catalogs could name the tenant")?;
    let mut conditions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut unread = Vec::new();
    for row in &columns {
        let (catalog, column): (&str, &str) = (row.get(0), row.get(2));
        if row.get(6) {
            conditions.entry(catalog.to_owned()).or_default().extend(targets.condition(row));
        } else {
            unread.push(format!("`{catalog}`, by `{column}`"));
        }
    }
    unread.dedup();
    let query = |(catalog, conditions): (String, Vec<String>)| Query {
        place: format!("the catalog `{catalog}`"),
        from: format!("pg_catalog.{catalog}"),
        condition: conditions.join(" OR "),
        shown: None,
    };
    let queries = conditions.into_iter().filter(|(_, all)| !all.is_empty()).map(query).collect();
    Ok(Catalogs { queries, unread })
}

/// The catalogs whose rows may be the tenant's, each with what is compared to such a number.
struct Targets(BTreeMap<String, String>);

impl Targets {
    fn of(numbers: &Numbers) -> Self {
        const FIRST_OF_OBJECTS: usize = 3;
        let objects =
            numbers.objects.keys().enumerate().map(|(n, catalog)| {
                (catalog.clone(), format!("= ANY (${})", n + FIRST_OF_OBJECTS))
            });
        let named = [("pg_namespace", "= ANY ($1)"), ("pg_authid", "= $2")];
        Self(
            named
                .map(|(of, is)| (of.to_owned(), is.to_owned()))
                .into_iter()
                .chain(objects)
                .collect(),
        )
    }

    /// What a row fulfils that points to something of the tenant's by this column.
    fn condition(&self, row: &Row) -> Option<String> {
        let (catalog, shared, column): (&str, bool, &str) = (row.get(0), row.get(1), row.get(2));
        let (number, kind, target): (Option<&str>, &str, &str) =
            (row.get(3), row.get(4), row.get(5));
        match (kind, number) {
            ("acl", _) => Some(format!(
                "({column} IS NOT NULL AND EXISTS (SELECT FROM aclexplode({column}) WHERE $2 IN (grantee, grantor)))"
            )),
            ("pair", Some(number)) => Some(self.pair(catalog, shared, column, number)),
            ("array", _) if target == "pg_authid" => Some(format!("$2 = ANY ({column})")),
            ("array", _) => self
                .0
                .get(target)
                .map(|is| format!("{column}::oid[] && {}", is.trim_start_matches("= ANY "))),
            _ => self.0.get(target).map(|is| format!("{column} {is}")),
        }
    }

    /// Two columns that say in which catalog a row stands, and its number there. Numbers of two databases
    /// may be the same: what all databases share names their own roles only.
    fn pair(&self, catalog: &str, shared: bool, class: &str, number: &str) -> String {
        let of = |(target, is): (&String, &String)| {
            format!("({class} = 'pg_catalog.{target}'::regclass AND {number} {is})")
        };
        if !shared {
            return self.0.iter().map(of).collect::<Vec<_>>().join(" OR ");
        }
        let role = self.0.iter().filter(|(target, _)| *target == "pg_authid").map(of);
        let role = role.collect::<Vec<_>>().join(" OR ");
        if catalog != "pg_shdepend" || class != "classid" {
            return role;
        }
        let own = self.0.iter().filter(|(target, _)| *target != "pg_authid").map(of);
        format!(
            "(dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) AND ({}))",
            own.collect::<Vec<_>>().join(" OR ")
        )
    }
}
