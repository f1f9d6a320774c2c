//! The tables of a set as its files leave them, in order: enough to judge keys, indexes and columns.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{Direction, File};
use super::tree::{Column, Constraint, ConstraintKind, Fact, Name, What};

/// A place in one of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) at: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) made: Place,
    pub(super) columns: BTreeMap<String, Column>,
    pub(super) constraints: Vec<(Place, Constraint)>,
    pub(super) indexes: Vec<Index>,
    /// Its columns can't be seen.
    pub(super) opaque: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Index {
    name: Option<String>,
    columns: Vec<Option<String>>,
    predicate: Option<String>,
}

/// Tables by name, and views, which have names as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub(super) tables: BTreeMap<String, Table>,
    pub(super) views: BTreeMap<String, Place>,
    pub(super) domains: Vec<String>,
}

/// What a file adds to the tables before it. What was there already it has not made, also where it says
/// `IF NOT EXISTS`, or drops the former one first.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) tables: BTreeSet<String>,
    /// Of tables that were there.
    pub(super) columns: BTreeSet<(String, String)>,
}

impl Made {
    pub(super) fn by(file: &File<'_>, before: &Tables) -> Self {
        let mut made = Self::default();
        for fact in &file.tree.facts {
            match &fact.what {
                What::CreateTable { table, .. } if !before.tables.contains_key(&table.name) => {
                    made.tables.insert(table.name.clone());
                }
                What::AddColumn { table, column } => {
                    let former = before.tables.get(&table.name);
                    if !former.is_some_and(|former| former.columns.contains_key(&column.name)) {
                        made.columns.insert((table.name.clone(), column.name.clone()));
                    }
                }
                _ => {}
            }
        }
        made
    }

    /// Whether it made the column, or its whole table.
    pub(super) fn has_column(&self, table: &Name, column: &str) -> bool {
        self.tables.contains(&table.name)
            || self.columns.contains(&(table.name.clone(), column.to_owned()))
    }
}

impl Tables {
    /// What all up files make, one after another.
    pub(super) fn of(files: &[File<'_>]) -> Self {
        let mut tables = Self::default();
        for (index, file) in files.iter().enumerate() {
            if file.direction != Direction::Down {
                tables.apply_file(index, file);
            }
        }
        tables
    }

    pub(super) fn apply_file(&mut self, index: usize, file: &File<'_>) {
        for fact in &file.tree.facts {
            self.apply(index, fact);
        }
    }

    pub(super) fn apply(&mut self, file: usize, fact: &Fact) {
        let place = Place { file, at: fact.at };
        match &fact.what {
            What::CreateTable { table, columns, constraints, opaque } => {
                let mut made = Table {
                    made: Place { file, at: table.at },
                    columns: BTreeMap::new(),
                    constraints: Vec::new(),
                    indexes: Vec::new(),
                    opaque: *opaque,
                };
                columns.iter().for_each(|column| made.add_column(file, column));
                constraints.iter().for_each(|c| made.add_constraint(file, c));
                // `IF NOT EXISTS` of a table that is there changes nothing.
                self.tables.entry(table.name.clone()).or_insert(made);
            }
            What::CreateView { view } => {
                self.views.insert(view.name.clone(), Place { file, at: view.at });
            }
            What::CreateDomain { name } => self.domains.push(name.name.clone()),
            What::DropTable { tables } => {
                for table in tables {
                    self.tables.remove(&table.name);
                }
            }
            What::DropIndex { indexes } => {
                for table in self.tables.values_mut() {
                    let dropped = |index: &Index| {
                        indexes.iter().any(|d| index.name.as_ref() == Some(&d.name))
                    };
                    table.indexes.retain(|index| !dropped(index));
                }
            }
            What::RenameTable { table, to } => {
                if let Some(renamed) = self.tables.remove(&table.name) {
                    self.tables.insert(to.clone(), renamed);
                }
            }
            What::Truncate { .. } | What::Delete { .. } | What::Update { .. } => {}
            what => {
                let Some(table) = what.table().and_then(|name| self.tables.get_mut(&name.name))
                else {
                    return;
                };
                table.change(place, what);
            }
        }
    }
}

impl Table {
    fn change(&mut self, place: Place, what: &What) {
        match what {
            What::CreateIndex { index, columns, predicate, .. } => self.indexes.push(Index {
                name: index.as_ref().map(|index: &Name| index.name.clone()),
                columns: columns.clone(),
                predicate: predicate.clone(),
            }),
            What::AddColumn { column, .. } => self.add_column(place.file, column),
            What::DropColumn { column, .. } => {
                self.columns.remove(column);
                let names = |list: &[String]| list.contains(column);
                self.constraints.retain(|(_, constraint)| match &constraint.kind {
                    ConstraintKind::Unique { columns } | ConstraintKind::Primary { columns } => {
                        !names(columns)
                    }
                    ConstraintKind::Foreign { columns, .. } => !names(columns),
                    ConstraintKind::Check { .. } | ConstraintKind::NotNull => true,
                });
                self.indexes.retain(|index| !index.columns.contains(&Some(column.clone())));
            }
            What::RenameColumn { column, to, .. } => self.rename_column(column, to),
            What::SetType { column, ty, .. } => {
                if let Some(column) = self.columns.get_mut(column) {
                    column.ty.clone_from(ty);
                }
            }
            What::SetDefault { column, default, .. } => {
                if let Some(column) = self.columns.get_mut(column) {
                    column.default = Some(default.clone());
                }
            }
            What::AddConstraint { constraint, .. } => self.add_constraint(place.file, constraint),
            What::DropConstraint { name, .. } => {
                self.constraints.retain(|(_, constraint)| constraint.name.as_ref() != Some(name));
            }
            What::ValidateConstraint { name, .. } => {
                let named =
                    self.constraints.iter_mut().find(|(_, c)| c.name.as_ref() == Some(name));
                if let Some((_, constraint)) = named {
                    constraint.valid = true;
                }
            }
            _ => {}
        }
    }

