//! Rows for a scratch schema, so that a file that fails where there are rows is found.
//!
//! First the statements of `seed/<set>.sql`, each by itself: one that does not fit this version of the
//! schema is passed over. Then, for tables whose columns are new, rows made up from the catalog: one with
//! what is required only, one with everything. Checks may refuse them; then the table stays empty, and
//! the report says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio_postgres::types::Type;

use super::super::{MigrationError, SetKind, sql};
use super::scratch::Scratch;
use crate::config;
use crate::error::{Doing, Error};
use crate::ids::quoted;

/// How many rows a table has.
pub(super) type Rows = BTreeMap<String, i64>;

/// The statements of a set's seed file, and the tables that it leaves to the migrations.
#[derive(Debug, Clone, Default)]
pub(super) struct Seed {
    statements: Vec<Statement>,
    left_empty: BTreeSet<String>,
    round: u32,
    filled: BTreeMap<String, Vec<String>>,
}

/// A statement of a seed file.
#[derive(Debug, Clone)]
struct Statement {
    text: String,
    /// Where it is, for one that somebody wrote.
    place: Option<String>,
    /// What the server said, as long as it never ran.
    refusal: Option<String>,
}

impl Seed {
    /// The built-in statements, and those of `seed/<set>.sql` in the directory of migrations.
    pub(super) fn load(config: &config::Migrations, set: SetKind) -> Result<Self, MigrationError> {
        let mut seed = Self::default();
        let built_in = match set {
            SetKind::Public => include_str!("../../../migrations/seed/public.sql"),
            SetKind::Tenant => include_str!("../../../migrations/seed/tenant.sql"),
        };
        seed.add(built_in, None);
        let file = config.dir.as_ref().map(|dir| dir.join("seed").join(format!("{set}.sql")));
        if let Some(file) = file.filter(|file| file.exists()) {
            seed.add(&read(&file)?, Some(&file));
        }
        Ok(seed)
    }

    fn add(&mut self, text: &str, file: Option<&Path>) {
        let statement = |s: sql::Statement| Statement {
            place: file.map(|file| format!("`{}`, line {}", file.display(), s.line)),
            text: text[s.range].to_owned(),
            refusal: Some("it was never tried".to_owned()),
        };
        self.statements.extend(sql::statements(text).into_iter().map(statement));
        for comment in sql::line_comments(text) {
            let words = comment.text.trim_start_matches('-').trim_start();
            if let Some(tables) = words.strip_prefix("tenantry: leave-empty=") {
                self.left_empty.extend(tables.split(',').map(|table| table.trim().to_owned()));
            }
        }
    }

    /// Adds rows where the schema's tables are new or changed. Yields the tables that stay empty, with
    /// the reason.
    pub(super) async fn sow(
        &mut self,
        scratch: &Scratch<'_>,
        set: SetKind,
    ) -> Result<Vec<String>, Error> {
        self.round += 1;
        let path = scratch.path(set);
        for statement in &mut self.statements {
            let text = format!("SET LOCAL search_path TO {path}; {}", statement.text);
            let said = attempt(scratch, &text).await?.err();
            statement.refusal = statement.refusal.take().and(said);
        }
        let mut tables = tables(scratch, set).await?;
        tables.retain(|name, table| {
            !self.left_empty.contains(name) && self.filled.get(name) != Some(&table.shape)
        });
        let mut refusals: BTreeMap<String, String> = BTreeMap::new();
        // A table whose foreign keys lead to one that is still empty gets its rows in a later pass.
        for _ in 0..tables.len() {
            let mut some = false;
            for (name, table) in &tables {
                if self.filled.get(name) == Some(&table.shape) {
                    continue;
                }
                match self.fill(scratch, table).await? {
                    Ok(()) => {
                        some = true;
                        self.filled.insert(name.clone(), table.shape.clone());
                    }
                    Err(refusal) => drop(refusals.insert(name.clone(), refusal)),
                }
            }
            if !some {
                break;
            }
        }
        let rows = count(scratch, set).await?;
        let empty = refusals.into_iter().filter(|(table, _)| rows.get(table) == Some(&0));
        Ok(empty.map(|(table, refusal)| format!("`{table}` stays empty: {refusal}")).collect())
    }

    /// The statements of somebody's own that fitted no version.
    pub(super) fn never_ran(&self) -> impl Iterator<Item = String> {
        self.statements.iter().filter_map(|statement| {
            let (place, refusal) = (statement.place.as_ref()?, statement.refusal.as_ref()?);
            Some(format!("{place}: fitted no version: {refusal}"))
        })
    }

    /// One row with what is required, one with all; either will do.
    async fn fill(
        &self,
        scratch: &Scratch<'_>,
        table: &Table,
    ) -> Result<Result<(), String>, Error> {
        const VARIANTS: usize = 6;
        let mut done = false;
        let mut refusal = String::new();
        for full in [false, true] {
            for variant in 0..VARIANTS {
                match attempt(scratch, &table.insert(self.round, full, variant)).await? {
                    Ok(()) => {
                        done = true;
                        break;
                    }
                    Err(said) => refusal = said,
                }
            }
        }
        Ok(if done { Ok(()) } else { Err(refusal) })
    }
}

fn read(file: &Path) -> Result<String, MigrationError> {
    std::fs::read_to_string(file).map_err(|error| MigrationError::Files {
        problems: vec![format!("`{}` can't be read: {error}", file.display())],
    })
}

