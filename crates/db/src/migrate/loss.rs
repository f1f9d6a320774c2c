//! What a way back would lose: the tables and columns that a down file drops, and whether they hold
//! anything.
//!
//! Looked at twice: for the whole fleet before anything is done, so that people see all of it at once,
//! and in each tenant's batch under the table's lock, so that a row that came in between is not lost.

use std::collections::HashSet;

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Script;
use super::error::Loss;
use super::sql::{self, Statement};
use crate::error::{Doing, Error};
use crate::ids::quoted;

/// A table or column that a file drops.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Dropped {
    pub(super) table: String,
    /// `None`: the whole table, or all its rows.
    pub(super) column: Option<String>,
    if_exists: bool,
}

impl Dropped {
    /// A query that yields a row where there is something to lose.
    fn holds(&self, schema: &str) -> String {
        let table = format!("{}.{}", quoted(schema), quoted(&self.table));
        match &self.column {
            Some(column) => format!("SELECT FROM {table} WHERE {} IS NOT NULL", quoted(column)),
            None => format!("SELECT FROM {table}"),
        }
    }
}

/// What a file drops, as far as its text says so: nobody sees into dynamic SQL.
pub(super) fn dropped(script: &Script) -> Vec<Dropped> {
    script.statements.iter().flat_map(|statement| of_statement(script, statement)).collect()
}

/// Statements that lock what the file drops, and fail with `division_by_zero` where it holds something.
pub(super) fn guards(schema: &str, script: &Script) -> Vec<String> {
    script.statements.iter().flat_map(|statement| guards_of(schema, script, statement)).collect()
}

/// As [`guards`], of one statement.
pub(super) fn guards_of(schema: &str, script: &Script, statement: &Statement) -> Vec<String> {
    let dropped = of_statement(script, statement).into_iter();
    dropped
        .filter(|dropped| !dropped.if_exists)
        .map(|dropped| {
            let table = format!("{}.{}", quoted(schema), quoted(&dropped.table));
            format!(
                "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; \
                 SELECT 1 / CASE WHEN EXISTS ({}) THEN 0 ELSE 1 END;\n",
                dropped.holds(schema)
            )
        })
        .collect()
}

/// Whether a public file drops the register of tenants. Whoever does leaves schemas behind that nobody
/// knows of any more.
pub(super) fn drops_register(script: &Script) -> bool {
    dropped(script).iter().any(|d| d.table == "tenants" && d.column.is_none())
}

/// Fails with `division_by_zero` where somebody is registered, whatever may be lost otherwise.
pub(super) const REGISTER_GUARD: &str = "LOCK TABLE public.tenants IN ACCESS EXCLUSIVE MODE; \
    SELECT 1 / CASE WHEN EXISTS (SELECT FROM public.tenants WHERE status <> 'purged') THEN 0 ELSE 1 END;\n";

fn of_statement(script: &Script, statement: &Statement) -> Vec<Dropped> {
    let words: Vec<(&str, String)> = sql::tokens(script.statement(statement))
        .map(|token| (token.text, token.text.to_uppercase()))
        .collect();
    let mut words = Words { words: &words };
    if words.take(&["DROP", "TABLE"]) {
        let if_exists = words.take(&["IF", "EXISTS"]);
        return words.tables(if_exists);
    }
    if words.take(&["TRUNCATE"]) {
        words.take(&["TABLE"]);
        words.take(&["ONLY"]);
        return words.tables(false);
    }
    if words.take(&["ALTER", "TABLE"]) {
        let table_if_exists = words.take(&["IF", "EXISTS"]);
        words.take(&["ONLY"]);
        let Some(table) = words.name() else { return Vec::new() };
        words.take(&["*"]);
        let mut dropped = Vec::new();
        loop {
            if words.take(&["DROP"]) && !words.take(&["CONSTRAINT"]) {
                words.take(&["COLUMN"]);
                let if_exists = words.take(&["IF", "EXISTS"]) || table_if_exists;
                let column = words.name();
                dropped.push(Dropped { table: table.clone(), column, if_exists });
            }
            if !words.skip_past_comma() {
                return dropped;
            }
        }
    }
    Vec::new()
}

/// The rest of a statement's tokens, each with its capitals.
struct Words<'a> {
    words: &'a [(&'a str, String)],
}

impl Words<'_> {
    fn take(&mut self, expected: &[&str]) -> bool {
        let found = self.words.len() >= expected.len()
            && self.words.iter().zip(expected).all(|((_, upper), word)| upper == word);
        if found {
            self.words = &self.words[expected.len()..];
        }
        found
    }

    /// The last part of a name that may be qualified, as the catalog has it.
    fn name(&mut self) -> Option<String> {
        let ((text, _), rest) = self.words.split_first()?;
        self.words = rest;
        if self.take(&["."]) {
            return self.name();
        }
        Some(sql::catalog_name(text))
    }

    fn tables(&mut self, if_exists: bool) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        loop {
            if let Some(table) = self.name() {
                dropped.push(Dropped { table, column: None, if_exists });
            }
            self.take(&["*"]);
            if !self.take(&[","]) {
                return dropped;
            }
        }
    }

    /// Goes behind the next comma that is in no parentheses.
    fn skip_past_comma(&mut self) -> bool {
        let mut depth = 0_usize;
        while let Some(((text, _), rest)) = self.words.split_first() {
            self.words = rest;
            match *text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                "," if depth == 0 => return true,
                _ => {}
            }
        }
        false
    }
}