    fn add_column(&mut self, file: usize, column: &Column) {
        column.constraints.iter().for_each(|constraint| self.add_constraint(file, constraint));
        self.columns.insert(column.name.clone(), column.clone());
    }

    fn add_constraint(&mut self, file: usize, constraint: &Constraint) {
        self.constraints.push((Place { file, at: constraint.at }, constraint.clone()));
    }

    fn rename_column(&mut self, from: &str, to: &str) {
        if let Some(column) = self.columns.remove(from) {
            self.columns.insert(to.to_owned(), column);
        }
        let rename = |name: &mut String| {
            if name == from {
                to.clone_into(name);
            }
        };
        for (_, constraint) in &mut self.constraints {
            match &mut constraint.kind {
                ConstraintKind::Unique { columns }
                | ConstraintKind::Primary { columns }
                | ConstraintKind::Foreign { columns, .. } => columns.iter_mut().for_each(rename),
                ConstraintKind::Check { .. } | ConstraintKind::NotNull => {}
            }
        }
        for index in &mut self.indexes {
            index.columns.iter_mut().flatten().for_each(rename);
        }
    }

    pub(super) fn has_primary_key(&self) -> bool {
        self.constraints.iter().any(|(_, c)| matches!(c.kind, ConstraintKind::Primary { .. }))
    }

    /// Whether an index, or a key, begins with these columns in any order.
    pub(super) fn is_indexed_by(&self, columns: &[String]) -> bool {
        let covers = |index: &[Option<&String>]| {
            index.len() >= columns.len()
                && index.iter().take(columns.len()).all(|c| c.is_some_and(|c| columns.contains(c)))
        };
        let keys = self.constraints.iter().filter_map(|(_, c)| match &c.kind {
            ConstraintKind::Unique { columns } | ConstraintKind::Primary { columns } => {
                Some(columns)
            }
            _ => None,
        });
        let not_null = |predicate: &String| {
            columns.iter().any(|column| *predicate == format!("{column}isnotnull"))
        };
        // A partial index serves if it leaves out only rows that refer to nothing.
        let whole =
            self.indexes.iter().filter(|index| index.predicate.as_ref().is_none_or(not_null));
        keys.map(|columns| columns.iter().map(Some).collect::<Vec<_>>())
            .chain(whole.map(|index| index.columns.iter().map(Option::as_ref).collect()))
            .any(|index| covers(&index))
    }

    /// Whether a valid CHECK says that the column is never null.
    pub(super) fn is_checked_not_null(&self, column: &str) -> bool {
        let wanted = format!("{column}isnotnull");
        self.constraints.iter().any(|(_, constraint)| {
            let valid = constraint.valid;
            matches!(&constraint.kind, ConstraintKind::Check { expression } if valid && *expression == wanted)
        })
    }
}
