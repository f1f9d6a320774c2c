//! Rules about the shape of tables: keys, indexes, types, whose they are.

use super::catalogue::{
    CUSTOM_TYPE, FOREIGN_KEY_OUTSIDE, FOREIGN_KEY_WITHOUT_INDEX, NO_PRIMARY_KEY, TENANT_ID,
};
use super::file::File;
use super::finding::Report;
use super::tables::{Table, Tables};
use super::tree::{Column, Constraint, ConstraintKind, Name, What};

/// The tables as all files of the set leave them.
pub(super) fn check_tables(files: &[File<'_>], tables: &Tables, report: &mut Report) {
    for (name, table) in &tables.tables {
        let file = &files[table.made.file];
        if !table.has_primary_key() && !table.opaque {
            report.at(
                file,
                NO_PRIMARY_KEY,
                table.made.at,
                format!("table `{name}` has no primary key"),
            );
        }
        if file.is_tenant() && !table.opaque && !has_tenant_id(table) {
            let message = format!("table `{name}` does not say whose its rows are");
            report.at(file, TENANT_ID, table.made.at, message);
        }
        for (place, constraint) in &table.constraints {
            let ConstraintKind::Foreign { columns, .. } = &constraint.kind else { continue };
            if !table.is_indexed_by(columns) {
                let columns = columns.join("`, `");
                let message = format!("no index of `{name}` begins with `{columns}`");
                report.at(&files[place.file], FOREIGN_KEY_WITHOUT_INDEX, place.at, message);
            }
        }
    }
}

fn has_tenant_id(table: &Table) -> bool {
    let default = table.columns.get("tenant_id").and_then(|column| column.default.as_deref());
    let checked = table.constraints.iter().any(|(_, constraint)| match &constraint.kind {
        ConstraintKind::Check { expression } => {
            expression == "tenant_id=this_tenant()" || expression == "this_tenant()=tenant_id"
        }
        _ => false,
    });
    default == Some("this_tenant()") && checked
}

/// Columns and foreign keys, in the file that makes them.
pub(super) fn check_file(file: &File<'_>, public: &Tables, own: &Tables, report: &mut Report) {
    for fact in &file.tree.facts {
        match &fact.what {
            What::CreateTable { columns, constraints, .. } => {
                columns.iter().for_each(|column| check_column(file, public, own, column, report));
                constraints.iter().for_each(|c| foreign_key(file, public, own, c, report));
            }
            What::AddColumn { column, .. } => check_column(file, public, own, column, report),
            What::AddConstraint { constraint, .. } => {
                foreign_key(file, public, own, constraint, report);
            }
            _ => {}
        }
    }
}

fn check_column(
    file: &File<'_>,
    public: &Tables,
    own: &Tables,
    column: &Column,
    report: &mut Report,
) {
    column.constraints.iter().for_each(|c| foreign_key(file, public, own, c, report));
    let Some(ty) = &column.type_name else { return };
    let domain = own.domains.contains(&ty.name) || public.domains.contains(&ty.name);
    if !is_built_in(ty) && !domain {
        // It may be a domain that was made elsewhere, which the driver does not notice.
        let message =
            format!("column `{}` has the type `{}`, which is not built in", column.name, ty.name);
        report.warn(file, CUSTOM_TYPE, ty.at, message);
    }
}

fn foreign_key(
    file: &File<'_>,
    public: &Tables,
    own: &Tables,
    constraint: &Constraint,
    report: &mut Report,
) {
    let ConstraintKind::Foreign { to, .. } = &constraint.kind else { return };
    let tenants = to.name == "tenants" && !file.is_tenant();
    let leaves = file.is_tenant()
        && (to.schema.is_some()
            || (public.tables.contains_key(&to.name) && !own.tables.contains_key(&to.name)));
    if leaves {
        let message = format!("it refers to `{}`, outside the tenant's schema", to.name);
        report.at(file, FOREIGN_KEY_OUTSIDE, to.at, message);
    } else if tenants {
        // Within the public set no schema is dropped, but a tenant's row is locked by its children.
        report.warn(
            file,
            FOREIGN_KEY_OUTSIDE,
            to.at,
            "it refers to `tenants`, which every request reads",
        );
    }
}

/// The types of `pg_catalog` by the names that people write; the driver knows them all by number.
const BUILT_IN: &[&str] = &[
    "bigint",
    "bigserial",
    "bit",
    "bool",
    "boolean",
    "box",
    "bpchar",
    "bytea",
    "char",
    "character",
    "cidr",
    "circle",
    "date",
    "datemultirange",
    "daterange",
    "dec",
    "decimal",
    "float",
    "float4",
    "float8",
    "inet",
    "int",
    "int2",
    "int4",
    "int4multirange",
    "int4range",
    "int8",
    "int8multirange",
    "int8range",
    "integer",
    "interval",
    "json",
    "jsonb",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "national",
    "nchar",
    "numeric",
    "nummultirange",
    "numrange",
    "oid",
    "path",
    "pg_lsn",
    "pg_snapshot",
    "point",
    "polygon",
    "real",
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "serial",
    "serial2",
    "serial4",
    "serial8",
    "smallint",
    "smallserial",
    "text",
    "tid",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsmultirange",
    "tsquery",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
    "tsvector",
    "uuid",
    "varbit",
    "varchar",
    "xid",
    "xid8",
    "xml",
];

fn is_built_in(ty: &Name) -> bool {
    ty.schema.as_deref() == Some("pg_catalog") || BUILT_IN.contains(&ty.name.as_str())
}
