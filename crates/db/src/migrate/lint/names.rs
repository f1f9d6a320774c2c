//! Rules about names: of schemas, of tables of the other set, of tenants, and their length.

use super::catalogue::{
    NAME_TOO_LONG, OTHER_TENANT, PSQL_META, PUBLIC_TABLE, QUALIFIED_NAME, SHADOWED_TABLE,
};
use super::file::File;
use super::finding::Report;
use super::tables::Tables;
use super::tree::{Column, Constraint, ConstraintKind, What};
use super::words::Kind;

/// What all tenants read in `public`.
const SHARED: &[&str] = &["countries", "timezones", "platform_metadata"];
/// PostgreSQL's limit of a name, in bytes.
const MAX_NAME_BYTES: usize = 63;

pub(super) fn check(file: &File<'_>, public: &Tables, tenant: &Tables, report: &mut Report) {
    if file.is_tenant() {
        qualified(file, report);
        public_tables(file, public, tenant, report);
    }
    other_tenants(file, report);
    psql(file, report);
    derived_names(file, report);
}

fn is_shared(name: &str) -> bool {
    SHARED.contains(&name)
}

/// From the parse tree, where it knows a name for one; and `public.` from the words, which no syntax
/// error hides.
fn qualified(file: &File<'_>, report: &mut Report) {
    let allowed = |schema: &str, name: &str| {
        schema == "pg_catalog"
            || (schema == "public" && is_shared(name))
            || schema.starts_with("tenant_")
    };
    let told = |schema: &str, name: &str| format!("`{schema}.{name}` names a schema");
    for reference in &file.tree.references {
        let name = &reference.name;
        let Some(schema) = name.schema.as_deref().filter(|schema| !allowed(schema, &name.name))
        else {
            continue;
        };
        if schema != "pg_temp" {
            report.at(file, QUALIFIED_NAME, name.at, told(schema, &name.name));
        }
    }
    for piece in &file.pieces {
        for three in piece.words.windows(3) {
            let (Some(schema), Some(name)) = (three[0].name(), three[2].name()) else { continue };
            let known = schema == "public" || schema == "information_schema";
            if known && three[1].is_sign(".") && !allowed(schema, name) {
                report.at(file, QUALIFIED_NAME, three[0].at, told(schema, name));
            }
        }
    }
}

/// A table of the public set that tenants do not share, which the search path would find.
fn public_tables(file: &File<'_>, public: &Tables, tenant: &Tables, report: &mut Report) {
    for reference in file.tree.references.iter().filter(|reference| reference.relation) {
        let name = &reference.name.name;
        let hidden = tenant.tables.contains_key(name) || tenant.views.contains_key(name);
        let public = public.tables.contains_key(name) || public.views.contains_key(name);
        if reference.name.schema.is_none() && public && !hidden && !is_shared(name) {
            let message = format!("`{name}` is a table of the public set, for the system alone");
            report.at(file, PUBLIC_TABLE, reference.name.at, message);
        }
    }
}

/// A tenant's schema or role has a name that begins so, and its id behind.
fn other_tenants(file: &File<'_>, report: &mut Report) {
    for word in file.pieces.iter().flat_map(|piece| &piece.words) {
        let found = match word.kind {
            Kind::Name | Kind::Quoted => names_tenant(&word.text),
            Kind::Text => {
                word.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(names_tenant)
            }
            Kind::Sign => false,
        };
        if found {
            report.at(file, OTHER_TENANT, word.at, "one tenant's schema or role");
        }
    }
}

fn names_tenant(name: &str) -> bool {
    let hex = |id: &str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    name.strip_prefix("tenant_").is_some_and(hex)
}