/// Runs statements; if they fail, they leave nothing. Checks that were put off are made now.
async fn attempt(scratch: &Scratch<'_>, statements: &str) -> Result<Result<(), String>, Error> {
    // In a message of its own: of a text that can't be parsed nothing runs, not even this.
    scratch.mark("row").await?;
    let text = format!(
        "{statements}; SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED; RELEASE row"
    );
    match scratch.client().batch_execute(&text).await {
        Ok(()) => Ok(Ok(())),
        Err(error) => match error.as_db_error() {
            Some(said) => {
                let said = said.message().to_owned();
                scratch.back("row").await?;
                Ok(Err(said))
            }
            None => Err(error).doing("write a row"),
        },
    }
}

/// How many rows each table of the set's schema has.
pub(super) async fn count(scratch: &Scratch<'_>, set: SetKind) -> Result<Rows, Error> {
    let schema = scratch.schema(set);
    let names = tables(scratch, set).await?.into_keys();
    let counts: Vec<String> = names
        .map(|name| {
            let text = name.replace('\'', "''");
            format!("SELECT '{text}', count(*) FROM {}.{}", quoted(&schema), quoted(&name))
        })
        .collect();
    if counts.is_empty() {
        return Ok(Rows::new());
    }
    let rows =
        scratch.client().query_typed(&counts.join(" UNION ALL "), &[]).await.doing("count rows")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

struct Table {
    target: String,
    columns: Vec<Column>,
    /// What a change of which asks for rows again.
    shape: Vec<String>,
}

struct Column {
    name: String,
    number: i16,
    declared: String,
    kind: String,
    required: bool,
    literals: Vec<String>,
    references: Option<(String, String)>,
}

impl Table {
    fn insert(&self, round: u32, full: bool, variant: usize) -> String {
        let chosen: Vec<&Column> = self.columns.iter().filter(|c| full || c.required).collect();
        if chosen.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", self.target);
        }
        let names: Vec<String> = chosen.iter().map(|c| quoted(&c.name)).collect();
        let values: Vec<String> = chosen.iter().map(|c| c.value(round, full, variant)).collect();
        format!("INSERT INTO {} ({}) VALUES ({})", self.target, names.join(", "), values.join(", "))
    }
}

impl Column {
    /// An expression that may pass for the column's value; each variant is another try.
    fn value(&self, round: u32, full: bool, variant: usize) -> String {
        if let Some((table, column)) = &self.references {
            return format!("(SELECT {column} FROM {table} ORDER BY 1 LIMIT 1)");
        }
        let number = round * 2 + u32::from(full);
        let bare = match self.kind.as_str() {
            _ if !self.literals.is_empty() => {
                format!("'{}'", self.literals[variant % self.literals.len()])
            }
            "S" if variant == 1 => format!("'seed{number}@example.invalid'"),
            "S" if variant == 2 => "'aa'".to_owned(),
            "S" if variant == 3 => "'AA'".to_owned(),
            "S" => format!("'seed{number}'"),
            "N" => format!("{}", if variant < 3 { number } else { variant as u32 - 3 }),
            "B" => "false".to_owned(),
            "D" => format!("now() + {} * interval '1 hour'", self.number),
            "T" => "'1 hour'".to_owned(),
            "E" => return format!("(SELECT enum_first(NULL::{}))", self.declared),
            "A" => "'{}'".to_owned(),
            "R" => "'empty'".to_owned(),
            "I" => "'127.0.0.1'".to_owned(),
            "V" => "'1'".to_owned(),
            "uuid" => "gen_random_uuid()".to_owned(),
            "json" | "jsonb" if variant % 2 == 1 => "'[]'".to_owned(),
            "json" | "jsonb" => "'{}'".to_owned(),
            "bytea" if variant % 2 == 1 => "decode(repeat('00', 32), 'hex')".to_owned(),
            "bytea" => "'\\x00'".to_owned(),
            _ => "NULL".to_owned(),
        };
        // A cast cuts a text to the column's length, instead of refusing it.
        format!("({bare})::{}", self.declared)
    }
}

/// The tables that take rows, and their columns that an INSERT may name.
async fn tables(scratch: &Scratch<'_>, set: SetKind) -> Result<BTreeMap<String, Table>, Error> {
    let schema = scratch.schema(set);
    scratch.mark("look").await?;
    scratch
        .client()
        .batch_execute("SET LOCAL search_path = ''")
        .await
        .doing("set the search path")?;
    let rows = scratch
        .client()
        .query_typed(include_str!("columns.sql"), &[(&schema, Type::TEXT)])
        .await
        .doing("read the scratch's columns")?;
    scratch.back("look").await?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for row in &rows {
        let name: String = row.get(0);
        let table = tables.entry(name.clone()).or_insert_with(|| Table {
            target: format!("{}.{}", quoted(&schema), quoted(&name)),
            columns: Vec::new(),
            shape: Vec::new(),
        });
        let Some(column) = row.get::<_, Option<String>>(1) else { continue };
        let checks: Vec<String> = row.get(6);
        table.shape.push(format!("{column} {}", row.get::<_, &str>(3)));
        table.columns.push(Column {
            name: column,
            number: row.get(2),
            declared: row.get(3),
            kind: row.get(4),
            required: row.get(5),
            literals: checks.iter().flat_map(|check| literals(check)).collect(),
            references: row.get::<_, Option<String>>(7).zip(row.get(8)),
        });
    }
    Ok(tables)
}

/// The values that a check compares a text with: `= ANY (ARRAY['draft'::text, …])`.
fn literals(check: &str) -> Vec<String> {
    if check.contains('~') {
        return Vec::new();
    }
    let pieces = check.split('\'').collect::<Vec<_>>();
    pieces
        .chunks(2)
        .filter_map(|pair| pair.get(1).copied())
        .filter(|literal| !literal.is_empty())
        .map(str::to_owned)
        .collect()
}