/// What would be lost: of schemas, with their tenants' human names, and what is dropped in each. Rows
/// are counted for the first few only.
pub(super) async fn find(
    db: &impl GenericClient,
    named: Vec<(String, Option<String>, Dropped)>,
) -> Result<Vec<Loss>, Error> {
    const CHUNK: usize = 64;
    const COUNTED: usize = 20;
    let there = existing(db, &named).await?;
    let there: Vec<_> = named
        .into_iter()
        .filter(|(schema, _, d)| {
            there.contains(&(schema.clone(), d.table.clone(), d.column.clone()))
        })
        .collect();
    let mut held = Vec::new();
    for (number, chunk) in there.chunks(CHUNK).enumerate() {
        let questions: Vec<String> = chunk
            .iter()
            .enumerate()
            .map(|(n, (schema, _, d))| format!("SELECT {n} WHERE EXISTS ({})", d.holds(schema)))
            .collect();
        let rows = db
            .query_typed(&questions.join(" UNION ALL "), &[])
            .await
            .doing("look whether there are rows to lose")?;
        held.extend(rows.iter().map(|row| {
            let n: i32 = row.get(0);
            &there[number * CHUNK + n.unsigned_abs() as usize]
        }));
    }
    let mut losses = Vec::new();
    for (n, (schema, subdomain, dropped)) in held.into_iter().enumerate() {
        let rows = if n < COUNTED { Some(count(db, schema, dropped).await?) } else { None };
        losses.push(Loss {
            schema: schema.clone(),
            subdomain: subdomain.clone(),
            table: dropped.table.clone(),
            column: dropped.column.clone(),
            rows,
        });
    }
    Ok(losses)
}

async fn count(db: &impl GenericClient, schema: &str, dropped: &Dropped) -> Result<i64, Error> {
    let query = format!("SELECT count(*) FROM ({}) AS held", dropped.holds(schema));
    let row = db.query_typed_one(&query, &[]).await.doing("count the rows to lose")?;
    Ok(row.get(0))
}

async fn existing(
    db: &impl GenericClient,
    named: &[(String, Option<String>, Dropped)],
) -> Result<HashSet<(String, String, Option<String>)>, Error> {
    let unique = |names: Vec<String>| -> Vec<String> {
        names.into_iter().collect::<HashSet<_>>().into_iter().collect()
    };
    let schemas = unique(named.iter().map(|(schema, ..)| schema.clone()).collect());
    let tables = unique(named.iter().map(|(.., d)| d.table.clone()).collect());
    let columns = unique(named.iter().filter_map(|(.., d)| d.column.clone()).collect());
    let rows = db
        .query_typed(
            "SELECT n.nspname::text, c.relname::text, NULL
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = ANY ($1) AND c.relname = ANY ($2) AND c.relkind IN ('r', 'p')
             UNION ALL
             SELECT n.nspname, c.relname, a.attname
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              WHERE n.nspname = ANY ($1) AND c.relname = ANY ($2) AND a.attname = ANY ($3)
                AND c.relkind IN ('r', 'p')",
            &[
                (&schemas, Type::TEXT_ARRAY),
                (&tables, Type::TEXT_ARRAY),
                (&columns, Type::TEXT_ARRAY),
            ],
        )
        .await
        .doing("look which tables a way back would drop")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_drops_is_seen_however_it_is_written() {
        let script = |text: &str| Script::read("x.sql", text.to_owned(), &mut Vec::new());
        let shown = |text: &str| -> Vec<String> {
            let show = |d: Dropped| match d.column {
                Some(column) => format!("{}.{column}", d.table),
                None => d.table,
            };
            dropped(&script(text)).into_iter().map(show).collect()
        };
        for (text, expected) in [
            ("DROP TABLE a; drop table if exists s.\"B\", c CASCADE", vec!["a", "B", "c"]),
            ("ALTER TABLE a DROP b", vec!["a.b"]),
            (
                "ALTER TABLE IF EXISTS ONLY s.a ADD CHECK (x > 1, 2), DROP COLUMN IF EXISTS b, DROP COLUMN \"C\" CASCADE",
                vec!["a.b", "a.C"],
            ),
            ("ALTER TABLE a DROP CONSTRAINT b, ALTER COLUMN c DROP NOT NULL", vec![]),
            ("TRUNCATE TABLE ONLY a, b RESTART IDENTITY", vec!["a", "b"]),
            ("DROP INDEX a; DROP VIEW b; -- DROP TABLE c\nSELECT 'DROP TABLE d'", vec![]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