/// Backslash commands and variables.
fn psql(file: &File<'_>, report: &mut Report) {
    for piece in file.pieces.iter().filter(|piece| !piece.in_body) {
        if let Some(word) = piece.words.iter().find(|word| word.is_sign("\\")) {
            report.at(file, PSQL_META, word.at, "a backslash command");
        }
        let mut brackets = 0_usize;
        for (index, word) in piece.words.iter().enumerate() {
            match word.text.as_str() {
                "[" if word.kind == Kind::Sign => brackets += 1,
                "]" if word.kind == Kind::Sign => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            let before = index.checked_sub(1).and_then(|at| piece.words.get(at));
            let next = piece.words.get(index + 1);
            let variable = word.is_sign(":")
                && brackets == 0
                && before.is_none_or(|w| !w.is_sign(":") && w.kind != Kind::Text)
                && next.is_some_and(|w| w.kind != Kind::Sign && w.at == word.at + 1);
            if let (true, Some(next)) = (variable, next) {
                report.at(file, PSQL_META, word.at, format!("the variable `:{}`", next.text));
            }
        }
    }
}

/// Names that PostgreSQL makes from those of table and columns, and shortens where they get too long.
fn derived_names(file: &File<'_>, report: &mut Report) {
    for fact in &file.tree.facts {
        match &fact.what {
            What::CreateTable { table, columns, constraints, .. } => {
                constraints.iter().for_each(|c| derived(file, &table.name, c, report));
                columns
                    .iter()
                    .for_each(|column| derived_of_column(file, &table.name, column, report));
            }
            What::AddColumn { table, column } => {
                derived_of_column(file, &table.name, column, report);
            }
            What::AddConstraint { table, constraint } => {
                derived(file, &table.name, constraint, report);
            }
            What::CreateIndex { table, index: None, columns, .. } => {
                let columns: Vec<_> =
                    columns.iter().map(|c| c.clone().unwrap_or("expr".to_owned())).collect();
                too_long(
                    file,
                    fact.at,
                    &format!("{}_{}_idx", table.name, columns.join("_")),
                    report,
                );
            }
            _ => {}
        }
    }
}

fn derived_of_column(file: &File<'_>, table: &str, column: &Column, report: &mut Report) {
    column.constraints.iter().for_each(|constraint| match &constraint.kind {
        ConstraintKind::Check { .. } if constraint.name.is_none() => {
            too_long(file, constraint.at, &format!("{table}_{}_check", column.name), report);
        }
        _ => derived(file, table, constraint, report),
    });
}

fn derived(file: &File<'_>, table: &str, constraint: &Constraint, report: &mut Report) {
    let name = match &constraint.kind {
        _ if constraint.name.is_some() => return,
        ConstraintKind::Unique { columns } => format!("{table}_{}_key", columns.join("_")),
        ConstraintKind::Primary { .. } => format!("{table}_pkey"),
        ConstraintKind::Foreign { columns, .. } => format!("{table}_{}_fkey", columns.join("_")),
        ConstraintKind::Check { .. } => format!("{table}_check"),
        ConstraintKind::NotNull => return,
    };
    too_long(file, constraint.at, &name, report);
}

fn too_long(file: &File<'_>, at: usize, name: &str, report: &mut Report) {
    if name.len() > MAX_NAME_BYTES {
        let message = format!(
            "PostgreSQL would call it `{name}`, which is longer than {MAX_NAME_BYTES} bytes"
        );
        report.at(file, NAME_TOO_LONG, at, message);
    }
}

/// A public table or view with the name of a tenant's, in whichever file either stands.
pub(super) fn shadowed(files: &[File<'_>], public: &Tables, tenant: &Tables, report: &mut Report) {
    let made = public.tables.iter().map(|(name, table)| (name, table.made));
    for (name, place) in made.chain(public.views.iter().map(|(name, place)| (name, *place))) {
        if tenant.tables.contains_key(name) || tenant.views.contains_key(name) {
            let message = format!("`{name}` is also a table of every tenant");
            report.at(&files[place.file], SHADOWED_TABLE, place.at, message);
        }
    }
}
