//! Rules about what is lost: dropped tables and columns, deleted and overwritten rows.

use super::catalogue::{
    DELETE_ALL, DROP_COLUMN, DROP_TABLE, RENAME_TABLE, Rule, TRUNCATE, UPDATE_ALL,
};
use super::file::{Direction, File};
use super::finding::Report;
use super::tables::{Made, Tables};
use super::tree::{Name, What};

/// `before` are the tables before the file; `up` is what the file that a down file takes back made.
pub(super) fn check(file: &File<'_>, before: &Tables, up: &Made, report: &mut Report) {
    let own = Made::by(file, before);
    let is_own = |table: &Name| own.tables.contains(&table.name);
    for fact in &file.tree.facts {
        match &fact.what {
            What::DropTable { tables } => {
                let taken_back = |table: &Name| up.tables.contains(&table.name);
                for table in tables.iter().filter(|table| !is_own(table) && !taken_back(table)) {
                    lost(
                        file,
                        DROP_TABLE,
                        table.at,
                        format!("table `{}` is dropped", table.name),
                        report,
                    );
                }
            }
            What::DropColumn { table, column }
                if !own.has_column(table, column) && !up.has_column(table, column) =>
            {
                let message = format!("column `{column}` of `{}` is dropped", table.name);
                lost(file, DROP_COLUMN, fact.at, message, report);
            }
            What::Truncate { tables } => {
                for table in tables.iter().filter(|table| !is_own(table)) {
                    lost(file, TRUNCATE, table.at, format!("`{}` is emptied", table.name), report);
                }
            }
            What::Delete { table, all: true } if !is_own(table) => {
                lost(
                    file,
                    DELETE_ALL,
                    fact.at,
                    format!("all rows of `{}` are deleted", table.name),
                    report,
                );
            }
            What::Update { table, all: true } if !is_own(table) => {
                report.at(
                    file,
                    UPDATE_ALL,
                    fact.at,
                    format!("every row of `{}` is updated", table.name),
                );
            }
            _ => {}
        }
    }
    renamed_views(file, report);
}

/// In a down file it is what the file is for: the runner asks before rows are lost.
fn lost(file: &File<'_>, rule: &Rule, at: usize, message: String, report: &mut Report) {
    match file.direction {
        Direction::Down => report.warn(file, rule, at, message),
        Direction::Up | Direction::Repeatable => report.at(file, rule, at, message),
    }
}

/// squawk tells of tables only.
fn renamed_views(file: &File<'_>, report: &mut Report) {
    for piece in file.pieces.iter().filter(|piece| piece.opens(&["alter"])) {
        let view = matches!(piece.object(), Some((_, "view" | "materialized")));
        if let Some(at) = piece.find(&["rename", "to"]).filter(|_| view) {
            report.at(file, RENAME_TABLE, piece.words[at].at, "a view gets another name");
        }
    }
}
